//go:build e2e && linux

package e2e

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/auditferry/auditferry/hack/rig"
)

var (
	capsBacklog = limits{memory: 48 << 20, cpus: 0.2}
	capsSteady  = limits{memory: 48 << 20, cpus: 0.05}
	capsPaths   = limits{memory: 64 << 20}
)

const (
	slowLoki = 100 * time.Millisecond
	// inFlight is what the agent has under way at the least while Loki is slow: four pushes of 1 MiB.
	inFlight = 4 << 20

	steadyRate = 500 // events a second
	steadyTime = time.Minute
	// steadyLag is the batch wait, and a few seconds for a machine that has other things to do. Who is 8 % too slow is later.
	steadyLag = 5 * time.Second

	pathCount     = 4
	pathBytes     = 60e6 // of audit log, in each at the least
	pathsResident = 64e6
)

// TestCapsBacklog lets a container of 48 MiB and a fifth of a processor ship a backlog of 1 GB, or AUDITFERRY_CAPS_GB, to a Loki that
// answers at once, and again to a slow one, when nothing of it is in the page cache: what the agent reads then counts as its own
// memory, as after a reboot.
func TestCapsBacklog(t *testing.T) {
	size := backlogSize(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute+time.Duration(size/1e9*float64(10*time.Minute)))
	defer cancel()
	logs := writeBacklogs(t, ctx, int64(size), 1)
	t.Run("prompt Loki", func(t *testing.T) {
		used := logs.ship(t, ctx, capsBacklog)
		if share := used.share(capsBacklog); share < 0.8 {
			t.Errorf("the agent has used %.0f %% of its processor time: something else holds it back", 100*share)
		}
	})
	t.Run("slow Loki", func(t *testing.T) {
		logs.forget(t)
		used := logs.ship(t, ctx, capsBacklog, "-delay="+slowLoki.String())
		speed, allowed := float64(logs.bytes)/used.wall.Seconds(), inFlight/slowLoki.Seconds()
		if speed < allowed/2 && used.share(capsBacklog) < 0.8 {
			t.Errorf("%.1f MB/s, where Loki allows %.1f and the processor more", speed/1e6, allowed/1e6)
		}
	})
}

// TestCapsPaths lets one agent ship four backlogs as fast as it goes.
func TestCapsPaths(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	logs := writeBacklogs(t, ctx, pathBytes, pathCount)
	logs.forget(t)
	if used := logs.ship(t, ctx, capsPaths); used.resident > pathsResident {
		t.Errorf("%.1f MB of memory, want at most %.1f MB", float64(used.resident)/1e6, pathsResident/1e6)
	}
}

// TestCapsSteady writes events as they happen and wants an agent with a twentieth of a processor to keep up.
func TestCapsSteady(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), steadyTime+2*time.Minute)
	defer cancel()
	corpus, err := rig.FindCorpus()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	sink := startSink(t, ctx, dir, "-latency")
	auditLog := filepath.Join(subDir(t, dir, "audit"), "audit.log")
	c := startContainer(t, ctx, dir, capsSteady, sink.URL, []string{auditLog})
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	writer := rig.NewWriter(rig.WriterConfig{Path: auditLog, MaxSize: 20, PerSecond: steadyRate})
	if err := writer.WriteLive(ctx, corpus, rig.MetadataLog, steadyTime); err != nil {
		t.Fatal(err)
	}
	written := time.Now()
	got := c.waitForArrival(t, ctx, sink, writer.Lines())
	lag, used := time.Since(written), c.spent(t)
	fmt.Printf("caps: %s: %d lines, %d a second; %v; time to arrival p50 %v, p99 %v, of the last %v\n", t.Name(), writer.Lines(), steadyRate,
		used.of(capsSteady), got.P50.Round(time.Millisecond), got.P99.Round(time.Millisecond), lag.Round(time.Millisecond))
	c.mustBeWell(t, ctx, used)
	if lag > steadyLag {
		t.Errorf("the last event was %v under way, want at most %v: the agent does not keep up", lag, steadyLag)
	}
	if err := writer.Close(); err != nil {
		t.Error(err)
	}
	stopAndCount(t, ctx, c, sink, writer.Lines())
}

// backlogSize gives the bytes that the environment asks for.
func backlogSize(t *testing.T) float64 {
	t.Helper()
	given := os.Getenv("AUDITFERRY_CAPS_GB")
	if given == "" {
		return 1e9
	}
	gb, err := strconv.ParseFloat(given, 64)
	if err != nil || gb <= 0 || math.IsInf(gb, 0) {
		t.Fatalf("AUDITFERRY_CAPS_GB is %q, want a number over 0 (%v)", given, err)
	}
	return gb * 1e9
}

// backlogs are audit logs, each with its backups, that were written before the agent starts.
type backlogs struct {
	dir   string
	logs  []string
	lines int
	bytes int64
}

// writeBacklogs writes so many audit logs of so many bytes each, in directories of their own.
func writeBacklogs(t *testing.T, ctx context.Context, size int64, count int) backlogs {
	t.Helper()
	corpus, err := rig.FindCorpus()
	if err != nil {
		t.Fatal(err)
	}
	made := backlogs{dir: t.TempDir()}
	for i := range count {
		log := filepath.Join(subDir(t, made.dir, fmt.Sprintf("audit/%d", i)), "audit.log")
		lines, bytes := writeLog(t, ctx, log, backlog(t, corpus, size))
		made.logs = append(made.logs, log)
		made.lines += lines
		made.bytes += bytes
	}
	return made
}

// forget takes the logs out of the page cache.
func (b backlogs) forget(t *testing.T) {
	t.Helper()
	for _, log := range b.logs {
		files, err := rig.AuditFiles(log)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			forgetFile(t, name)
		}
	}
}

func forgetFile(t *testing.T, name string) {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Sync(); err != nil { // what is not on disk stays in memory
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatalf("taking %s out of the page cache: %v", name, err)
	}
}

// ship lets an agent within limits ship the logs from an empty state, at full speed, and gives what it has taken until the last
// event had arrived. All must arrive, once, and the container must be well.
func (b backlogs) ship(t *testing.T, ctx context.Context, of limits, sinkFlags ...string) spent {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(b.dir, "agent")); err != nil {
		t.Fatal(err)
	}
	sink := startSink(t, ctx, b.dir, sinkFlags...)
	c := startContainer(t, ctx, b.dir, of, sink.URL, b.logs, "--loki-stream-rate=0")
	c.waitForArrival(t, ctx, sink, b.lines)
	used := c.spent(t)
	fmt.Printf("caps: %s: %.2f GB of %d paths, %d lines, in %.1f s: %.1f MB/s, %.2f CPU s/GB, %v\n", t.Name(), float64(b.bytes)/1e9, len(b.logs),
		b.lines, used.wall.Seconds(), float64(b.bytes)/1e6/used.wall.Seconds(), used.cpu.Seconds()/float64(b.bytes)*1e9, used.of(of))
	c.mustBeWell(t, ctx, used)
	stopAndCount(t, ctx, c, sink, b.lines)
	return used
}

// startSink gives a sink that ends with the test.
func startSink(t *testing.T, ctx context.Context, dir string, flags ...string) *rig.Sink {
	t.Helper()
	binary, err := rig.Binary("sink")
	if err != nil {
		t.Fatal(err)
	}
	sink, err := rig.StartSink(ctx, binary, dir, flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sink.Stop(); err != nil {
			t.Error(err)
		}
	})
	return sink
}

// waitForArrival waits until so many entries have arrived, or the container has ended.
func (c *container) waitForArrival(t *testing.T, ctx context.Context, sink *rig.Sink, entries int) rig.SinkStats {
	t.Helper()
	got, err := sink.Wait(ctx, entries, c.Running)
	if err != nil {
		c.mustRun(t, context.WithoutCancel(ctx))
		t.Fatal(err)
	}
	return got
}

// stopAndCount ends the agent, and then wants neither more nor fewer entries than lines: nothing was sent again on the way.
func stopAndCount(t *testing.T, ctx context.Context, c *container, sink *rig.Sink, lines int) {
	t.Helper()
	stopAgent(t, c.Agent)
	got, err := sink.Stats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got.Entries != lines {
		t.Errorf("%d lines written, %d entries arrived", lines, got.Entries)
	}
}
