//go:build e2e

package faults

import (
	"context"
	"testing"
	"time"
)

// scenario is one row of the table: one thing that goes wrong.
type scenario struct {
	side string // sink, agent, source, damage or gap
	name string
	// play makes the fault happen and returns while the agent runs. What is not delivered by then must be soon after.
	play func(r *run)

	flags   []string // of the agent, after those of every run
	ordered bool     // stageTimestamp grows strictly from event to event
	// refuses: Loki refuses events for good. What is in the dead-letter file then counts as not missing.
	refuses bool
	// destroys: events are destroyed before they can be read. Gap entries must tell of each.
	destroys bool
	// counted: the agent has seen all that is destroyed, so the gaps tell how many bytes are missing.
	counted bool
	// torn: a file may be left in the moment in which its other writer is in the middle of a line. What is there of it by then is
	// an entry of its own; the line itself follows.
	torn bool
	// unordered: the files do not hold what was written in the order of writing, so a position cannot be judged by it.
	unordered bool
}

// scenarios are those that the files of the themes register.
var scenarios []scenario

// register is called by the init of a theme's file.
func register(s ...scenario) { scenarios = append(scenarios, s...) }

// scenarioTime bounds one scenario, from its first line to its verdict.
const scenarioTime = 4*time.Minute + 30*time.Second

// TestFaults plays every scenario, some of them at a time (-parallel), and prints the table.
func TestFaults(t *testing.T) {
	results := &table{rows: make([]row, len(scenarios))}
	t.Cleanup(results.print) // after the last of the parallel rows
	for i, s := range scenarios {
		t.Run(s.side+" "+s.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), scenarioTime)
			defer cancel()
			r := newRun(t, ctx, s)
			begin := time.Now()
			// Also when the scenario gives up half way.
			defer func() { results.add(i, r.row(time.Since(begin))) }()
			s.play(r)
			r.finish()
		})
	}
}
