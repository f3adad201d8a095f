package rig

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"text/template"
	"time"
)

//go:embed loki.yaml
var lokiConfig string

// Loki is a real Loki in one process, on loopback, with its data in Dir. It can be stopped and started again: the port and
// the data stay. One goroutine starts and stops it.
type Loki struct {
	Dir string // holds the configuration, the data and loki.log; kept
	// ShardStreams is Loki's default. Off, for lines that are longer than the rate at which it would cut a stream.
	ShardStreams bool
	// MaxStreams is how many streams it admits; 0: Loki's default. A change holds from the next Start on.
	MaxStreams int

	port, grpcPort int
	run            *process
}

// URL is where it listens, the same after every Start.
func (l *Loki) URL() string { return fmt.Sprintf("http://127.0.0.1:%d", l.port) }

// Start runs Loki and waits until it is ready. If that fails, nothing is left running.
func (l *Loki) Start(ctx context.Context) error {
	binary, err := Binary("loki")
	if err != nil {
		return err
	}
	config := filepath.Join(l.Dir, "loki.yaml")
	if err := l.configure(config); err != nil {
		return err
	}
	if l.run, err = startProcess("loki", []string{binary, "-config.file=" + config}, filepath.Join(l.Dir, "loki.log"), nil); err != nil {
		return err
	}
	if err := l.run.waitReady(ctx, http.DefaultClient, l.URL()+"/ready", ""); err != nil {
		return errors.Join(err, l.Stop())
	}
	return nil
}

// configure chooses the ports, the first time, and writes the configuration.
func (l *Loki) configure(path string) error {
	if l.port == 0 {
		ports, err := FreePorts(2)
		if err != nil {
			return err
		}
		l.port, l.grpcPort = ports[0], ports[1]
	}
	tmpl, err := template.New("loki.yaml").Parse(lokiConfig)
	if err != nil {
		return fmt.Errorf("configuring Loki: %w", err)
	}
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("configuring Loki: %w", err)
	}
	err = tmpl.Execute(file, struct {
		Dir                            string
		HTTPPort, GRPCPort, MaxStreams int
		ShardStreams                   bool
	}{l.Dir, l.port, l.grpcPort, l.MaxStreams, l.ShardStreams})
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("configuring Loki: %w", err)
	}
	return nil
}

// Stop ends Loki by SIGTERM and waits for it; what it has acknowledged is on disk then. It does nothing if it does not run.
func (l *Loki) Stop() error {
	if l.run == nil {
		return nil
	}
	_, err := l.run.terminate(90 * time.Second)
	l.run = nil
	return err
}
