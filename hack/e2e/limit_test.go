//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

// admitted is how many streams Loki takes at first.
const admitted = 20

// TestStreamLimit fills a Loki up to its limit of streams, and then ships 290 new ones, and an old one last: Loki answers a
// push by the outcome of its last stream, so it says 204 and has stored next to nothing of it. The agent must not take that
// for stored. It holds on and says so, and once the limit is raised, everything arrives.
func TestStreamLimit(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir := workDir(t)
	loki := startLoki(t, ctx, &rig.Loki{Dir: subDir(t, dir, "loki"), ShardStreams: true, MaxStreams: admitted})
	auditLog := filepath.Join(subDir(t, dir, "audit"), "audit.log")
	tally := rig.NewTally(&rig.Oracle{Node: node})
	old, fresh := limitLines(t, tally)
	appendLines(t, auditLog, old[:len(old)-1])
	agent := startAgent(t, dir, auditLog, loki.URL())
	metric := func(name string, want float64) {
		t.Helper()
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		err := rig.Poll(ctx, func() (bool, error) {
			value, err := agent.Metric(ctx, name)
			return err == nil && value == want, agent.Running()
		})
		if err != nil {
			t.Fatalf("waiting for %s to be %v: %v", name, want, err)
		}
	}
	metric("auditferry_lag_bytes", 0)
	appendLines(t, auditLog, append(fresh, old[len(old)-1]))
	metric("auditferry_loki_up", 0)
	before := look(t, ctx, loki, tally)
	if before.Missing < len(fresh)/2 {
		t.Errorf("only %d of %d events are missing at a limit of %d streams: this test tests nothing", before.Missing, len(fresh), admitted)
	}
	killAndRestart(t, agent)
	if err := loki.Stop(); err != nil {
		t.Fatal(err)
	}
	loki.MaxStreams = 5000
	if err := loki.Start(ctx); err != nil {
		t.Fatal(err)
	}
	result := shipped(t, ctx, agent, loki, tally)
	fmt.Printf("stream limit: %s, of which %d were held back at the limit\n", result, before.Missing)
	report(t, result)
}

// limitLines gives the lines of the sample that make the first streams, as many as are admitted, and those that make others.
func limitLines(t *testing.T, tally *rig.Tally) (old, fresh [][]byte) {
	t.Helper()
	corpus, err := rig.FindCorpus()
	if err != nil {
		t.Fatal(err)
	}
	oracle := &rig.Oracle{Node: node}
	streams := make(map[string]bool)
	for line, err := range corpus.Replay(time.Now(), rig.SampleLog) {
		if err != nil {
			t.Fatal(err)
		}
		want, err := oracle.Want(line)
		if err != nil {
			t.Fatal(err)
		}
		stream := fmt.Sprint(want.Labels)
		if streams[stream] = streams[stream] || len(streams) < admitted; streams[stream] {
			old = append(old, slices.Clone(line))
		} else {
			delete(streams, stream)
			fresh = append(fresh, slices.Clone(line))
		}
	}
	for _, line := range slices.Concat(old[:len(old)-1], fresh, old[len(old)-1:]) { // as they are written
		tally.Wrote(line)
	}
	return old, fresh
}

// appendLines appends in one write, so that the agent reads all of it at once.
func appendLines(t *testing.T, path string, lines [][]byte) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.Write(append(bytes.Join(lines, []byte("\n")), '\n'))
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
}
