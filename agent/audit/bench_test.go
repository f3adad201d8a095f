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
			b.SetBytes(int64(len(bytes.Join(lines, nil))))
			b.ReportAllocs()
			b.ResetTimer()
			run(b, lines)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(lines)), "ns/line")
		})
	}
}

// BenchmarkFloor looks at every string of a line by bytes.IndexByte, and at nothing else: what cannot be beaten by much
// without SIMD.
func BenchmarkFloor(b *testing.B) {
	benchmarks(b, func(b *testing.B, lines [][]byte) {
		quotes := 0
		for b.Loop() {
			for _, line := range lines {
				for {
					i := bytes.IndexByte(line, '"')
					if i < 0 {
						break
					}
					quotes++
					line = line[i+1:]
				}
			}
		}
		if quotes == 0 {
			b.Error("no quotes")
		}
	})
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
				entries := d.Entries(line, previous)
				for entry, ok := entries.Next(); ok; entry, ok = entries.Next() {
					previous = entry.Time
				}
			}
		}
	})
}
