package shipper

import (
	"bytes"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"
)

// What a batch keeps over Reset; what an unusual batch needed beyond is let go.
const (
	keptEntries = 8 << 10
	keptStreams = 4 << 10
)

// A Field is one name and value of an entry's structured metadata. It is an unnamed type, so that whoever declares the same
// need not convert.
type Field = struct {
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
	roll           *admitted // what is known of it, once that was asked for: see roll.of
}

// in reports whether p has entries of the stream.
func (s *stream) in(p span) bool { return p.lo < s.first+s.count && s.first < p.hi }

// A record is one entry of a batch.
type record struct {
	wire   []byte // as it stands in the message of its stream, see appendEntry; nil while the batch is packed
	line   int    // bytes of the line
	size   int    // what Loki counts: line and structured metadata
	stream int32  // index into streams
	unfit  bool   // no push can hold its time
}

// A Batch collects entries for one push. The zero Batch is empty and ready for use. Entries are encoded as they are added,
// into chunks of memory that are used again once the batch is on its way, so adding costs one copy and, once the batch has been filled
// before, no allocation. A Batch is not safe for concurrent use.
type Batch struct {
	arena   arena
	records []record // in the order of Add
	streams []stream
	index   map[string]int32 // by labels, into streams
	recent  recent
	bytes   int
	packed  atomic.Bool   // its entries are there only as the body of a push, see letGo
	news    chan struct{} // of the queue that sends it

	buried  []burial
	grouped []int32 // indexes of records in the order of streams; see group
}

// Add appends e. It keeps no slice of e; the string Stream is kept as it is.
func (b *Batch) Add(e Entry) {
	wire, size := sizeEntry(&e)
	r := record{line: len(e.Line), size: size, unfit: !fits(e.Time), stream: b.streamOf(&e)}
	r.wire = appendEntry(b.arena.take(sizeMessage(wire))[:0], &e, wire)
	b.bytes += r.size
	b.records = append(b.records, r)
}

// A burial is an entry that is not pushed because Loki is known to refuse it.
type burial struct {
	entry         Entry
	reason, words string
}

// Bury appends an entry that is to go to the dead-letter file at once, without being pushed. The reason is one of those of
// auditferry_dropped_entries_total, the words are for people. It keeps no slice of e. Len does not count it, Bytes does.
func (b *Batch) Bury(e Entry, reason, words string) {
	e.Line = bytes.Clone(e.Line)
	e.Metadata = slices.Clone(e.Metadata)
	b.bytes += len(e.Line)
	for i := range e.Metadata {
		f := &e.Metadata[i]
		b.bytes += len(f.Name) + len(f.Value)
		f.Value = bytes.Clone(f.Value)
	}
	b.buried = append(b.buried, burial{e, reason, words})
}

// streamOf counts e to its stream and gives the stream's index.
func (b *Batch) streamOf(e *Entry) int32 {
	seen := b.recent.slot(e.Stream)
	if seen.place == 0 || seen.labels != e.Stream {
		*seen = recentStream{e.Stream, b.indexOf(e) + 1}
	}
	i := seen.place - 1
	s := &b.streams[i]
	s.count++
	if e.Time.Before(s.oldest) {
		s.oldest = e.Time
	}
	if e.Time.After(s.newest) {
		s.newest = e.Time
	}
	return i
}

// indexOf gives the index of the stream of e, which is made if it is new.
func (b *Batch) indexOf(e *Entry) int32 {
	i, known := b.index[e.Stream]
	if !known {
		if b.index == nil {
			b.index = make(map[string]int32)
		}
		i = int32(len(b.streams))
		b.index[e.Stream] = i
		b.streams = append(b.streams, stream{labels: e.Stream, oldest: e.Time, newest: e.Time})
	}
	return i
}

// recent remembers where the streams of the last entries are: to hash their labels for each entry costs more than to encode it. Whoever
// describes events gives the same string for a stream again and again, so where a string lies in memory tells where to look; what is found
// there is compared.
type recent [128]recentStream

type recentStream struct {
	labels string
	place  int32 // in the batch's streams, from 1; 0: none is remembered
}

func (r *recent) slot(labels string) *recentStream {
	at := uintptr(unsafe.Pointer(unsafe.StringData(labels)))
	return &r[(at>>4^at>>11)%uintptr(len(r))]
}

// Len returns the number of entries to push.
func (b *Batch) Len() int { return len(b.records) }

// Bytes returns the bytes of lines and structured metadata (names and values), as they were added. Labels do not count.
func (b *Batch) Bytes() int { return b.bytes }

// Reset empties b and keeps its memory, up to what an ordinary batch needs, or this one has needed.
func (b *Batch) Reset() {
	b.arena.reset()
	b.packed.Store(false)
	b.records = emptied(b.records, keptEntries)
	b.buried = nil
	b.grouped = emptied(b.grouped, keptEntries)
	if len(b.streams) > keptStreams {
		b.index = nil
	}
	clear(b.index)
	b.recent = recent{}
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
	if cap(b.grouped) < len(b.records) {
		b.grouped = make([]int32, len(b.records), cap(b.records))
	}
	b.grouped = b.grouped[:len(b.records)]
	for i := range b.records {
		s := &b.streams[b.records[i].stream]
		b.grouped[s.first+s.count] = int32(i)
		s.count++
	}
}

// at gives an entry by its place in the order of grouped.
func (b *Batch) at(i int) *record { return &b.records[b.grouped[i]] }

// size is the bytes of lines and structured metadata of p.
func (b *Batch) size(p span) (bytes int) {
	for i := p.lo; i < p.hi; i++ {
		bytes += b.at(i).size
	}
	return bytes
}

// entry gives an entry, by its place in the order of grouped, as it was added. It points into the batch.
func (b *Batch) entry(i int) (Entry, error) {
	r := b.at(i)
	e, err := readEntry(r.wire)
	e.Stream = b.streams[r.stream].labels
	return e, err
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
func (b *Batch) single(p span) bool {
	if p.len() == 0 {
		return false
	}
	s := &b.streams[b.at(p.lo).stream]
	return p.hi <= s.first+s.count
}

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

// emptied is s with length 0; its elements are zeroed, so that they hold no memory, and it is nil if its capacity is over kept.
func emptied[T any](s []T, kept int) []T {
	if cap(s) > kept {
		return nil
	}
	clear(s)
	return s[:0]
}
