package tailer

import (
	"bytes"
	"os"
	"testing"
	"time"
)

// Next over real lines: bytes a second and allocations a line. They lie in a young backup, which stays in the page cache
// between two rounds.
func BenchmarkNext(b *testing.B) {
	content := corpus(b, "mixed.log.gz")
	w := newWorld(b)
	w.ok(os.WriteFile(w.path, content, 0o600))
	w.rename()
	lines := bytes.Count(content, []byte("\n"))
	b.SetBytes(int64(len(content) / lines))
	b.ReportAllocs()
	w.start(nil)
	b.ResetTimer()
	left := lines
	for range b.N {
		if left == 0 {
			w.start(nil)
			left = lines
		}
		if _, err := w.tailer.Next(ended); err != nil {
			b.Fatal(err)
		}
		left--
	}
}

// One poll of a path where nothing happens, with the reader's.
func BenchmarkIdle(b *testing.B) {
	w := newWorld(b)
	w.lines(10)
	old := time.Now().Add(-time.Hour)
	w.ok(os.Chtimes(w.dir, old, old))
	w.start(nil)
	w.drain()
	b.ReportAllocs()
	for b.Loop() {
		w.tailer.look(time.Now())
		if _, err := w.tailer.Next(ended); err == nil {
			b.Fatal("a line")
		}
	}
}

func TestNoAllocations(t *testing.T) {
	w := newWorld(t)
	w.lines(30_000)
	w.start(nil)
	if _, err := w.tailer.Next(ended); err != nil {
		t.Fatal(err)
	}
	n := testing.AllocsPerRun(20_000, func() {
		if _, err := w.tailer.Next(ended); err != nil {
			t.Fatal(err)
		}
	})
	if n > 0 {
		t.Fatalf("%v allocations a line", n)
	}
}
