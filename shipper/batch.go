package shipper

import (
	"time"
	"unsafe"

	"github.com/grafana/loki/pkg/push"
)

const (
	// chunkSize is that of the arena's chunks: small enough that a batch of 1 MiB wastes little at its end.
	chunkSize = 128 << 10
	// What a batch keeps over Reset; what an unusual batch needed beyond is let go.
	keptChunks  = 12
	keptEntries = 8 << 10
	keptFields  = 16 * keptEntries
	keptStreams = 4 << 10
	keptBody    = 1 << 20
)

// A Field is one name and value of an entry's structured metadata.
type Field struct {
	Name  string
	Value []byte
}

// An Entry is one log line for Loki. Stream is its label set in Loki's text form, such as `{job="x", verb="get"}`.
type Entry struct {
	Stream   string
	Time     time.Time
	Line     []byte
	Metadata []Field
}

// A stream is the labels of some entries of a batch; once grouped, they are entries first to first+count.
type stream struct {
	labels         string
	first, count   int
	oldest, newest time.Time // of the entries
	alone          bool      // is to be pushed by itself
}

// in reports whether p has entries of the stream.
func (s *stream) in(p span) bool { return p.lo < s.first+s.count && s.first < p.hi }

// A Batch collects entries for one push. The zero Batch is empty and ready for use. Lines and values are copied into chunks
// of memory that Reset keeps, and the strings of push.Entry are views of it, so adding costs one copy and, once the batch
// has been filled before, no allocation. A Batch is not safe for concurrent use.
type Batch struct {
	arena   arena
	entries []push.Entry // in the order of Add
	member  []int32      // entries[i] belongs to streams[member[i]]
	fields  []push.LabelAdapter
	streams []stream
	index   map[string]int32 // by labels, into streams
	bytes   int

	grouped []push.Entry // entries in the order of streams; see group
	body    []byte       // memory for the bytes of a push
}

// Add appends e. It keeps no slice of e: line and values are copied; the strings (stream, field names) are kept as they are.
func (b *Batch) Add(e Entry) {
	first := len(b.fields)
	for _, f := range e.Metadata {
		b.fields = append(b.fields, push.LabelAdapter{Name: f.Name, Value: b.arena.copy(f.Value)})
		b.bytes += len(f.Name) + len(f.Value)
	}
	last := len(b.fields)
	b.entries = append(b.entries, push.Entry{
		Timestamp:          e.Time,
		Line:               b.arena.copy(e.Line),
		StructuredMetadata: b.fields[first:last:last],
	})
	b.bytes += len(e.Line)

	i, known := b.index[e.Stream]
	if !known {
		if b.index == nil {
			b.index = make(map[string]int32)
		}
		i = int32(len(b.streams))
		b.index[e.Stream] = i
		b.streams = append(b.streams, stream{labels: e.Stream, oldest: e.Time, newest: e.Time})
	}
	s := &b.streams[i]
	s.count++
	if e.Time.Before(s.oldest) {
		s.oldest = e.Time
	}
	if e.Time.After(s.newest) {
		s.newest = e.Time
	}
	b.member = append(b.member, i)
}

// Len returns the number of entries.
func (b *Batch) Len() int { return len(b.entries) }

// Bytes returns the bytes of lines and structured metadata (names and values), as they were added. Labels do not count.
func (b *Batch) Bytes() int { return b.bytes }

// Reset empties b and keeps its memory, up to what an ordinary batch needs.
func (b *Batch) Reset() {
	b.arena.reset()
	b.entries = emptied(b.entries, keptEntries)
	b.grouped = emptied(b.grouped, keptEntries)
	b.member = emptied(b.member, keptEntries)
	b.body = emptied(b.body, keptBody)
	b.fields = emptied(b.fields, keptFields)
	if len(b.streams) > keptStreams {
		b.index = nil
	}
	clear(b.index)
	b.streams = emptied(b.streams, keptStreams)
	b.bytes = 0
}

// group orders the entries by stream, those streams last that are to be pushed alone, each stream's entries in the order of
// Add, so that a push and any half of it is a range of grouped. It is called once the batch is complete.
func (b *Batch) group(alone func(*stream) bool) {
	for i := range b.streams {
		b.streams[i].alone = alone(&b.streams[i])
	}
	first := 0
	for s := range b.ordered {
		s.first = first
		first += s.count
		s.count = 0
	}
	if cap(b.grouped) < len(b.entries) {
		b.grouped = make([]push.Entry, len(b.entries), cap(b.entries))
	}
	b.grouped = b.grouped[:len(b.entries)]
	for i, e := range b.entries {
		s := &b.streams[b.member[i]]
		b.grouped[s.first+s.count] = e
		s.count++
	}
}

// ordered gives the streams in the order of grouped.
func (b *Batch) ordered(yield func(*stream) bool) {
	for _, alone := range []bool{false, true} {
		for i := range b.streams {
			if s := &b.streams[i]; s.alone == alone && !yield(s) {
				return
			}
		}
	}
}

// single reports whether p has entries of one stream only.
func (b *Batch) single(p span) bool { return len(b.split(p)) == 1 }

// split cuts p into the parts of its streams.
func (b *Batch) split(p span) []span {
	var parts []span
	for s := range b.ordered {
		if s.in(p) {
			parts = append(parts, span{max(p.lo, s.first), min(p.hi, s.first+s.count)})
		}
	}
	return parts
}

// times gives the time of the oldest and of the newest entry.
func (b *Batch) times() (oldest, newest time.Time) {
	for i := range b.streams {
		s := &b.streams[i]
		if i == 0 || s.oldest.Before(oldest) {
			oldest = s.oldest
		}
		if s.newest.After(newest) {
			newest = s.newest
		}
	}
	return oldest, newest
}

// entrySize is what Loki counts of an entry: line and structured metadata.
func entrySize(e *push.Entry) int {
	size := len(e.Line)
	for _, f := range e.StructuredMetadata {
		size += len(f.Name) + len(f.Value)
	}
	return size
}

// emptied is s with length 0; its elements are zeroed, so that they hold no memory, and it is nil if its capacity is over kept.
func emptied[T any](s []T, kept int) []T {
	if cap(s) > kept {
		return nil
	}
	clear(s)
	return s[:0]
}

// An arena hands out strings in a few big chunks. A longer string than a chunk gets memory of its own, which goes with reset.
type arena struct {
	chunks [][]byte // each with capacity chunkSize
	used   int      // chunks[:used] are filled, the last of them to its length
}

func (a *arena) copy(p []byte) string {
	switch {
	case len(p) == 0:
		return ""
	case len(p) > chunkSize:
		return string(p)
	case a.used == 0 || len(p) > chunkSize-len(a.chunks[a.used-1]):
		if a.used == len(a.chunks) {
			a.chunks = append(a.chunks, make([]byte, 0, chunkSize))
		}
		a.used++
	}
	c := &a.chunks[a.used-1]
	start := len(*c)
	*c = append(*c, p...) // never beyond its capacity, so what was handed out stays where it is
	return unsafe.String(&(*c)[start], len(p))
}

func (a *arena) reset() {
	if len(a.chunks) > keptChunks {
		clear(a.chunks[keptChunks:])
		a.chunks = a.chunks[:keptChunks]
	}
	for i := range a.chunks {
		a.chunks[i] = a.chunks[i][:0]
	}
	a.used = 0
}
