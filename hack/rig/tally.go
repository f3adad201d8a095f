package rig

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Entry is one entry as a log query gives it back: its stream's labels, its structured metadata, its time and its line.
type Entry struct {
	Time     time.Time
	Line     []byte
	Labels   map[string]string
	Metadata map[string]string
}

// Result is what a Tally found. Only lines that were written twice count once in Written: Loki keeps one of them.
type Result struct {
	Written     int // different lines written
	InLoki      int // entries that a log query gave
	Missing     int // lines written of which there is no entry
	Repeated    int // entries of a line of which there is one already
	Altered     int // entries of an event that was written otherwise
	Extra       int // entries of no event that was written
	WrongLabels int // entries whose time, labels or structured metadata are not what DESIGN section 6 says
	Reduced     int // entries of a line that was too long, reduced as DESIGN section 7 says
	Examples    []string
}

// Clean says whether every line is in Loki once, as it was written, under its labels.
func (r Result) Clean() bool {
	return r.Written > 0 && r.Missing == 0 && r.Repeated == 0 && r.Altered == 0 && r.Extra == 0 && r.WrongLabels == 0
}

// String is the line that a run ends with.
func (r Result) String() string {
	s := fmt.Sprintf("written %d, in Loki %d, missing %d, repeated %d, altered %d, wrong labels %d",
		r.Written, r.InLoki, r.Missing, r.Repeated, r.Altered, r.WrongLabels)
	if r.Extra > 0 {
		s += fmt.Sprintf(", never written %d", r.Extra)
	}
	if r.Reduced > 0 {
		s += fmt.Sprintf(", reduced %d", r.Reduced)
	}
	return s
}

// examplesPerKind bounds how many events are named for each kind of fault.
const examplesPerKind = 3

// lineHash stands for a line. Half of a SHA-256: of billions of lines no two would meet.
type lineHash [16]byte

func hashLine(line []byte) lineHash {
	sum := sha256.Sum256(line)
	return lineHash(sum[:16])
}

// eventID tells events apart although a byte of them may have changed: all stages of a request share an audit ID, which a
// client may choose.
type eventID struct{ AuditID, Stage, StageTimestamp string }

func (id eventID) String() string {
	return fmt.Sprintf("%q %s %s", id.AuditID, id.Stage, id.StageTimestamp)
}

// identify gives the zero eventID for what is not an event.
func identify(line []byte) eventID {
	var id eventID
	if json.Unmarshal(line, &id) != nil {
		return eventID{}
	}
	return id
}

// written is one line on disk and what was found of it.
type written struct {
	id     eventID
	whole  []byte // the line, if it is too long
	labels Labels // that it must have
	fault  error  // why it cannot be judged
	found  int
}

// Tally compares what was written with what a log query finds. Lines are remembered by hash. It may be used from several
// goroutines.
type Tally struct {
	// MaxLine is --max-line-size, set before anything was written: a line of more bytes must be found reduced. 0: no limit.
	MaxLine int

	oracle *Oracle // nil: labels are not judged

	mu      sync.Mutex
	lines   map[lineHash]*written
	long    map[eventID]*written // those that are too long
	events  map[eventID]bool
	result  Result
	perKind map[string]int
}

// NewTally gives an empty tally that judges labels and structured metadata by oracle; nil judges the lines alone.
func NewTally(oracle *Oracle) *Tally {
	t := &Tally{oracle: oracle, lines: map[lineHash]*written{}, long: map[eventID]*written{}, events: map[eventID]bool{}}
	t.Reread()
	return t
}

// Wrote remembers a line, given without its newline, as written. An oracle takes the lines in this order.
func (t *Tally) Wrote(line []byte) {
	hash, id := hashLine(line), identify(line)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lines[hash] == nil {
		w := &written{id: id}
		if t.MaxLine > 0 && len(line) > t.MaxLine {
			w.whole = slices.Clone(line)
			t.long[id] = w
		}
		if t.oracle != nil {
			w.labels, w.fault = t.oracle.Labels(line)
		}
		t.lines[hash] = w
		t.events[id] = true
	}
}

// Span gives the earliest and the latest stageTimestamp of the events that were written.
func (t *Tally) Span() (first, last time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id := range t.events {
		at, err := time.Parse(microTime, id.StageTimestamp)
		if err != nil {
			continue // not an event
		}
		if first.IsZero() || at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	return first, last
}

// Reread forgets what was found, not what was written: a new look at Loki begins.
func (t *Tally) Reread() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.result, t.perKind = Result{}, map[string]int{}
	for _, line := range t.lines {
		line.found = 0
	}
}

// Found counts one entry that a log query gave.
func (t *Tally) Found(e Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.result.InLoki++
	line, more := t.lineOf(e)
	if line == nil {
		id := identify(e.Line)
		if id != (eventID{}) && t.events[id] {
			t.result.Altered++
			t.example("altered", id, more)
		} else {
			t.result.Extra++
			t.example("never written", id, "")
		}
		return
	}
	if line.whole != nil {
		t.result.Reduced++
		e.Line = line.whole // what the rest is judged by
	}
	line.found++
	if line.found > 1 {
		t.result.Repeated++
		t.example("repeated", line.id, "")
		return
	}
	if t.oracle == nil {
		return
	}
	if fault := t.judge(e, line); fault != "" {
		t.result.WrongLabels++
		t.example("wrong labels", line.id, ": "+fault)
	}
}

// lineOf gives the line that was written of which this is the entry; nil, and what is wrong with it, if there is none.
func (t *Tally) lineOf(e Entry) (line *written, fault string) {
	line = t.lines[hashLine(e.Line)]
	if line != nil && line.whole == nil {
		return line, ""
	}
	long := t.long[identify(e.Line)]
	if long == nil {
		return nil, ""
	}
	if err := JudgeReduced(long.whole, e.Line, t.MaxLine); err != nil {
		return nil, ": " + err.Error()
	}
	return long, ""
}

// judge gives what is wrong with the entry of a line.
func (t *Tally) judge(e Entry, line *written) string {
	if line.fault != nil {
		return line.fault.Error()
	}
	return t.oracle.Judge(e, line.labels)
}

// Result gives the counts of the look that began at the last Reread.
func (t *Tally) Result() Result {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.result
	r.Written, r.Examples = len(t.lines), slices.Clone(t.result.Examples)
	var missing []eventID
	for _, line := range t.lines {
		if line.found == 0 {
			missing = append(missing, line.id)
		}
	}
	r.Missing = len(missing)
	slices.SortFunc(missing, func(a, b eventID) int { return strings.Compare(a.StageTimestamp, b.StageTimestamp) })
	for _, id := range missing[:min(len(missing), examplesPerKind)] {
		r.Examples = append(r.Examples, "missing "+id.String())
	}
	return r
}

// example keeps the first few events of each kind of fault: their IDs and times, never their content.
func (t *Tally) example(kind string, id eventID, more string) {
	if t.perKind[kind]++; t.perKind[kind] <= examplesPerKind {
		t.result.Examples = append(t.result.Examples, kind+" "+id.String()+more)
	}
}
