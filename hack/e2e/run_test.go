//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

// node is the value of the label node in all runs.
const node = "n1"

// workDir gives a directory for logs and data, which is kept, and named, if the test fails.
func workDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "auditferry-"+strings.ReplaceAll(t.Name(), "/", "-")+"-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the logs and data of the run are kept in %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// subDir makes a directory in dir.
func subDir(t *testing.T, dir, name string) string {
	t.Helper()
	path := dir + "/" + name
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// startLoki gives a running Loki that ends with the test.
func startLoki(t *testing.T, ctx context.Context, loki *rig.Loki) *rig.Loki {
	t.Helper()
	start := time.Now()
	if err := loki.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("Loki is ready after %s", time.Since(start).Round(time.Millisecond))
	t.Cleanup(func() {
		if err := loki.Stop(); err != nil {
			t.Error(err)
		}
	})
	return loki
}

// startAgent gives a running agent that ends with the test, if the test does not end it.
func startAgent(t *testing.T, dir, auditLog, lokiURL string) *rig.Agent {
	t.Helper()
	agent := newAgent(t, dir, auditLog, lokiURL)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	return agent
}

// killAndRestart ends the agent by SIGKILL and starts it again at once.
func killAndRestart(t *testing.T, agent *rig.Agent) {
	t.Helper()
	if err := agent.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
}

// patience is how long the agent may go without coming nearer to the end.
const patience = time.Minute

// shipped waits until all that was written is in Loki or no more comes, stops the agent, and looks once more.
func shipped(t *testing.T, ctx context.Context, agent *rig.Agent, loki *rig.Loki, tally *rig.Tally) rig.Result {
	t.Helper()
	start := time.Now()
	// The agent's own word first, since it is cheap; then Loki's, since the agent may be wrong.
	err := reachZero(ctx, agent, func() (float64, error) { return agent.Metric(ctx, "auditferry_lag_bytes") })
	t.Logf("the agent has no lag any more after %s (%v)", time.Since(start).Round(time.Millisecond), err)
	err = reachZero(ctx, agent, func() (float64, error) { return float64(look(t, ctx, loki, tally).Missing), nil })
	t.Logf("all is in Loki after %s (%v)", time.Since(start).Round(time.Millisecond), err)
	if code, err := agent.Stop(20 * time.Second); err != nil || code != 0 {
		t.Errorf("the agent stopped with code %d, want 0 (%v)", code, err)
	}
	t.Logf("peak memory of the agent: %.1f MB", float64(agent.PeakRSS())/1e6)
	return look(t, ctx, loki, tally)
}

// reachZero waits until measure gives 0. It gives up when the agent ends or measure finds no new low for as long as patience
// lasts; a measure that fails has found none.
func reachZero(ctx context.Context, agent *rig.Agent, measure func() (float64, error)) error {
	lowest, since := math.Inf(1), time.Now()
	return rig.Poll(ctx, func() (bool, error) {
		now, err := measure()
		if err == nil && now < lowest {
			lowest, since = now, time.Now()
		}
		if lowest > 0 && time.Since(since) > patience {
			return false, fmt.Errorf("it stays at %v (%w)", lowest, errors.Join(err, agent.Running()))
		}
		return lowest == 0, agent.Running()
	})
}

// look reads everything back: the time in which events were written, and hours before and after it.
func look(t *testing.T, ctx context.Context, loki *rig.Loki, tally *rig.Tally) rig.Result {
	t.Helper()
	tally.Reread()
	first, last := tally.Span()
	bounds := []time.Time{first.Add(-6 * time.Hour), first, last.Add(1), last.Add(time.Hour)}
	for i, from := range bounds[:3] {
		if err := rig.ReadBack(ctx, loki.URL(), rig.Selector, from, bounds[i+1], tally.Found); err != nil {
			t.Fatal(err)
		}
	}
	return tally.Result()
}

// report fails the test unless the result is clean, with examples.
func report(t *testing.T, result rig.Result) {
	t.Helper()
	if result.Clean() {
		return
	}
	t.Errorf("not every event is in Loki once, as it was written: %s", result)
	for _, example := range result.Examples {
		t.Log(example)
	}
}
