//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

const (
	firstStartBytes = 40e6 // of audit log, at the least
	firstStartPeak  = 40e6 // bytes of memory
)

// TestFirstStartMemory lets the agent ship 41 MB of audit log that were there before it, and looks at the most memory that it
// held. The same with lines of up to 2.9 MB has no bar yet: it is printed.
func TestFirstStartMemory(t *testing.T) {
	corpus, err := rig.FindCorpus()
	if err != nil {
		t.Fatal(err)
	}
	names := []string{rig.MixedLog}
	if !corpus.Full() {
		names = slices.Repeat([]string{rig.SampleLog}, 49)
	}
	t.Run("mixed", func(t *testing.T) {
		bytes, peak := shipAtFirstStart(t, corpus.Replay(time.Now(), names...))
		if bytes < firstStartBytes {
			t.Errorf("%d bytes of audit log are not enough to tell", bytes)
		}
		if peak >= firstStartPeak {
			t.Errorf("peak memory %.1f MB, want less than %.0f MB", float64(peak)/1e6, firstStartPeak/1e6)
		}
	})
	t.Run("big", func(t *testing.T) {
		if !corpus.Full() {
			t.Skipf("%s is not in %s", rig.BigLog, corpus.Dir)
		}
		shipAtFirstStart(t, corpus.Replay(time.Now(), rig.BigLog))
	})
}

// shipAtFirstStart writes the lines, then starts the agent and waits until it has shipped them. It prints and gives how many
// bytes they are and the agent's peak memory.
func shipAtFirstStart(t *testing.T, lines iter.Seq2[[]byte, error]) (bytes, peak int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dir := workDir(t)
	auditLog := filepath.Join(subDir(t, dir, "audit"), "audit.log")
	count := 0
	writer := rig.NewWriter(rig.WriterConfig{Path: auditLog, MaxSize: 100})
	for line, err := range lines {
		if err != nil {
			t.Fatal(err)
		}
		if err := writer.Write(ctx, line); err != nil {
			t.Fatal(err)
		}
		count++
		bytes += int64(len(line)) + 1
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	server, url := startEndpoint(t, lokitest.HashLines())
	begin := time.Now()
	agent := newAgent(t, dir, auditLog, url, "--loki-stream-rate=0") // full speed
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	waitForEntries(t, ctx, agent, server, count)
	took := time.Since(begin)
	stopAgent(t, agent)
	if n := len(server.Entries()); n != count || server.Arrivals() != count {
		t.Errorf("%d lines written, %d entries in Loki, %d arrived", count, n, server.Arrivals())
	}
	peak = agent.PeakRSS()
	if peak == 0 {
		t.Skip("this system does not tell the peak memory of a process")
	}
	fmt.Printf("first start: %s: %d lines, %.1f MB, peak memory of the agent %.1f MB, %.1f s\n",
		t.Name(), count, float64(bytes)/1e6, float64(peak)/1e6, took.Seconds())
	return bytes, peak
}
