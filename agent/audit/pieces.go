package audit

import (
	"bytes"
	"time"
)

// eventStart is how an event begins. The apiVersion is part of it because core/v1 Events, which bodies hold, begin
// with {"kind":"Event" too (DESIGN section 4, Damage).
const eventStart = `{"kind":"Event","apiVersion":"audit.k8s.io/`

// resync gives the offset, beyond 0, of the next beginning of an event in what is not one JSON object; -1 if there is
// none.
func resync(line []byte) int {
	if len(line) == 0 {
		return -1
	}
	at := bytes.Index(line[1:], []byte(eventStart))
	if at < 0 {
		return -1
	}
	return at + 1
}

// The work that a damaged line may cost: to be read so many times over, and so many bytes in any case. A client can
// nest thousands of beginnings of an event into a body; once the line of it is torn, each would be tried to the end.
const (
	maxRereads = 16
	freeReads  = 1 << 20
)

// Entries are the pieces of one line.
type Entries struct {
	d        *Describer
	rest     []byte
	previous time.Time
	at       int64
	work     int // bytes that may still be read in vain
	done     bool
}

// Entries describes one line, which has no newline, piece by piece. A line that is one JSON object, or in which no other
// event begins, is one piece. Any other is split before each event that begins in it: a fragment of an event that was
// torn, a hole of NUL bytes, and the events glued to them are pieces of their own. The pieces one after another, as they
// were before one is reduced, are the line. previous is the time of the line before; a piece without a time has that of
// the piece before it.
//
// at is the position of the line: it tells which admissions hold for its events. A piece is as far behind it as it is in the
// line. Positions grow from line to line, and are the same when a line is read again.
//
// The Describer is in use until Next gives false.
func (d *Describer) Entries(line []byte, previous time.Time, at int64) Entries {
	return Entries{d: d, rest: line, previous: previous, at: at, work: maxRereads*len(line) + freeReads}
}

// Next gives the next piece, or false after the last. The entry is valid until the next call.
func (p *Entries) Next() (entry *Entry, ok bool) {
	if p.done {
		return nil, false
	}
	entry = &p.d.entry
	p.d.fill(entry, p.rest, p.previous, p.at)
	next := -1
	if entry.Malformed {
		if p.work -= p.d.scan.at; p.work > 0 {
			next = resync(p.rest)
		}
	}
	if next < 0 {
		p.done = true
		return entry, true
	}
	p.d.fill(entry, p.rest[:next], p.previous, p.at)
	p.rest, p.previous, p.at = p.rest[next:], entry.Time, p.at+int64(next)
	return entry, true
}
