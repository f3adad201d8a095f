//go:build e2e

package faults

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

// sampleLines are the real events that those of all scenarios are made of.
var sampleLines = sync.OnceValues(func() ([][]byte, error) {
	corpus, err := rig.FindCorpus()
	if err != nil {
		return nil, err
	}
	var lines [][]byte
	for line, err := range corpus.Lines(rig.SampleLog) {
		if err != nil {
			return nil, err
		}
		lines = append(lines, slices.Clone(line))
	}
	return lines, nil
})

// events gives real events, moved to about now, no two of them equal: over and over those of the sample, each pass a microsecond
// later.
type events struct {
	lines   [][]byte
	shift   rig.Shift
	ordered bool // instead: each event a millisecond after the one before it
	// now, if not nil, gives the time of the next event instead, so that it fits the names of backups.
	now   func() time.Time
	next  int
	start time.Time
}

func newEvents(t *testing.T, ordered bool) *events {
	t.Helper()
	lines, err := sampleLines()
	if err != nil {
		t.Fatal(err)
	}
	last, err := rig.StageTime(lines[len(lines)-1])
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now().Truncate(time.Microsecond)
	return &events{lines: lines, shift: rig.Shift(start.Sub(last)), ordered: ordered, start: start.Add(-time.Minute)}
}

// keep leaves only those events that want holds for.
func (e *events) keep(want func(line []byte) bool) {
	e.lines = slices.DeleteFunc(slices.Clone(e.lines), func(line []byte) bool { return !want(line) })
}

// line gives the next event, without a newline.
func (e *events) line() ([]byte, error) {
	n := e.next
	e.next++
	line := e.lines[n%len(e.lines)]
	shift := e.shift + rig.Shift(time.Duration(n/len(e.lines))*time.Microsecond)
	if e.ordered || e.now != nil {
		at, err := rig.StageTime(line)
		if err != nil {
			return nil, err
		}
		want := e.start.Add(time.Duration(n) * time.Millisecond)
		if e.now != nil {
			want = e.now().Truncate(time.Microsecond)
		}
		shift = rig.Shift(want.Sub(at))
	}
	return shift.Append(nil, line)
}
