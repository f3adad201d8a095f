package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/auditferry/auditferry/tailer"
)

// checkConfig tries what serve needs, without following, pushing, or taking the positions away from an agent that runs.
// It leaves nothing behind.
func checkConfig(cfg *Config, stdout io.Writer) error {
	targets, err := cfg.targets()
	if err != nil {
		return err
	}
	if err := cfg.checkState(targets, stdout); err != nil {
		return err
	}
	for _, t := range targets {
		err := t.checkHTTPFiles()
		if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(t.httpFile, credentials) {
			fmt.Fprintf(stdout, "%s is there only while the service runs: not checked\n", t.httpFile)
			continue
		}
		if err != nil {
			return err
		}
	}
	if cfg.LogFile != "" {
		if err := tryWriting("--log-file", cfg.LogFile); err != nil {
			return err
		}
	}
	if cfg.ListenAddress != "" {
		if _, err := net.ResolveTCPAddr("tcp", cfg.ListenAddress); err != nil {
			return fmt.Errorf("--listen-address: %w", err)
		}
	}
	quiet := slog.New(slog.DiscardHandler)
	for _, path := range cfg.AuditLogPath {
		tail, err := tailer.New(cfg.tail(path, tailer.Start{}, quiet, nil), nil)
		if err != nil {
			return explain(err)
		}
		tail.Close()
		tellMissing(stdout, path)
	}
	fmt.Fprintln(stdout, "the configuration is fine")
	return nil
}

// credentials is where systemd lays what a unit loads with LoadCredential=, for as long as it runs (systemd.exec(5)).
const credentials = "/run/credentials/"

// tellMissing says so if there is no audit log at a path.
func tellMissing(stdout io.Writer, path string) {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	fmt.Fprintf(stdout, "%s does not exist yet: the agent would wait for it\n", path)
	if !isDir(filepath.Dir(path)) {
		fmt.Fprintf(stdout, "nor does its directory: is the path right?\n")
	}
}

// checkState tries where positions and dead letters go.
func (c *Config) checkState(targets []target, stdout io.Writer) error {
	made := "" // a directory that the agent would make
	if dir := filepath.Dir(c.PositionsFile); c.PositionsFile == defaultPositionsFile() && !isDir(dir) {
		made = dir
		fmt.Fprintf(stdout, "%s does not exist yet: the agent would make it\n", dir)
	} else if err := tryWriting("--positions-file", c.PositionsFile); err != nil {
		return err
	}
	if filepath.Dir(c.DeadLetterFile) == made {
		return nil
	}
	for _, t := range targets {
		if err := tryWriting("--dead-letter-file", c.deadLetters(&t)); err != nil {
			return err
		}
	}
	return nil
}

// checkHTTPFiles reads its --loki-http-config and tries the files that it names.
func (t *target) checkHTTPFiles() error {
	http, err := t.httpConfig()
	if err != nil {
		return err
	}
	for _, file := range filesOf(&http) {
		if _, err := os.ReadFile(file); err != nil {
			return fmt.Errorf("--loki-http-config=%s names a file that cannot be read: %w", t.httpFile, err)
		}
	}
	return nil
}

// tryWriting says why a file cannot be made and written beside path, as on a disk that is full, or path is none.
func tryWriting(flag, path string) error {
	if isDir(path) {
		return fmt.Errorf("%s=%s is a directory: name a file", flag, path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".auditferry-check-*")
	if err != nil {
		return fmt.Errorf("%s=%s: its directory must exist and be writable: %w", flag, path, err)
	}
	_, err = f.Write(make([]byte, 4<<10))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close(), os.Remove(f.Name())); err != nil {
		return fmt.Errorf("%s=%s: beside it, nothing can be written: %w", flag, path, err)
	}
	return nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
