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
	// DefaultLimits leaves the limit of lines at Loki's default, 256 KB, which is lifted otherwise.
	DefaultLimits bool
	// Container gives the command that runs Loki in a container, to which its flags are added; nil: the binary in .cache/bin on
	// loopback. The container needs Dir at the same path and publishes the port on 127.0.0.1.
	Container func(port int) []string

	port, grpcPort int
	run            *process
}

// URL is where it listens, the same after every Start.
func (l *Loki) URL() string { return fmt.Sprintf("http://127.0.0.1:%d", l.port) }

// Start runs Loki and waits until it is ready. If that fails, nothing is left running.
func (l *Loki) Start(ctx context.Context) error {
	command, err := l.command()
	if err != nil {
		return err
	}
	config := filepath.Join(l.Dir, "loki.yaml")
	if err := l.configure(config); err != nil {
		return err
	}
	if l.run, err = startProcess("loki", append(command, "-config.file="+config), filepath.Join(l.Dir, "loki.log"), nil); err != nil {
		return err
	}
	if err := l.run.waitReady(ctx, http.DefaultClient, l.URL()+"/ready", ""); err != nil {
		return errors.Join(err, l.Stop())
	}
	return nil
}

// command chooses the ports, the first time, and gives what runs Loki.
func (l *Loki) command() ([]string, error) {
	if l.port == 0 {
		ports, err := FreePorts(2)
		if err != nil {
			return nil, err
		}
		l.port, l.grpcPort = ports[0], ports[1]
	}
	if l.Container != nil {
		return l.Container(l.port), nil
	}
	binary, err := Binary("loki")
	return []string{binary}, err
}

// configure writes the configuration.
func (l *Loki) configure(path string) error {
	listen := "127.0.0.1"
	if l.Container != nil {
		listen = "0.0.0.0"
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
		Dir, Listen                    string
		HTTPPort, GRPCPort, MaxStreams int
		ShardStreams, DefaultLimits    bool
	}{l.Dir, listen, l.port, l.grpcPort, l.MaxStreams, l.ShardStreams, l.DefaultLimits})
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

// Discarded gives how many entries Loki has refused since its start, by its reason (loki_discarded_samples_total).
func (l *Loki) Discarded(ctx context.Context) (map[string]float64, error) {
	families, err := scrape(ctx, l.URL()+"/metrics")
	if err != nil {
		return nil, fmt.Errorf("reading Loki's metrics: %w", err)
	}
	reasons := map[string]float64{}
	for _, m := range families["loki_discarded_samples_total"].GetMetric() {
		reasons[labelOf(m, "reason")] += m.GetCounter().GetValue()
	}
	return reasons, nil
}
