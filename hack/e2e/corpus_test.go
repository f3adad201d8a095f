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
)

const (
	corpusKills  = 5
	lokiAway     = 20 * time.Second
	writingTakes = time.Minute
)

// TestCorpus writes recorded audit logs as kube-apiserver does, kills the agent five times, once while Loki is away, once when
// the last and biggest lines have just been written, and reads every event back.
func TestCorpus(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	tally := rig.NewTally(&rig.Oracle{Node: node})
	lines := corpusLines(t, tally)
	dir := workDir(t)
	loki := startLoki(t, ctx, &rig.Loki{Dir: subDir(t, dir, "loki")}) // lines of up to 4 MB
	auditLog := filepath.Join(subDir(t, dir, "audit"), "audit.log")
	agent := startAgent(t, dir, auditLog, loki.URL())

	writer := rig.NewWriter(rig.WriterConfig{
		Path: auditLog, MaxSize: 5, Compress: true, PerSecond: float64(len(lines)) / writingTakes.Seconds(),
	})
	writing := make(chan error, 1)
	go func() { writing <- writeAll(ctx, writer, lines) }()

	// writtenPart waits until that part of the lines is written.
	writtenPart := func(part float64) {
		t.Helper()
		err := rig.Poll(ctx, func() (bool, error) { return float64(writer.Lines()) >= part*float64(len(lines)), agent.Running() })
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, part := range []float64{0.1, 0.25} {
		writtenPart(part)
		killAndRestart(t, agent)
	}
	writtenPart(0.35)
	away := time.Now()
	if err := loki.Stop(); err != nil {
		t.Fatal(err)
	}
	writtenPart(0.5)
	killAndRestart(t, agent)
	if err := rig.Poll(ctx, func() (bool, error) { return time.Since(away) >= lokiAway, agent.Running() }); err != nil {
		t.Fatal(err)
	}
	if err := loki.Start(ctx); err != nil {
		t.Fatal(err)
	}
	stopped := time.Since(away)
	for _, part := range []float64{0.8, 1} {
		writtenPart(part)
		killAndRestart(t, agent)
	}
	if err := <-writing; err != nil {
		t.Fatal(err)
	}
	result := shipped(t, ctx, agent, loki, tally)
	fmt.Printf("corpus: %s, kills %d, Loki stopped %.0fs\n", result, corpusKills, stopped.Seconds())
	report(t, result)
}

// writeAll writes the lines at the writer's pace and closes it.
func writeAll(ctx context.Context, writer *rig.Writer, lines [][]byte) error {
	for _, line := range lines {
		if err := writer.Write(ctx, line); err != nil {
			return err
		}
	}
	return writer.Close()
}

// corpusLines gives the lines to write, moved in time so that the last is of now, and tells the tally of them.
func corpusLines(t *testing.T, tally *rig.Tally) [][]byte {
	t.Helper()
	corpus, err := rig.FindCorpus()
	if err != nil {
		t.Fatal(err)
	}
	names := []string{rig.MixedLog, rig.BigLog}
	if !corpus.Full() {
		names = append(slices.Repeat([]string{rig.SampleLog}, 8), rig.MetadataLog)
	}
	t.Logf("corpus: %s, of %v", corpus.Dir, names)
	var lines [][]byte
	for line, err := range corpus.Replay(time.Now(), names...) {
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, slices.Clone(line))
		tally.Wrote(line)
	}
	return lines
}
