package shipper

import (
	"fmt"
	"sync"

	"github.com/golang/snappy"
	"github.com/grafana/loki/pkg/push"
)

// keptScratch bounds what an encoder keeps of the memory that one push needed.
const keptScratch = 3 << 20

// An encoder makes the body of a push: push.PushRequest as protobuf, in snappy's block format. Its scratch memory is shared
// by all pushes of a client, since encoding 1 MiB takes about a millisecond and pushing it much longer.
type encoder struct {
	mu      sync.Mutex
	request push.PushRequest
	plain   []byte
	packed  []byte
}

// encode appends the body of a push of entries lo to hi of the grouped batch to dst. It fails only for an entry that protobuf cannot express:
// a time before the year 1 or after 9999.
func (e *encoder) encode(dst []byte, b *Batch, lo, hi int) ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	defer e.release()
	for _, s := range b.streams {
		from, to := max(lo, s.first), min(hi, s.first+s.count)
		if from < to {
			e.request.Streams = append(e.request.Streams, push.Stream{Labels: s.labels, Entries: b.grouped[from:to]})
		}
	}
	size := e.request.Size()
	e.plain = sized(e.plain, size)
	n, err := e.request.MarshalToSizedBuffer(e.plain)
	if err != nil {
		return dst, fmt.Errorf("encoding a push: %w", err)
	}
	e.packed = sized(e.packed, snappy.MaxEncodedLen(n))
	return append(dst, snappy.Encode(e.packed, e.plain[:n])...), nil
}

// release drops what refers to the batch, and memory beyond the ordinary.
func (e *encoder) release() {
	clear(e.request.Streams)
	e.request.Streams = e.request.Streams[:0]
	if cap(e.plain)+cap(e.packed) > keptScratch {
		e.plain, e.packed = nil, nil
	}
}

// sized is p with length n; what it held is lost.
func sized(p []byte, n int) []byte {
	if cap(p) < n {
		return make([]byte, n, n+n/8)
	}
	return p[:n]
}
