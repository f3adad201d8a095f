// Command auditferry follows the audit logs that kube-apiserver writes on a control-plane node and pushes them to
// Grafana Loki, every event once. Read agent.go first: it is the loop.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// The exit codes of auditferry.
const (
	exitOK      = 0 // a clean stop
	exitFailure = 1 // something that it needs is missing or failed
	exitUsage   = 2 // a flag, the environment or the configuration file is wrong
)

func main() {
	limitCores()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program but for the signals. What went wrong is one line on stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return runAt(ctx, time.Now, args, stdout, stderr)
}

// runAt is run by a clock.
func runAt(ctx context.Context, now func() time.Time, args []string, stdout, stderr io.Writer) int {
	command, cfg, err := parse(args, stdout)
	var done finished
	switch {
	case errors.As(err, &done):
		return int(done)
	case err != nil:
		fmt.Fprintf(stderr, "auditferry: %s (see %s --help)\n", oneLine(err), strings.TrimSpace("auditferry "+command))
		return exitUsage
	}
	if cfg != nil {
		cfg.now = now
	}
	switch {
	case command == "version":
		fmt.Fprintln(stdout, versionLine())
	case command == "replay":
		err = replay(ctx, cfg, stdout, stderr)
	case command == "prepare":
		err = prepare(cfg, stdout)
	case cfg.CheckConfig:
		err = checkConfig(cfg, stdout)
	case cfg.DryRun:
		err = dryRun(ctx, cfg, stdout, stderr)
	default:
		err = serve(ctx, cfg, stderr)
	}
	if err != nil {
		fmt.Fprintln(stderr, "auditferry:", oneLine(err))
		return exitFailure
	}
	return exitOK
}

// oneLine joins the lines of what libraries report.
func oneLine(err error) string {
	var line strings.Builder
	for part := range strings.Lines(err.Error()) {
		switch {
		case line.Len() == 0:
		case strings.HasSuffix(line.String(), ":"):
			line.WriteByte(' ')
		default:
			line.WriteString("; ")
		}
		line.WriteString(strings.TrimSpace(part))
	}
	return line.String()
}
