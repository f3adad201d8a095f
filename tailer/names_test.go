package tailer

import (
	"slices"
	"testing"
)

// Names in the order in which they are read, each of its kind.
func TestNamesInOrder(t *testing.T) {
	n := newNamer("/var/log/audit.log")
	want := []string{
		"audit.log.10.gz", "audit.log.2.gz", "audit.log.1",
		"audit.log-20261121.gz", "audit.log-20261122", "audit.log-2026112301", "audit.log-20261123-020000",
		"audit-2026-11-23T03-00-00.000.log.gz", "audit-2026-11-23T03-00-00.001.log", "audit-2026-11-24T00-00-00.000.log",
		"audit.log",
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, func(a, b string) int {
		_, _, ra, okA := n.parse(a)
		_, _, rb, okB := n.parse(b)
		if !okA || !okB {
			t.Fatalf("%s: %t, %s: %t, want both known", a, okA, b, okB)
		}
		return ra.compare(rb)
	})
	if !slices.Equal(got, want) {
		t.Errorf("got\n%v, want\n%v", got, want)
	}
	for _, name := range []string{"audit.log.gz", "audit.log-2026", "audit.log-yesterday", "audit-policy.log", "audit.log.bak", "audit.log.-1", "other.log", "audit"} {
		if _, _, _, ok := n.parse(name); ok {
			t.Errorf("%s is taken for a file of the path", name)
		}
	}
}
