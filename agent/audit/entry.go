package audit

import (
	"math"
	"time"
)

// Entry is one line, or one piece of a damaged line, as Loki gets it.
type Entry struct {
	// Line is the bytes that were described or, of an event that is longer than Config.MaxLine, what is left of it: valid JSON,
	// and Removed bytes shorter. It is valid until the next call of the Describer. All else is that of the whole event.
	Line    []byte
	Removed int
	// TooLong is true for a Line that is longer than MaxLine, and is not reduced: it would still be too long, or it is Malformed.
	TooLong bool

	// Stream is the label set as Loki parses it, {cluster="c", job="j"}, sorted by name. It is interned, and so are the
	// values of three of its labels; empty if there is no such label.
	Stream               string
	Verb, User, Resource string
	Folded               Folds

	// Time is stageTimestamp in UTC. A line without one has the RFC 3339 time with which it begins (as the legacy
	// format does), or else the time of the line before it. It is between 1970 and 2262 if that one is.
	Time time.Time

	// Metadata is valid until the next call of the Describer. Its order is fixed, and no value is empty.
	Metadata []Field

	// Malformed is true for what is not one JSON object; then Blank is true if it is empty or nothing but NUL bytes
	// and white space, which an external truncate leaves behind and which holds no event.
	Malformed, Blank bool
}

// Describer says what lines are for Loki. It keeps buffers between calls and is for one goroutine at a time.
type Describer struct {
	scan     scanner
	event    Event
	extras   extras
	scratch  []byte // decoded strings and cut values of the line at hand
	entry    Entry  // that Entries gave last
	metadata metadata
	streams  streams
	wants    fields
	maxLine  int

	users, annotations memo
}

// NewDescriber gives the Describer of one of the paths of all, or an error that names the label of cfg that Loki would refuse.
func NewDescriber(cfg Config, all *Admissions, path string) (*Describer, error) {
	d := &Describer{}
	var err error
	if d.wants, err = cfg.fields(); err != nil {
		return nil, err
	}
	if d.streams, err = newStreams(cfg, &d.wants, all, path); err != nil {
		return nil, err
	}
	d.metadata = newMetadata(&d.wants)
	d.extras.annotations = make([][]byte, len(d.wants.annotations))
	if d.maxLine = cfg.MaxLine; d.maxLine == 0 {
		d.maxLine = math.MaxInt
	}
	return d, nil
}

// Again is to be called before a line that may have been described before, at another position, and so may those after it: in a
// log that was truncated and is read from its beginning again. What was admitted then holds by the times of events, so that
// nearly all of them get the labels that they had. It does what NextFile does.
func (d *Describer) Again() { d.streams.again() }

// NextFile is to be called before the first line of another file. Where what was admitted holds by time, files can be left out that
// were read already, with the events that it was admitted by.
func (d *Describer) NextFile() { d.streams.nextFile() }

// Entry describes one line, which has no newline, as it is; previous is the time of the line before it, and at its position,
// see Entries. It never fails: what is not one JSON object is Malformed. Entries also finds the events inside of a damaged line.
func (d *Describer) Entry(line []byte, previous time.Time, at int64) (entry Entry) {
	d.fill(&entry, line, previous, at)
	return entry
}

// fill is Entry where the entry is wanted: it is large, and copies of it cost more than what is in it.
func (d *Describer) fill(entry *Entry, line []byte, previous time.Time, at int64) {
	entry.Line, entry.Removed, entry.TooLong = line, 0, false
	var st *stream
	if d.describe(line) {
		e := &d.event
		if d.wants.extras {
			d.readExtras()
		}
		k := d.streamOf(e, at)
		st = &k.stream
		entry.Time = e.Time
		entry.Metadata = d.setMetadata(e, k)
		entry.Malformed, entry.Blank, entry.Folded = false, false, k.folds
	} else {
		st = d.streams.malformed
		entry.Time = leadingTime(line)
		entry.Metadata = d.metadata.fields[:put(d.metadata.fields, 0, "detected_level", levelWarn)]
		entry.Malformed, entry.Blank, entry.Folded = true, isBlank(line), 0
	}
	entry.Stream, entry.Verb, entry.User, entry.Resource = st.labels, st.verb, st.user, st.resource
	if !holds(entry.Time) {
		entry.Time = previous
	}
	if len(line) > d.maxLine {
		d.reduce(entry)
	}
}

// isBlank says whether there is nothing but NUL bytes and white space.
func isBlank(line []byte) bool {
	for _, c := range line {
		if c != 0 && c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return false
		}
	}
	return true
}
