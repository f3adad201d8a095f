//go:build e2e

package faults

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"text/tabwriter"
	"time"
)

// row is what became of one scenario.
type row struct {
	side, scenario                             string
	written, delivered, missing, repeated, gap int
	dead                                       int // in the dead-letter file
	passed, played                             bool
	took                                       time.Duration
}

func (r row) verdict() string {
	switch {
	case !r.passed:
		return "FAIL"
	case r.dead > 0:
		return "pass, " + strconv.Itoa(r.dead) + " dead letters"
	}
	return "pass"
}

// table collects rows as they end.
type table struct {
	mu   sync.Mutex
	rows []row
}

func (t *table) add(i int, r row) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.played = true
	t.rows[i] = r
}

// print writes the rows that were played, in the order of their registration, to stdout.
func (t *table) print() {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "\nside\tscenario\twritten\tdelivered\tmissing\trepeated\tgaps\ttime\tverdict")
	played, passed := 0, 0
	for _, r := range t.rows {
		if !r.played {
			continue
		}
		played++
		if r.passed {
			passed++
		}
		fmt.Fprintf(out, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", r.side, r.scenario, r.written, r.delivered, r.missing, r.repeated,
			r.gap, r.took.Round(time.Second), r.verdict())
	}
	if err := out.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "writing the table:", err)
	}
	fmt.Printf("faults: %d scenarios, %d passed\n", played, passed)
}
