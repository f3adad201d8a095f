package lokitest

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"maps"
	"slices"
	"time"
)

// A Field is one name and value of structured metadata.
type Field struct{ Name, Value string }

// An Entry is one log line as it arrived.
type Entry struct {
	Stream   string            // label set in Loki's text form, sorted by name
	Labels   map[string]string // the same, to be read only
	Time     time.Time
	Line     string            // empty under HashLines, once it is stored
	LineHash [sha256.Size]byte // SHA-256 of Line
	Bytes    int               // length of Line
	Metadata []Field           // sorted by name; nil under HashLines, once it is stored

	// How often it was stored, and in how many pushes that were answered 204 it was. Zero in a Request.
	Count, Acked int
}

// A Stream is the summary of one stream; repeats count once.
type Stream struct {
	Stream  string
	Labels  map[string]string
	Entries int
	Bytes   int64 // of lines
}

type key [sha256.Size]byte

// A store keeps entries under the identity that Loki gives them.
type store struct {
	hashOnly bool
	index    map[key]int
	entries  []Entry
	arrivals int
}

func newStore() *store { return &store{index: make(map[key]int)} }

// add stores e, or counts it as a repeat; acked says whether the client is told so.
func (s *store) add(e Entry, acked bool) {
	s.arrivals++
	k := identity(e)
	i, known := s.index[k]
	if !known {
		i = len(s.entries)
		s.index[k] = i
		if s.hashOnly {
			e.Line, e.Metadata = "", nil
		}
		s.entries = append(s.entries, e)
	}
	s.entries[i].Count++
	if acked {
		s.entries[i].Acked++
	}
}

func (s *store) list() []Entry { return slices.Clone(s.entries) }

func (s *store) summary() []Stream {
	byStream := make(map[string]*Stream)
	for _, e := range s.entries {
		sum := byStream[e.Stream]
		if sum == nil {
			sum = &Stream{Stream: e.Stream, Labels: e.Labels}
			byStream[e.Stream] = sum
		}
		sum.Entries++
		sum.Bytes += int64(e.Bytes)
	}
	list := make([]Stream, 0, len(byStream))
	for _, name := range slices.Sorted(maps.Keys(byStream)) {
		list = append(list, *byStream[name])
	}
	slices.SortStableFunc(list, func(a, b Stream) int { return cmp.Compare(b.Entries, a.Entries) })
	return list
}

// identity is equal for two entries if and only if Loki shows them as one: stream, timestamp, line and structured
// metadata (DESIGN section 6, measured on Loki 3.7.8).
func identity(e Entry) key {
	h := sha256.New()
	number := func(n int64) {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], uint64(n))
		h.Write(b[:])
	}
	text := func(t string) {
		number(int64(len(t)))
		_, _ = io.WriteString(h, t) // a hash never fails
	}
	text(e.Stream)
	number(e.Time.UnixNano())
	h.Write(e.LineHash[:])
	for _, f := range e.Metadata {
		text(f.Name)
		text(f.Value)
	}
	var k key
	h.Sum(k[:0])
	return k
}
