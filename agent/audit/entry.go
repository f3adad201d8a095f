package audit

import "time"

// Entry is one line, or one piece of a damaged line, as Loki gets it.
type Entry struct {
	Line []byte // the bytes that were described

	// Stream is the label set as Loki parses it, {cluster="c", job="j"}, sorted by name. It is interned, and so are the
	// values of its labels that depend on the event.
	Stream               string
	Verb, User, Resource string

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
	scratch  []byte // decoded strings and cut values of the line at hand
	metadata []Field
	streams  streams
}

// NewDescriber gives a Describer, or an error that names the label of cfg that Loki would refuse.
func NewDescriber(cfg Config) (*Describer, error) {
	streams, err := newStreams(cfg)
	if err != nil {
		return nil, err
	}
	return &Describer{streams: streams}, nil
}

// Entry describes one line, which has no newline, as it is; previous is the time of the line before it. It never fails:
// what is not one JSON object is Malformed. Entries also finds the events inside of a damaged line.
func (d *Describer) Entry(line []byte, previous time.Time) Entry {
	if !d.describe(line) {
		return d.malformed(line, previous)
	}
	e := &d.event
	st := d.streams.of(e)
	d.setMetadata(e, st)
	at := e.Time
	if !holds(at) {
		at = previous
	}
	return Entry{Line: line, Stream: st.labels, Verb: st.verb, User: st.user, Resource: st.resource,
		Time: at, Metadata: d.metadata}
}

// malformed gives the entry of what is not one JSON object.
func (d *Describer) malformed(line []byte, previous time.Time) Entry {
	at := leadingTime(line)
	if !holds(at) {
		at = previous
	}
	st := d.streams.ofMalformed()
	d.metadata = append(d.metadata[:0], Field{"detected_level", levelWarn})
	return Entry{Line: line, Stream: st.labels, Verb: st.verb, User: st.user, Resource: st.resource,
		Time: at, Metadata: d.metadata, Malformed: true, Blank: isBlank(line)}
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
