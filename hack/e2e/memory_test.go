//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"iter"
	"path/filepath"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

const (
	firstStartBytes = 40e6 // of audit log, at the least
	firstStartPeak  = 32e6 // bytes of memory
	longLinesPeak   = 48e6
)

// TestFirstStartMemory lets the agent ship 41 MB of audit log that were there before it, and looks at the most memory that it
// held; and the same with lines of up to 2.9 MB.
func TestFirstStartMemory(t *testing.T) {
	corpus, err := rig.FindCorpus()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("mixed", func(t *testing.T) {
		peak := shipAtFirstStart(t, backlog(t, corpus, firstStartBytes))
		if peak >= firstStartPeak {
			t.Errorf("peak memory %.1f MB, want less than %.0f MB", float64(peak)/1e6, firstStartPeak/1e6)
		}
	})
	t.Run("big", func(t *testing.T) {
		if !corpus.Full() {
			t.Skipf("%s is not in %s", rig.BigLog, corpus.Dir)
		}
		peak := shipAtFirstStart(t, corpus.Replay(time.Now(), rig.BigLog))
		if peak >= longLinesPeak {
			t.Errorf("peak memory %.1f MB, want less than %.0f MB", float64(peak)/1e6, longLinesPeak/1e6)
		}
	})
}

// promptInFlight is what a prompt Loki gets by default. This one can be slow, under the race detector, and would get more.
const promptInFlight = "--pushes-in-flight=2"

// shipAtFirstStart writes the lines, then starts the agent and waits until it has shipped them. It prints and gives the agent's
// peak memory.
func shipAtFirstStart(t *testing.T, lines iter.Seq2[[]byte, error]) (peak int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dir := workDir(t)
	auditLog := filepath.Join(subDir(t, dir, "audit"), "audit.log")
	count, bytes := writeLog(t, ctx, auditLog, lines)
	server, url := startEndpoint(t, lokitest.HashLines())
	begin := time.Now()
	agent := newAgent(t, dir, auditLog, url, "--loki-stream-rate=0", promptInFlight) // full speed
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
	return peak
}
