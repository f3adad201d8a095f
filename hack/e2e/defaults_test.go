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
)

// defaultMaxLine is max_line_size of Loki, and --max-line-size.
const defaultMaxLine = 256 << 10

// TestDefaultLimits ships a backlog, with lines of megabytes in it, to a Loki at its default limits, with the agent at its own
// defaults, and kills the agent twice. Loki must refuse nothing, but for its rate. Without the full corpus no line is longer
// than Loki takes, so the agent is told a smaller limit.
func TestDefaultLimits(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	corpus, err := rig.FindCorpus()
	if err != nil {
		t.Fatal(err)
	}
	maxLine, least := defaultMaxLine, 14
	if !corpus.Full() {
		maxLine, least = 32<<10, 7
	}
	tally := rig.NewTally(&rig.Oracle{Node: node})
	tally.MaxLine = maxLine
	lines := corpusLines(t, tally)
	dir := workDir(t)
	loki := startLoki(t, ctx, &rig.Loki{Dir: subDir(t, dir, "loki"), ShardStreams: true, DefaultLimits: true})
	auditLog := filepath.Join(subDir(t, dir, "audit"), "audit.log")
	agent := newAgent(t, dir, auditLog, loki.URL(), fmt.Sprintf("--max-line-size=%d", maxLine))
	_, size := writeLog(t, ctx, auditLog, each(lines))
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	const kills = 2
	for kill := range kills {
		left := float64(size) * float64(kills-kill) / (kills + 1)
		err := rig.Poll(ctx, func() (bool, error) {
			lag, err := agent.Metric(ctx, "auditferry_lag_bytes")
			return err == nil && lag <= left, agent.Running()
		})
		if err != nil {
			t.Fatal(err)
		}
		killAndRestart(t, agent)
	}
	result := shipped(t, ctx, agent, loki, tally)
	fmt.Printf("default limits: %s, kills %d\n", result, kills)
	report(t, result)
	checkRefusals(t, ctx, agent, loki)
	if result.Reduced < least {
		t.Errorf("%d lines were reduced, want at least %d: the test tests nothing", result.Reduced, least)
	}
}

// checkRefusals prints what Loki has refused since its start, and checks that it was for its rate alone, and that there are no dead
// letters.
func checkRefusals(t *testing.T, ctx context.Context, agent *rig.Agent, loki *rig.Loki) {
	t.Helper()
	discarded, err := loki.Discarded(ctx)
	if err != nil {
		t.Fatal(err)
	}
	letters := lettersIn(t, agent)
	fmt.Printf("discarded by Loki %v, dead letters %d\n", discarded, letters)
	if letters > 0 {
		t.Errorf("%d dead letters", letters)
	}
	for reason, n := range discarded {
		if n > 0 && reason != "rate_limited" {
			t.Errorf("Loki has discarded %v entries for %s", n, reason)
		}
	}
}

// each gives lines one by one, with no error.
func each(lines [][]byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, line := range lines {
			if !yield(line, nil) {
				return
			}
		}
	}
}
