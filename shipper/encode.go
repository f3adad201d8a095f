package shipper

import (
	"encoding/binary"
	"errors"
	"sync"

	"github.com/golang/snappy"
)

// blockSize is how much snappy compresses at a time, each block for itself (golang/snappy, maxBlockSize). A body in its block
// format is the length of all that is in it, and then block after block: so it can be made from one block in memory at a
// time, in which the message is still in the processor's cache when it is compressed.
const blockSize = 64 << 10

// An encoder makes the body of a push: a PushRequest as protobuf (see wire.go), in snappy's block format. Its scratch memory is
// shared by all pushes of a client, since encoding 1 MiB takes about a millisecond and pushing it much longer. So is its
// goroutine: snappy needs a stack of 64 KiB, and there are many pushes at a time.
type encoder struct {
	mu   sync.Mutex
	jobs chan job
	done chan result

	sizes  []int  // of the streams' messages, by their index in the batch
	block  []byte // of the message, not compressed yet
	packed []byte // scratch for one block
	body   []byte
}

type job struct {
	dst    []byte
	batch  *Batch
	lo, hi int
}

type result struct {
	body []byte
	err  error
}

func newEncoder() *encoder {
	e := &encoder{jobs: make(chan job), done: make(chan result), block: make([]byte, 0, blockSize)}
	go e.run()
	return e
}

// run makes bodies until close.
func (e *encoder) run() {
	for j := range e.jobs {
		body, err := e.make(j.dst, j.batch, j.lo, j.hi)
		e.done <- result{body, err}
	}
	close(e.done)
}

// close ends the goroutine. No encode may come after it.
func (e *encoder) close() {
	close(e.jobs)
	<-e.done
}

var errTime = errors.New("encoding a push: timestamp before the year 1 or after 9999")

// encode appends the body of a push of entries lo to hi of the grouped batch to dst. It fails only for an entry that protobuf cannot express:
// a time before the year 1 or after 9999.
func (e *encoder) encode(dst []byte, b *Batch, lo, hi int) ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.jobs <- job{dst, b, lo, hi}
	r := <-e.done
	return r.body, r.err
}

func (e *encoder) make(dst []byte, b *Batch, lo, hi int) ([]byte, error) {
	total, err := e.measure(b, lo, hi)
	if err != nil {
		return dst, err
	}
	e.body = binary.AppendUvarint(dst, uint64(total))
	for i := range b.streams {
		s := &b.streams[i]
		from, to := max(lo, s.first), min(hi, s.first+s.count)
		if from >= to {
			continue
		}
		e.header(tagStreams, e.sizes[i])
		if len(s.labels) > 0 {
			e.header(tagLabels, len(s.labels))
			e.text(s.labels)
		}
		for j := from; j < to; j++ {
			e.write(b.at(j).wire)
		}
	}
	e.pack(e.block)
	e.block = e.block[:0]
	dst, e.body = e.body, nil
	return dst, nil
}

// measure gives the size of the message, and notes those of its streams.
func (e *encoder) measure(b *Batch, lo, hi int) (total int, err error) {
	e.sizes = e.sizes[:0]
	for i := range b.streams {
		s := &b.streams[i]
		size := sizeBytes(len(s.labels))
		from, to := max(lo, s.first), min(hi, s.first+s.count)
		for j := from; j < to; j++ {
			r := b.at(j)
			if r.unfit {
				return 0, errTime
			}
			size += len(r.wire)
		}
		e.sizes = append(e.sizes, size)
		if from < to {
			total += sizeMessage(size)
		}
	}
	return total, nil
}

func (e *encoder) header(tag byte, n int) {
	var header [1 + binary.MaxVarintLen64]byte
	e.write(appendTag(header[:0], tag, n))
}

// text is write for a string.
func (e *encoder) text(s string) {
	for len(s) > 0 {
		n := min(len(s), blockSize-len(e.block))
		e.block = append(e.block, s[:n]...)
		e.full()
		s = s[n:]
	}
}

// write adds a part of the message, and compresses what is complete.
func (e *encoder) write(p []byte) {
	for len(p) > 0 {
		if len(e.block) == 0 && len(p) >= blockSize { // of a long line, as it stands
			e.pack(p[:blockSize])
			p = p[blockSize:]
			continue
		}
		n := min(len(p), blockSize-len(e.block))
		e.block = append(e.block, p[:n]...)
		e.full()
		p = p[n:]
	}
}

// full compresses the block if it is complete.
func (e *encoder) full() {
	if len(e.block) == blockSize {
		e.pack(e.block)
		e.block = e.block[:0]
	}
}

// pack compresses one block and appends it to the body, without the length that begins a body.
func (e *encoder) pack(block []byte) {
	if len(block) == 0 {
		return
	}
	if e.packed == nil {
		e.packed = make([]byte, snappy.MaxEncodedLen(blockSize))
	}
	packed := snappy.Encode(e.packed, block)
	e.body = append(e.body, packed[sizeUvarint(uint64(len(block))):]...)
}
