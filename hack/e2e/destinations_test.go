//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

// fewStreams is fewer than the events would make.
const fewStreams = 200

// TestTwoDestinations ships to two destinations of which the first is down while everything is written and shipped to the
// second, a real Loki. Then the first comes up, and gets everything too, under the same labels, although all the streams that may be
// were admitted long before. The agent is killed once with the first still down.
func TestTwoDestinations(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	tally := rig.NewTally(&rig.Oracle{Node: node, MaxStreams: fewStreams})
	lines := corpusLines(t, tally)
	dir := workDir(t)
	loki := startLoki(t, ctx, &rig.Loki{Dir: subDir(t, dir, "loki")}) // lines of up to 4 MB
	late, lateURL := startEndpoint(t)
	late.Close()
	auditLog := filepath.Join(subDir(t, dir, "audit"), "audit.log")
	agent := newAgent(t, dir, auditLog, lateURL, "--loki-url="+loki.URL(), "--backoff-max=2s",
		fmt.Sprintf("--max-streams=%d", fewStreams))
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	writer := rig.NewWriter(rig.WriterConfig{Path: auditLog, MaxSize: 5, Compress: true, PerSecond: float64(len(lines)) / 20})
	if err := writeAll(ctx, writer, lines[:len(lines)/2]); err != nil {
		t.Fatal(err)
	}
	killAndRestart(t, agent)
	if err := writeAll(ctx, writer, lines[len(lines)/2:]); err != nil {
		t.Fatal(err)
	}

	caughtUp := func(url string) error {
		return reachZero(ctx, agent, func() (float64, error) {
			return agent.Metric(ctx, "auditferry_lag_bytes", "loki", strings.TrimPrefix(url, "http://"))
		})
	}
	if err := caughtUp(loki.URL()); err != nil {
		t.Fatalf("waiting for no lag at the destination that is up: %v", err)
	}
	result := look(t, ctx, loki, tally)
	fmt.Printf("two destinations: the one that was up, the other still down: %s\n", result)
	report(t, result)
	if n := late.Arrivals(); n > 0 {
		t.Fatalf("%d entries have arrived at the destination that is down", n)
	}
	if lag, err := agent.Metric(ctx, "auditferry_lag_bytes", "loki", strings.TrimPrefix(lateURL, "http://")); err != nil || lag == 0 {
		t.Errorf("the destination that is down lags by %v bytes (%v)", lag, err)
	}

	if _, err := late.Start(); err != nil {
		t.Fatal(err)
	}
	if err := caughtUp(lateURL); err != nil {
		t.Fatalf("waiting for no lag at the destination that came up: %v", err)
	}
	stopAgent(t, agent)
	result = lookAt(late, tally)
	fmt.Printf("two destinations: the one that was down: %s\n", result)
	report(t, result)
}

// lookAt is look for an endpoint in this process.
func lookAt(server *lokitest.Server, tally *rig.Tally) rig.Result {
	tally.Reread()
	for _, e := range server.Entries() {
		entry := rig.Entry{Time: e.Time, Line: []byte(e.Line), Labels: e.Labels, Metadata: map[string]string{}}
		for _, field := range e.Metadata {
			entry.Metadata[field.Name] = field.Value
		}
		tally.Found(entry)
	}
	return tally.Result()
}
