package audit

import (
	"bytes"
	"testing"
	"time"
)

// benchmarks are the lines to measure by: what a cluster logs at level Metadata, what it logs at mixed levels, and the
// longest line.
func benchmarks(b *testing.B, run func(b *testing.B, lines [][]byte)) {
	for _, name := range []string{"metadata", "mixed", "big"} {
		b.Run(name, func(b *testing.B) {
			lines := corpusLines(b, name+".log.gz")
			if name == "big" {
				longest := lines[0]
				for _, line := range lines {
					if len(line) > len(longest) {
						longest = line
					}
				}
				lines = [][]byte{longest}
			}
			bottom := floor(b, lines)
			b.SetBytes(int64(len(bytes.Join(lines, nil))))
			b.ReportAllocs()
			b.ResetTimer()
			run(b, lines)
			pass := b.Elapsed() / time.Duration(b.N)
			b.ReportMetric(float64(pass.Nanoseconds())/float64(len(lines)), "ns/line")
			b.ReportMetric(float64(pass)/float64(bottom), "x-floor")
		})
	}
}

// floor is the time of one pass over the lines that looks at every string by bytes.IndexByte, and at nothing else: what
// cannot be beaten by much without SIMD. It is the best of some passes.
func floor(b *testing.B, lines [][]byte) time.Duration {
	best := time.Hour
	for range 10 {
		begin, quotes := time.Now(), 0
		for _, line := range lines {
			for i := bytes.IndexByte(line, '"'); i >= 0; i = bytes.IndexByte(line, '"') {
				quotes++
				line = line[i+1:]
			}
		}
		best = min(best, time.Since(begin))
		if quotes == 0 {
			b.Fatal("no quotes")
		}
	}
	return best
}

func BenchmarkDescribe(b *testing.B) {
	benchmarks(b, func(b *testing.B, lines [][]byte) {
		d := newDescriber(b)
		for b.Loop() {
			for _, line := range lines {
				if _, err := d.Describe(line); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

func BenchmarkEntries(b *testing.B) {
	benchmarks(b, func(b *testing.B, lines [][]byte) {
		d := newDescriber(b)
		var previous time.Time
		for b.Loop() {
			for _, line := range lines {
				entries := d.Entries(line, previous, 0)
				for entry, ok := entries.Next(); ok; entry, ok = entries.Next() {
					previous = entry.Time
				}
			}
		}
	})
}
