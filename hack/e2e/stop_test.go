//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

// TestStop ends the agent by SIGTERM in the middle of its work, with a Loki that is slow and with one that hangs: it must stop
// with code 0 in time, and the next start must bring what is left.
func TestStop(t *testing.T) {
	for _, test := range []struct {
		name    string
		timeout time.Duration // --shutdown-timeout
		within  time.Duration
		hang    bool
	}{
		{"under load", 10 * time.Second, 10 * time.Second, false},
		{"Loki hangs", time.Second, 3 * time.Second, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			server, url := startEndpoint(t)
			server.Answer(func(r lokitest.Request) lokitest.Reply {
				if test.hang && r.Number > 5 {
					return lokitest.Hang()
				}
				answered := make(chan struct{})
				time.AfterFunc(30*time.Millisecond, func() { close(answered) })
				return lokitest.After(answered, lokitest.OK())
			})
			dir := workDir(t)
			auditLog := filepath.Join(subDir(t, dir, "audit"), "audit.log")
			tally, count := writeSample(t, ctx, auditLog)
			agent := newAgent(t, dir, auditLog, url, "--batch-size=256KiB", "--loki-stream-rate=0", fmt.Sprintf("--shutdown-timeout=%s", test.timeout))
			if err := agent.Start(); err != nil {
				t.Fatal(err)
			}
			if err := rig.Poll(ctx, func() (bool, error) { return server.Requests() >= 7, agent.Running() }); err != nil {
				t.Fatalf("waiting for pushes: %v", err)
			}
			if took := stopAgent(t, agent); took > test.within {
				t.Errorf("it took %s to stop, with --shutdown-timeout=%s", took, test.timeout)
			} else {
				t.Logf("stopped after %s", took.Round(time.Millisecond))
			}
			before := len(server.Entries())
			if before == 0 || before == count {
				t.Fatalf("%d of %d events were shipped when the agent stopped: the test tests nothing", before, count)
			}
			server.Answer(nil)
			if err := agent.Start(); err != nil {
				t.Fatal(err)
			}
			waitForEntries(t, ctx, agent, server, count)
			stopAgent(t, agent)
			for _, e := range server.Entries() {
				tally.Found(rig.Entry{Time: e.Time, Line: []byte(e.Line), Labels: e.Labels})
			}
			report(t, tally.Result())
			// What was under way is finished, so nothing is sent twice. Only of a batch that is abandoned because Loki hangs,
			// the pushes that were answered before are made again.
			again, most := server.Arrivals()-count, 0
			if test.hang {
				most = before
			}
			if again > most {
				t.Errorf("%d entries were sent again after a stop that was not a crash, want at most %d", again, most)
			}
		})
	}
}

// writeSample writes 7 MB of audit log, and gives a tally that knows its lines and how many they are.
func writeSample(t *testing.T, ctx context.Context, auditLog string) (tally *rig.Tally, count int) {
	t.Helper()
	corpus, err := rig.FindCorpus()
	if err != nil {
		t.Fatal(err)
	}
	tally = rig.NewTally(nil)
	writer := rig.NewWriter(rig.WriterConfig{Path: auditLog, MaxSize: 5, Compress: true})
	for line, err := range corpus.Replay(time.Now(), slices.Repeat([]string{rig.SampleLog}, 8)...) {
		if err != nil {
			t.Fatal(err)
		}
		tally.Wrote(line)
		if err := writer.Write(ctx, line); err != nil {
			t.Fatal(err)
		}
		count++
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return tally, count
}
