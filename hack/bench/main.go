// Command bench measures what the agent costs beside the floor (see floor), in the same run, against the same sink, and prints
// ratios: `make bench`. README.md says how it measures and what came of it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

// Config is what can be set.
type Config struct {
	Bin    string // directory of the programs auditferry, floor and sink
	Runs   int    // of each program at full speed
	Bytes  int64  // of audit log at full speed
	Steady time.Duration
	Idle   time.Duration
	Agent  string // another agent's command; empty: auditferry
	Only   *regexp.Regexp
}

func main() {
	var cfg Config
	flag.StringVar(&cfg.Bin, "bin", ".cache/bin", "`directory` of the programs auditferry, floor and sink")
	flag.IntVar(&cfg.Runs, "runs", 5, "of each program at full speed")
	megabytes := flag.Int64("mb", 500, "of audit log at full speed")
	flag.DurationVar(&cfg.Steady, "steady", time.Minute, "how long to write 1,000 events a second")
	flag.DurationVar(&cfg.Idle, "idle", 30*time.Second, "how long to write nothing")
	flag.StringVar(&cfg.Agent, "agent", "", "`command` of another agent, with {log}, {url} and {dir} in it")
	only := flag.String("only", "", "`regexp` of the parts to run: metadata, mixed, long, latency, steady (which ends idle)")
	flag.Parse()
	cfg.Bytes = *megabytes * 1e6
	var err error
	if cfg.Only, err = regexp.Compile(*only); err != nil {
		fmt.Fprintln(os.Stderr, "bench: -only:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// measure runs the parts one after the other, in a directory that it removes.
func measure(ctx context.Context, cfg Config) error {
	dir, err := os.MkdirTemp("", "auditferry-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // in the temporary directory: no harm
	ports, err := rig.FreePorts(1)
	if err != nil {
		return err
	}
	b := bench{Config: cfg, dir: dir, listen: fmt.Sprintf("127.0.0.2:%d", ports[0])} // the sink is on 127.0.0.1
	ran := false
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"metadata", b.metadata}, {"mixed", b.mixed}, {"long", b.long}, {"latency", b.latency}, {"steady", b.steady},
	} {
		if !cfg.Only.MatchString(part.name) {
			continue
		}
		ran = true
		if err := part.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	if !ran {
		return fmt.Errorf("-only=%s: there is no such part", cfg.Only)
	}
	return nil
}
