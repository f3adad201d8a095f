package positions

import (
	"encoding/hex"
	"fmt"
	"maps"
	"time"
)

// Hash is the identity of an audit log file: the SHA-256 of its first line, newline included. The path will not do
// (rotation moves the file), nor the inode (reused within seconds, changed by gzip), nor a head of fixed length
// (clients can make those equal): DESIGN section 4.
type Hash [32]byte

// MarshalText gives the hash as 64 hexadecimal digits.
func (h Hash) MarshalText() ([]byte, error) {
	return hex.AppendEncode(nil, h[:]), nil
}

// UnmarshalText reads what MarshalText wrote; anything else is an error.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(h)) {
		return fmt.Errorf("hash of a first line: %d characters, want %d", len(text), hex.EncodedLen(len(h)))
	}
	if _, err := hex.Decode(h[:], text); err != nil {
		return fmt.Errorf("hash of a first line: %w", err)
	}
	return nil
}

// Position is how far one audit log path has been acknowledged by Loki: a point between two lines. The zero FirstLine
// means that nothing was acknowledged yet: the path is read from its oldest backup.
type Position struct {
	// FirstLine tells which file Offset counts in.
	FirstLine Hash `json:"first_line"`
	// Offset is in unpacked bytes, so it holds for the plain file and for its .gz alike.
	Offset int64 `json:"offset"`
	// LSN counts the unpacked bytes of this path since the agent first followed it. It only grows, so it orders any
	// two positions of a path.
	LSN int64 `json:"lsn"`
	// Name is the base name of the file when the position was taken: a tie-breaker and a hint for people.
	Name string `json:"name"`
	// Inode is that of the file when the position was taken: a tie-breaker only.
	Inode uint64 `json:"inode"`
	// EventTime is the timestamp of the last event before the position: a line that has none of its own takes it.
	EventTime time.Time `json:"event_time"`
	// Others is how far each other file of the path that was there then has been read, in unpacked bytes. It tells what
	// is new after a restart where names and times do not: after a step of the clock, or with two apiservers on one path.
	// A map is never changed once it is in a Position. Nil: not known.
	Others map[Hash]int64 `json:"others"`
	// Gap is what is missing right after the position and is not told in Loki yet; nil for nothing.
	Gap *Gap `json:"gap,omitempty"`
	// Old are the events right before the position that were too old for Loki and are not told there yet; nil for none. What
	// it points to is never changed once it is in a Position.
	Old *Stretch `json:"old,omitempty"`
	// Restamp is what events after the position are sent at that Loki does not take at their own time; nil for none. What it
	// points to is never changed once it is in a Position.
	Restamp *Restamp `json:"restamp,omitempty"`
	// Destination is the address of the Loki that has acknowledged it, without credentials: another must not go on from
	// here unawares. Empty: not known, an agent wrote it that did not say.
	Destination string `json:"destination,omitempty"`
}

// Gap is a place in the log where events are missing. It is part of the position before it until Loki has been told, so
// that a crash in between tells it again in the same words, which Loki drops as a repeat.
type Gap struct {
	// Reason is one word for how it came about.
	Reason string `json:"reason"`
	// Last is the time of the last event before it, First of the first event after it; zero as long as that is not known.
	Last  time.Time `json:"last_event,omitzero"`
	First time.Time `json:"first_event,omitzero"`
	// Files and Bytes are what was lost, as far as it is known; the bytes as they lay on disk.
	Files int   `json:"files,omitempty"`
	Bytes int64 `json:"bytes,omitempty"`
}

// asRead is p as it will be read back: times in UTC.
func (p Position) asRead() Position {
	p.EventTime = p.EventTime.UTC().Round(0)
	if p.Gap != nil {
		gap := *p.Gap
		gap.Last, gap.First = gap.Last.UTC().Round(0), gap.First.UTC().Round(0)
		p.Gap = &gap
	}
	p.Old, p.Restamp = p.Old.asRead(), p.Restamp.asRead()
	return p
}

// Equal reports whether p and q are the same position and know the same.
func (p Position) Equal(q Position) bool {
	return p.FirstLine == q.FirstLine && p.Offset == q.Offset && p.LSN == q.LSN && p.Name == q.Name && p.Inode == q.Inode &&
		p.EventTime.Equal(q.EventTime) && maps.Equal(p.Others, q.Others) && p.Gap.equal(q.Gap) && p.Old.equal(q.Old) &&
		p.Restamp.equal(q.Restamp) && p.Destination == q.Destination
}

func (g *Gap) equal(o *Gap) bool {
	if g == nil || o == nil {
		return g == o
	}
	return g.Reason == o.Reason && g.Last.Equal(o.Last) && g.First.Equal(o.First) && g.Files == o.Files && g.Bytes == o.Bytes
}

// Identified reports whether the position names a file.
func (p Position) Identified() bool { return p.FirstLine != Hash{} }
