package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

// stepper is the agent of a node, in a directory for its state, that is stepped line by line.
type stepper struct {
	*agent
	t testing.TB
}

func (c *clocked) stepper(state string, more ...string) *stepper {
	c.t.Helper()
	_, cfg, err := parse(c.flags(append(more, "--positions-file="+filepath.Join(state, "positions.json"))...), io.Discard)
	if err != nil {
		c.t.Fatal(err)
	}
	cfg.now = c.now
	s := &stepper{&agent{cfg: cfg, logger: slog.New(slog.DiscardHandler), registry: prometheus.NewRegistry()}, c.t}
	if err := s.open(); err != nil {
		c.t.Fatal(err)
	}
	s.followers[0].batch = s.followers[0].queue.Batch()
	return s
}

// toTheEnd reads all there is, a batch for every line, and calls each after it was acknowledged. Then the agent ends.
func (s *stepper) toTheEnd(each func()) {
	s.t.Helper()
	s.read(1<<30, each)
	s.end()
}

func (s *stepper) end() {
	s.t.Helper()
	if err := s.close(); err != nil {
		s.t.Fatal(err)
	}
}

// read reads so many lines.
func (s *stepper) read(lines int, each func()) {
	s.t.Helper()
	f := s.followers[0]
	ended, cancel := context.WithCancel(s.t.Context())
	cancel()
	for range lines {
		line, err := f.tail.Next(ended)
		if errors.Is(err, context.Canceled) {
			break
		}
		if err == nil {
			err = f.add(s.t.Context(), line)
		}
		if err == nil {
			err = f.settle(s.t.Context())
		}
		if err != nil {
			s.t.Fatal(err)
		}
		each()
	}
}

// A crash is what the disk and Loki had at a moment.
type crash struct {
	state  string // directory
	when   string
	stored []lokitest.Entry
}

// ended reports whether the positions have a stretch that is over.
func (c *crash) ended() bool {
	files, _ := filepath.Glob(filepath.Join(c.state, "positions*"))
	return slices.ContainsFunc(files, func(file string) bool {
		text, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(text), `"first_event"`)
	})
}

// crashes collects them: before each push is stored, and after each line.
type crashes struct {
	c     *clocked
	state string
	all   []crash
}

func (s *crashes) take(when string) {
	dir := s.c.t.TempDir()
	files, err := filepath.Glob(filepath.Join(s.state, "*.json*"))
	if err != nil {
		s.c.t.Error(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(file)), text, 0o600)
		}
		if err != nil {
			s.c.t.Error(err)
		}
	}
	s.all = append(s.all, crash{dir, fmt.Sprintf("%d, %s", len(s.all), when), s.c.loki.Entries()})
}

// throughCrashes runs an agent over the log, and then one from each state that a SIGKILL of it can have left, so much later, each
// with a Loki that has what was stored by then. All must come to the same: what is sent again is the same, nothing is missing.
func (c *clocked) throughCrashes(later time.Duration, flag string) (state string) {
	c.t.Helper()
	first := &crashes{c: c, state: c.t.TempDir()}
	c.before = func(lokitest.Request) { first.take("before a push") }
	agent := c.stepper(first.state, flag)
	first.take("at the start")
	agent.toTheEnd(func() { first.take("after a line") })
	c.before = nil
	first.take("at the end")
	want := texts(c.loki.Entries())
	c.set(later)
	kept := later == 0 // as long as the end of a stretch was not kept, a later agent may find another
	for i, crash := range first.all {
		kept = kept || crash.ended()
		fresh := newClocked(c.t)
		fresh.dir, fresh.now = c.dir, c.now
		fresh.stepper(crash.state, flag).toTheEnd(func() {})
		fresh.wantNoneRefused()
		for _, stored := range [][]lokitest.Entry{crash.stored, first.all[min(i+1, len(first.all)-1)].stored} { // without and with the push
			got := texts(slices.Concat(stored, fresh.loki.Entries()))
			if kept && got != want {
				c.t.Errorf("crash %s: Loki has\n%s\nwant\n%s", crash.when, got, want)
			}
			if strings.Count(got, `"gap"`) != strings.Count(want, `"gap"`) || slices.Max(timesSent(got)) > 1 {
				c.t.Errorf("crash %s: events were sent at two times, or the stretch was told twice:\n%s", crash.when, got)
			}
		}
	}
	c.wantNoneRefused()
	if len(first.all) < 8 {
		c.t.Errorf("only %d crashes", len(first.all))
	}
	return first.state
}

// texts is all that Loki compares of entries, each once, in order.
func texts(entries []lokitest.Entry) string {
	var lines []string
	for _, e := range entries {
		lines = append(lines, fmt.Sprintf("%s %s %s %v\n", e.Time.UTC().Format(time.RFC3339Nano), e.Stream, e.Line, e.Metadata))
	}
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "")
}

// timesSent is how often each event is in texts.
func timesSent(texts string) (counts []int) {
	byID := make(map[string]int)
	for line := range strings.Lines(texts) {
		if _, rest, ok := strings.Cut(line, `"auditID":`); ok {
			id, _, _ := strings.Cut(rest, ",")
			byID[id]++
		}
	}
	return slices.AppendSeq(counts, maps.Values(byID))
}
