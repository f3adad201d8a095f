//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

// TestDeadLettersOfLoki has a real Loki refuse events because they are an hour and a half behind the newest of their streams.
// Replayed as they are, they are refused again; with a label more, they are taken, and a query shows every event once. (Those
// that are over two and a half hours old, a query would not show before Loki flushes their chunks.)
func TestDeadLettersOfLoki(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir := workDir(t)
	loki := startLoki(t, ctx, &rig.Loki{Dir: subDir(t, dir, "loki"), ShardStreams: true})
	auditLog := filepath.Join(subDir(t, dir, "audit"), "audit.log")
	agent := startAgent(t, dir, auditLog, loki.URL())
	tally := rig.NewTally(nil)
	written := 0
	for _, ago := range []time.Duration{0, 90 * time.Minute} {
		lines := sampleBefore(t, tally, ago)
		written += len(lines)
		appendLines(t, auditLog, lines)
		err := reachZero(ctx, agent, func() (float64, error) {
			sent, err := agent.Metric(ctx, "auditferry_sent_entries_total")
			return float64(written-lettersIn(t, agent)) - sent, err
		})
		if err != nil {
			t.Fatalf("waiting for %d events in Loki or refused: %v", written, err)
		}
	}
	refused := lettersIn(t, agent)
	if missing := look(t, ctx, loki, tally).Missing; refused < 100 || missing != refused {
		t.Fatalf("%d dead letters, %d events missing in Loki: the test tests nothing", refused, missing)
	}
	code, out := replay(t, ctx, agent)
	if want := fmt.Sprintf(": 0 taken, %d refused again (too_far_behind %d), kept in ", refused, refused); code != failure || !strings.Contains(out, want) {
		t.Errorf("as they are: exit code %d: %s", code, out)
	}
	code, out = replay(t, ctx, agent, "--add-label=replayed=yes")
	if want := fmt.Sprintf(": %d taken\n", refused); code != 0 || !strings.Contains(out, want) || lettersIn(t, agent) > 0 {
		t.Errorf("with a label: exit code %d: %s", code, out)
	}
	stopAgent(t, agent)
	result := look(t, ctx, loki, tally)
	fmt.Printf("dead letters: %s, of which %d were refused at first\n", result, refused)
	report(t, result)
}

// sampleBefore gives the lines of the sample, the last of them so long ago.
func sampleBefore(t *testing.T, tally *rig.Tally, ago time.Duration) [][]byte {
	t.Helper()
	corpus, err := rig.FindCorpus()
	if err != nil {
		t.Fatal(err)
	}
	var lines [][]byte
	for line, err := range corpus.Replay(time.Now().Add(-ago), rig.SampleLog) {
		if err != nil {
			t.Fatal(err)
		}
		tally.Wrote(line)
		lines = append(lines, slices.Clone(line))
	}
	return lines
}
