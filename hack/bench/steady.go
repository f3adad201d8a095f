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

// steady writes events at an even pace and then none, and watches what the agent, and the floor beside it, take of one core.
func (b *bench) steady(ctx context.Context) (err error) {
	corpus, err := rig.FindCorpus()
	if err != nil {
		return err
	}
	if err := b.forget(); err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "steady")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	log := filepath.Join(dir, "audit.log")
	writer := rig.NewWriter(rig.WriterConfig{Path: log, MaxSize: 20, PerSecond: perSecond})
	defer func() { err = errors.Join(err, writer.Close()) }()
	write := func(during time.Duration) error { return writer.WriteLive(ctx, corpus, rig.MetadataLog, during) }
	if err := write(time.Second); err != nil { // there is a file
		return err
	}
	agent, err := b.follow(ctx, dir, "agent", func(url string) []string { return b.defaultCommand(log, url) })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, agent.stop()) }()
	floor, err := b.follow(ctx, dir, "floor", func(url string) []string { return append(b.floorCommand(log, url), "follow") })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, floor.stop()) }()
	if err := write(5 * time.Second); err != nil { // they begin
		return err
	}
	if err := watch(agent, floor, "1,000 events a second", func() error { return write(b.Steady) }); err != nil {
		return err
	}
	if _, err := floor.sink.Wait(ctx, writer.Lines(), floor.running); err != nil {
		return fmt.Errorf("floor: %w", err)
	}
	got, err := agent.sink.Wait(ctx, writer.Lines(), agent.running)
	if err != nil {
		return err
	}
	fmt.Printf("  from an event's own time to its arrival: p50 %v, p99 %v\n", got.P50.Round(time.Millisecond), got.P99.Round(time.Millisecond))
	return watch(agent, floor, "idle", func() error { return sleep(ctx, b.Idle) })
}

// follower is a program that ships what is written, and the sink that it ships to.
type follower struct {
	*process
	sink *rig.Sink
}

// follow starts a program, of which command is given the URL of a sink of its own.
func (b *bench) follow(ctx context.Context, dir, name string, command func(url string) []string) (f follower, err error) {
	logs := filepath.Join(dir, name)
	if err := os.Mkdir(logs, 0o700); err != nil {
		return f, err
	}
	if f.sink, err = rig.StartSink(ctx, filepath.Join(b.Bin, "sink"), logs, "-latency"); err != nil {
		return f, err
	}
	if f.process, err = start(logs, name, command(f.sink.URL)...); err != nil {
		return f, errors.Join(err, f.sink.Stop())
	}
	return f, nil
}

func (f follower) stop() error {
	_, err := f.process.stop()
	return errors.Join(err, f.sink.Stop())
}

// watch prints what two programs take while something goes on.
func watch(agent, floor follower, what string, goOn func() error) error {
	programs := []follower{agent, floor}
	var before, took [2]time.Duration
	for i, p := range programs {
		var err error
		if before[i], err = p.cpu(); err != nil {
			return err
		}
	}
	begin := time.Now()
	if err := goOn(); err != nil {
		return err
	}
	during := time.Since(begin)
	for i, p := range programs {
		after, err := p.cpu()
		if err != nil {
			return err
		}
		took[i] = after - before[i]
	}
	fmt.Printf("\n%s for %v: %.3f %% of a core, the floor %.3f %%: %.2f times; %.1f MB of memory at the most so far\n", what,
		during.Round(time.Second), 100*took[0].Seconds()/during.Seconds(), 100*took[1].Seconds()/during.Seconds(),
		took[0].Seconds()/took[1].Seconds(), float64(rig.PeakRSS(agent.cmd.Process.Pid))/1e6)
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
