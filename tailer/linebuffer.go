package tailer

import (
	"bytes"
	"crypto/sha256"
	"hash"

	"github.com/auditferry/auditferry/positions"
)

const (
	bufferSize = 256 << 10 // as long as lines are short
	minRead    = 64 << 10
	// keepLong is for how many fills the room for a long line is kept after it: long lines come in bursts.
	keepLong = 64
)

// lineBuffer cuts what is read into lines. A line is kept whole up to max bytes; of a longer one the rest is dropped
// while it is read, so that memory stays bounded.
type lineBuffer struct {
	max  int
	buf  []byte
	r, w int // buf[r:w] was read and not handed out
	seen int // buf[r:seen] holds no newline
	idle int // fills since the buffer was last needed at its size

	// Of a line that became longer than max:
	hole   int64     // NUL bytes dropped so far before r
	cut    int64     // bytes dropped so far after buf[r:r+max]
	sum    hash.Hash // over what was dropped and buf[r:r+hashed]
	hashed int
}

// rawLine is one line without its newline, valid until the next fill.
type rawLine struct {
	bytes []byte
	hole  int64          // how many NUL bytes the line had before bytes, and
	cut   int64          // how many more bytes after, if it was longer than max
	id    positions.Hash // if asked for: of the line and its newline
}

func (b *lineBuffer) reset() {
	b.r, b.w, b.seen = 0, 0, 0
	b.begin()
}

// begin is for the start of a line.
func (b *lineBuffer) begin() { b.hole, b.cut, b.sum, b.hashed = 0, 0, nil, 0 }

// empty reports whether all that was read was handed out.
func (b *lineBuffer) empty() bool { return b.r == b.w && b.hole == 0 && b.cut == 0 }

// next gives the next line that has its newline. first asks for its hash.
func (b *lineBuffer) next(first bool) (rawLine, bool) {
	i := bytes.IndexByte(b.buf[b.seen:b.w], '\n')
	if i < 0 {
		b.seen = b.w
		return rawLine{}, false
	}
	return b.take(b.seen+i, b.seen+i+1, first), true
}

// rest gives what is there without a newline; not ok if there is nothing.
func (b *lineBuffer) rest(first bool) (rawLine, bool) {
	if b.r == b.w {
		return rawLine{}, false
	}
	return b.take(b.w, b.w, first), true
}

// take hands out the line buf[r:end]; the next one begins at next.
func (b *lineBuffer) take(end, next int, first bool) (l rawLine) {
	if b.hole > 0 || end-b.r > b.max {
		b.strip(end)
	}
	switch {
	case b.sum != nil:
		b.hash(next)
		l.id = positions.Hash(b.sum.Sum(nil))
	case first:
		l.id = sha256.Sum256(b.buf[b.r:next])
	}
	l.bytes, l.hole, l.cut = b.buf[b.r:end], b.hole, b.cut
	if len(l.bytes) > b.max {
		l.cut += int64(len(l.bytes) - b.max)
		l.bytes = l.bytes[:b.max]
	}
	b.r, b.seen = next, next
	b.begin()
	return l
}

// fill reads once, and gives what read gave.
func (b *lineBuffer) fill(read func([]byte) (int, error)) (int, error) {
	b.drop()
	b.room()
	n, err := read(b.buf[b.w:])
	b.w += n
	return n, err
}

// drop forgets the NUL bytes at the beginning of a line longer than max, and then what is beyond max of it. All that
// was read so far belongs to that line: next found no newline in it.
func (b *lineBuffer) drop() {
	if b.hole == 0 && b.w-b.r <= b.max {
		return
	}
	b.strip(b.w)
	if b.w-b.r > b.max {
		b.hash(b.w)
		b.cut += int64(b.w - b.r - b.max)
		b.w = b.r + b.max
		b.hashed = b.max
	}
	b.seen = b.w
}

// strip drops the NUL bytes that buf[r:end] begins with. An external copytruncate can leave a hole of 100 MB before an
// event (DESIGN section 4), which would be cut off with what is beyond max.
func (b *lineBuffer) strip(end int) {
	if b.cut > 0 {
		return
	}
	n := 0
	for n < end-b.r && b.buf[b.r+n] == 0 {
		n++
	}
	if n > 0 {
		b.hash(b.r + n)
		b.r += n
		b.hole += int64(n)
		b.hashed = 0
	}
}

// hash adds buf[r:end] to the sum, which has buf[r:r+hashed].
func (b *lineBuffer) hash(end int) {
	if b.sum == nil {
		b.sum = sha256.New()
	}
	b.sum.Write(b.buf[b.r+b.hashed : end])
}

// room makes place for at least minRead bytes.
func (b *lineBuffer) room() {
	held := b.w - b.r
	size := bufferSize
	for size-held < minRead {
		size *= 2
	}
	b.idle++
	if size >= len(b.buf) {
		b.idle = 0
	}
	switch {
	case size > len(b.buf), size < len(b.buf) && b.idle > keepLong:
		grown := make([]byte, size)
		copy(grown, b.buf[b.r:b.w])
		b.buf = grown
	case len(b.buf)-b.w < minRead || held == 0:
		copy(b.buf, b.buf[b.r:b.w])
	default:
		return
	}
	b.seen -= b.r
	b.r, b.w = 0, held
}
