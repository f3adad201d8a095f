package shipper

import (
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// smallestBatch is what no answer makes batches smaller than, in bytes: smaller ones would cost more requests than they are
// worth.
const smallestBatch = 16 << 10

// A sizeLimit is how large a batch may be for whatever stands before Loki, a gateway with a limit for bodies for example.
// Nobody tells it, so it is learnt from the pushes that are answered 413, and kept until the process ends.
type sizeLimit struct {
	log   *slog.Logger
	gauge prometheus.Gauge
	bytes atomic.Int64 // 0: none is known

	mu sync.Mutex // held while it changes
}

// of gives the size at which to push a batch, for the one that the user wants.
func (l *sizeLimit) of(wanted int) int {
	if learnt := int(l.bytes.Load()); learnt > 0 {
		return min(wanted, learnt)
	}
	return wanted
}

// refused learns from a push that was too large: half of it may fit. If one entry makes up half of it or more, that entry may
// be too large by itself, which says nothing about the others. Nor is a push much larger than what is learnt news: it was made
// before.
func (l *sizeLimit) refused(b *Batch, s span) {
	size, largest := 0, 0
	for i := s.lo; i < s.hi; i++ {
		size += b.at(i).size
		largest = max(largest, b.at(i).size)
	}
	if 2*largest >= size || size <= smallestBatch {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	half := max(size/2, smallestBatch)
	if known := int(l.bytes.Load()); known > 0 && (known <= half || size > known+known/8) {
		return
	}
	l.bytes.Store(int64(half))
	l.gauge.Set(float64(half))
	l.log.Warn("a push is too large for Loki, or for a gateway before it; smaller batches are pushed from now on",
		"refused_bytes", size, "batch_bytes", half)
}
