package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

// perSecond is how many events a busy cluster writes.
const perSecond = 1000

// latency measures how fast a backlog is carried to a Loki that is far away.
func (b *bench) latency(ctx context.Context) error {
	log, err := b.makeLog(b.Bytes, 0, rig.MixedLog)
	if err != nil {
		return err
	}
	const delay = 100 * time.Millisecond
	var speed spread
	for range b.Runs {
		c, err := b.ship(ctx, log, "agent", b.agentCommand, nil, "-delay="+delay.String())
		if err != nil {
			return err
		}
		speed = append(speed, float64(log.bytes)/1e6/c.wall.Seconds())
	}
	fmt.Printf("\ncatching up with %v of latency at the sink: %v MB/s of audit log\n", delay, speed)
	return nil
}

// steady writes events at an even pace and then none, and watches what the agent takes of one core.
func (b *bench) steady(ctx context.Context) (err error) {
	corpus, err := rig.FindCorpus()
	if err != nil {
		return err
	}
	if err := b.forget(); err != nil {
		return err
	}
	sink, err := b.startSink(ctx, "-latency")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sink.Stop()) }()
	dir := filepath.Join(b.dir, "steady")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	writer := rig.NewWriter(rig.WriterConfig{Path: filepath.Join(dir, "audit.log"), MaxSize: 20, PerSecond: perSecond})
	defer func() { err = errors.Join(err, writer.Close()) }()
	p, err := start(b.dir, "agent", b.defaultCommand(filepath.Join(dir, "audit.log"), sink.URL)...)
	if err != nil {
		return err
	}
	defer func() { _, e := p.stop(); err = errors.Join(err, e) }()
	write := func(during time.Duration) error { return writer.WriteLive(ctx, corpus, rig.MetadataLog, during) }
	if err := write(5 * time.Second); err != nil { // it begins
		return err
	}
	if err := p.watch("1,000 events a second", func() error { return write(b.Steady) }); err != nil {
		return err
	}
	got, err := sink.Wait(ctx, writer.Lines(), p.running)
	if err != nil {
		return err
	}
	fmt.Printf("  from an event's own time to its arrival: p50 %v, p99 %v\n", got.P50.Round(time.Millisecond), got.P99.Round(time.Millisecond))
	return p.watch("idle", func() error { return sleep(ctx, b.Idle) })
}

// watch prints what the process takes while something goes on.
func (p *process) watch(what string, goOn func() error) error {
	before, err := p.cpu()
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := goOn(); err != nil {
		return err
	}
	took := time.Since(begin)
	after, err := p.cpu()
	if err != nil {
		return err
	}
	fmt.Printf("\n%s for %v: %.3f %% of a core, %.1f MB of memory at the most so far\n", what, took.Round(time.Second),
		100*(after-before).Seconds()/took.Seconds(), float64(rig.PeakRSS(p.cmd.Process.Pid))/1e6)
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
