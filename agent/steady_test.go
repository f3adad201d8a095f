package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// steady is a follower in the middle of a log: each step takes one event from the file into the open batch, which is emptied when
// it is full instead of sent. What a push costs is the business of package shipper.
type steady struct {
	tb    testing.TB
	agent *agent
	lines int // left
}

// passes is how often the log is in the file: the first time, every stream is new.
const passes = 2

func newSteady(tb testing.TB, now time.Time) *steady {
	s := &steady{tb: tb}
	log := filepath.Join(tb.TempDir(), "audit.log")
	text := bytes.Repeat(metadataLog(tb), passes)
	if err := os.WriteFile(log, text, 0o600); err != nil {
		tb.Fatal(err)
	}
	_, cfg, err := parse([]string{"--audit-log-path=" + log, "--loki-url=http://127.0.0.1:9", "--node=n1", "--batch-wait=1h",
		"--positions-file=" + filepath.Join(tb.TempDir(), "positions.json")}, io.Discard)
	if err != nil {
		tb.Fatal(err)
	}
	cfg.now = func() time.Time { return now }
	s.agent = &agent{cfg: cfg, logger: slog.New(slog.DiscardHandler), registry: prometheus.NewRegistry()}
	if err := s.agent.open(); err != nil {
		tb.Fatal(err)
	}
	f := s.agent.followers[0]
	f.batch, f.batchSize = f.queue.Batch(), 1<<30
	s.lines = bytes.Count(text, []byte{'\n'})
	for range s.lines / passes {
		s.step()
	}
	s.lines -= s.lines / passes
	return s
}

func (s *steady) step() {
	f := s.agent.followers[0]
	if over, err := f.turn(s.tb.Context()); over || err != nil {
		s.tb.Fatalf("over: %t, %v", over, err)
	}
	if f.batch.Bytes() > 1<<20 {
		f.batch.Reset()
	}
}

func (s *steady) close() {
	if err := s.agent.close(); err != nil {
		s.tb.Error(err)
	}
}

// metadataLog is what a cluster logs at level Metadata.
func metadataLog(tb testing.TB) []byte {
	packed, err := os.Open(filepath.Join("..", "hack", "corpus", "metadata.log.gz"))
	if err != nil {
		tb.Fatal(err)
	}
	defer packed.Close()
	unpacked, err := gzip.NewReader(packed)
	if err != nil {
		tb.Fatal(err)
	}
	text, err := io.ReadAll(unpacked)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// steadyNow is a while after metadataLog was written.
var steadyNow = eventsBegin.Add(time.Hour)

func TestNoAllocationsPerEvent(t *testing.T) {
	for name, now := range map[string]time.Time{"in time": steadyNow, "too old": steadyNow.Add(300 * day)} {
		t.Run(name, func(t *testing.T) { noAllocations(t, now) })
	}
}

func noAllocations(t *testing.T, now time.Time) {
	s := newSteady(t, now)
	defer s.close()
	events := s.lines / 2 // AllocsPerRun runs them twice
	allocs := testing.AllocsPerRun(1, func() {
		for range events {
			s.step()
		}
	})
	if allocs > float64(events)/100 { // memory that is kept still grows here and there
		t.Errorf("%v allocations for %d events", allocs, events)
	}
}

// From the file into the batch: time, bytes and allocations per event.
func BenchmarkEvent(b *testing.B) {
	s := newSteady(b, steadyNow)
	b.SetBytes(int64(len(metadataLog(b)) / s.lines))
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if i > 0 && i%s.lines == 0 {
			b.StopTimer()
			s.close()
			s = newSteady(b, steadyNow)
			b.StartTimer()
		}
		s.step()
	}
	s.close()
}
