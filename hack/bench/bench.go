package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

// bench is one run of the benchmarks.
type bench struct {
	Config
	dir    string
	listen string // of the agent's metrics
}

// patience is how long a program may take to ship 1 GB.
const patience = 10 * time.Minute

// longLine is what makes a line long: Loki takes up to 256 KiB by default.
const longLine = 256 << 10

func (b *bench) metadata(ctx context.Context) error {
	return b.compare(ctx, "Metadata", b.Bytes, 0, rig.MetadataLog)
}

func (b *bench) mixed(ctx context.Context) error {
	return b.compare(ctx, "mixed levels", b.Bytes, 0, rig.MixedLog)
}

func (b *bench) long(ctx context.Context) error {
	return b.compare(ctx, "long lines", b.Bytes/4, longLine, rig.MixedLog, rig.BigLog)
}

// compare lets the floor and the agent ship the same log, in turn.
func (b *bench) compare(ctx context.Context, title string, size int64, atLeast int, names ...string) error {
	log, err := b.makeLog(size, atLeast, names...)
	if err != nil {
		return err
	}
	fmt.Printf("\n%s: %v; %d runs each, in turn: median (least to most)\n", title, log, b.Runs)
	var floor, agent []cost
	for range b.Runs {
		c, err := b.ship(ctx, log, "floor", b.floorCommand, nil)
		if err != nil {
			return err
		}
		floor = append(floor, c)
		if c, err = b.ship(ctx, log, "agent", b.agentCommand, nil); err != nil {
			return err
		}
		agent = append(agent, c)
	}
	report(log, floor, agent)
	return b.allocations(ctx, log)
}

// ship lets a program ship a log from an empty state, and gives what it cost from its start to its end. With look, it is
// called as soon as half, and as soon as all, has arrived.
func (b *bench) ship(ctx context.Context, log data, name string, command func(log, url string) []string, look func(*process) error, flags ...string) (c cost, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := log.warm(); err != nil {
		return c, err
	}
	if err := b.forget(); err != nil {
		return c, err
	}
	sink, err := b.startSink(ctx, flags...)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, sink.Stop()) }()
	p, err := start(b.dir, name, command(log.file, sink.URL)...)
	if err != nil {
		return c, err
	}
	var got rig.SinkStats
	for _, part := range []int{log.lines / 2, log.lines} {
		if got, err = sink.Wait(ctx, part, p.running); err == nil && look != nil {
			err = look(p)
		}
		if err != nil {
			_, _ = p.stop()
			return c, fmt.Errorf("%s (its output is in %s): %w", name, p.log, err)
		}
	}
	c = cost{wall: time.Since(p.begin), peak: rig.PeakRSS(p.cmd.Process.Pid), wire: got.WireBytes, requests: got.Requests}
	if c.cpu, err = p.stop(); err == nil {
		got, err = sink.Stats(ctx) // what came late counts too
	}
	if err == nil && got.Entries != log.lines {
		err = fmt.Errorf("%s: %d lines, but %d entries", name, log.lines, got.Entries)
	}
	return c, err
}

func (b *bench) startSink(ctx context.Context, flags ...string) (*rig.Sink, error) {
	return rig.StartSink(ctx, filepath.Join(b.Bin, "sink"), b.dir, flags...)
}

func (b *bench) floorCommand(log, url string) []string {
	return []string{filepath.Join(b.Bin, "floor"), log, url + pushPath}
}

const pushPath = "/loki/api/v1/push"

// agentCommand is the agent at full speed: Loki's limit of a stream is out of the way.
func (b *bench) agentCommand(log, url string) []string {
	return append(b.defaultCommand(log, url), "--loki-stream-rate=0")
}

// defaultCommand is the agent as it is set up by default, but that it sends lines of any length whole, as the floor does.
func (b *bench) defaultCommand(log, url string) []string {
	if b.Agent != "" {
		return strings.Fields(strings.NewReplacer("{log}", log, "{url}", url, "{dir}", b.state()).Replace(b.Agent))
	}
	return []string{filepath.Join(b.Bin, "auditferry"), "--audit-log-path=" + log, "--loki-url=" + url, "--node=bench",
		"--positions-file=" + filepath.Join(b.state(), "positions.json"), "--listen-address=" + b.listen, "--max-line-size=0"}
}

// state is where the agent under measure keeps its positions.
func (b *bench) state() string { return filepath.Join(b.dir, "state") }

// forget makes the next start a first one.
func (b *bench) forget() error {
	if err := os.RemoveAll(b.state()); err != nil {
		return err
	}
	return os.Mkdir(b.state(), 0o700)
}
