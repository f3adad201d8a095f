package audit

import (
	"testing"
	"time"
)

// raceEnabled is true under the race detector, which allocates on its own.
var raceEnabled bool

// TestNoAllocations: once each stream was seen, no line of the corpus costs an allocation, nasty and damaged ones
// included.
func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, name := range []string{"sample.log", "metadata.log.gz", "torn-glued.log", "nul-hole.log.gz", "mixed.log.gz"} {
		t.Run(name, func(t *testing.T) {
			d := newDescriber(t)
			lines := corpusLines(t, name)
			var previous time.Time
			allocs := testing.AllocsPerRun(1, func() {
				for _, line := range lines {
					entries := d.Entries(line, previous)
					for entry, ok := entries.Next(); ok; entry, ok = entries.Next() {
						previous = entry.Time
					}
				}
			})
			if allocs != 0 {
				t.Errorf("%v allocations for %d lines", allocs, len(lines))
			}
		})
	}
}
