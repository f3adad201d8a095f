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
	everything := testConfig
	everything.LabelFields = []string{"verb", "user", "resource", "namespace", "stage", "groups"}
	everything.MetadataFields = append([]string{"annotation:authorization.k8s.io/reason", "groups"}, DefaultMetadataFields...)
	for _, c := range []struct {
		name       string
		cfg        Config
		maxStreams int
	}{
		{"sample.log", testConfig, 1000}, {"metadata.log.gz", testConfig, 1000}, {"torn-glued.log", testConfig, 1000},
		{"nul-hole.log.gz", testConfig, 1000}, {"mixed.log.gz", testConfig, 1000},
		{"sample.log", testConfig, MinStreams}, // nearly all is folded
		{"sample.log", everything, 1000},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := describerOf(t, c.cfg, newAdmissions(t, c.cfg, c.maxStreams))
			lines := corpusLines(t, c.name)
			var previous time.Time
			pass := func() {
				for _, line := range lines {
					entries := d.Entries(line, previous, 0)
					for entry, ok := entries.Next(); ok; entry, ok = entries.Next() {
						previous = entry.Time
					}
				}
			}
			pass() // after which all resources are admitted: some events get another stream in the next
			if allocs := testing.AllocsPerRun(1, pass); allocs != 0 {
				t.Errorf("%v allocations for %d lines", allocs, len(lines))
			}
		})
	}
}
