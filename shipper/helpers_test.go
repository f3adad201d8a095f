package shipper

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/auditferry/auditferry/shipper/lokitest"
	"github.com/prometheus/client_golang/prometheus"
)

var testTime = time.Date(2026, 11, 23, 20, 33, 23, 92000, time.UTC)

// A rig is a client in front of a lokitest server, with a clock and pauses that the test steps.
type rig struct {
	t       *testing.T
	server  *lokitest.Server
	client  *Client
	queue   *Queue
	metrics *prometheus.Registry
	log     *logBuffer

	mu     sync.Mutex
	paused []time.Duration
	now    time.Time
}

// newRig makes a rig whose pauses end at once, and move the clock.
func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, server: lokitest.New(), metrics: prometheus.NewRegistry(), log: new(logBuffer), now: testTime}
	url, err := r.server.Start()
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		URL:            url,
		DeadLetterFile: filepath.Join(t.TempDir(), "dead-letter.jsonl"),
		Logger:         slog.New(slog.NewTextHandler(r.log, nil)),
		Registerer:     r.metrics,
	}
	if change != nil {
		change(&cfg)
	}
	if r.client, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.now
	}
	r.client.now, r.client.health.now = clock, clock
	r.client.sleep = func(ctx context.Context, d time.Duration) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.paused = append(r.paused, d)
		r.now = r.now.Add(d)
		return ctx.Err()
	}
	for i := range 3 { // admitted long since, so that they share a push
		r.client.roll.streams[testEntry(i, "").Stream] = &admitted{confirmed: testTime.AddDate(100, 0, 0)}
	}
	r.queue = r.client.NewQueue("audit.log")
	t.Cleanup(func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.queue.Drain(ended) // of what a test leaves on purpose
		r.client.Close()
		r.server.Close()
	})
	return r
}

// batch fills a batch with one entry for each line; lines alternate between three streams.
func (r *rig) batch(lines ...string) *Batch {
	b := r.queue.Batch()
	for i, line := range lines {
		b.Add(testEntry(i, line))
	}
	return b
}

func testEntry(i int, line string) Entry {
	return Entry{
		Stream:   fmt.Sprintf(`{job="test", verb="v%d"}`, i%3),
		Time:     testTime.Add(time.Duration(i) * time.Microsecond),
		Line:     []byte(line),
		Metadata: []Field{{"audit_id", fmt.Appendf(nil, "id-%s", line)}, {"stage", []byte("ResponseComplete")}},
	}
}

// send sends a batch and waits until it is acknowledged.
func (r *rig) send(lines ...string) {
	r.t.Helper()
	acked := false
	if err := r.queue.Send(r.t.Context(), r.batch(lines...), func() { acked = true }); err != nil {
		r.t.Fatal(err)
	}
	if err := r.queue.Drain(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	if !acked {
		r.t.Fatal("drained, but not acknowledged")
	}
}

func (r *rig) pauses() []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]time.Duration(nil), r.paused...)
}

// inLoki returns the lines that a log query would show, each with a space on both sides.
func (r *rig) inLoki() string {
	lines := " "
	for _, e := range r.server.Entries() {
		lines += e.Line + " "
	}
	return lines
}

func (r *rig) metric(name, label string) float64 {
	r.t.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "auditferry_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			if label != "" && m.GetLabel()[0].GetValue() != label {
				continue
			}
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	r.t.Fatalf("no metric %s{%s}", name, label)
	return 0
}

// deadLettersOf reads all dead letters beside path, those of rotated files first.
func deadLettersOf(t *testing.T, path string) []DeadLetter {
	t.Helper()
	rotated, err := filepath.Glob(strings.TrimSuffix(path, ".jsonl") + "-*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var letters []DeadLetter
	for _, name := range append(rotated, path) {
		text, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(bytes.NewReader(text))
		lines.Buffer(nil, 64<<20)
		for lines.Scan() {
			var d DeadLetter
			if json.Unmarshal(lines.Bytes(), &d) == nil {
				letters = append(letters, d)
			}
		}
	}
	return letters
}

// A logBuffer is a log that several goroutines write and the test reads.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}
