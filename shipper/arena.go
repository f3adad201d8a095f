package shipper

import "sync"

// chunkSize is that of the arena's chunks: small enough that a batch of 1 MiB wastes little at its end.
const chunkSize = 64 << 10

// An arena hands out memory in a few big chunks. More than a chunk holds gets memory of its own, which goes with reset.
type arena struct {
	store  *chunkStore // where chunks come from and go to with reset; one of its own if it has none
	chunks [][]byte    // each with capacity chunkSize; filled, but the last one, which is to its length
}

// take gives n bytes, which nobody else has until reset. What they hold is left over from before.
func (a *arena) take(n int) []byte {
	if n > chunkSize {
		return make([]byte, n)
	}
	if last := len(a.chunks) - 1; last < 0 || n > chunkSize-len(a.chunks[last]) {
		if a.store == nil {
			a.store = new(chunkStore)
		}
		a.chunks = append(a.chunks, a.store.take())
	}
	c := &a.chunks[len(a.chunks)-1]
	start := len(*c)
	*c = (*c)[:start+n]
	return (*c)[start : start+n : start+n]
}

func (a *arena) reset() {
	if len(a.chunks) == 0 {
		return
	}
	a.store.give(a.chunks)
	clear(a.chunks)
	a.chunks = a.chunks[:0]
}

// spareAfter is after how many batches the chunks are let go that none of them has needed.
const spareAfter = 16

// A chunkStore keeps the chunks that no batch needs now, for all batches of a Client. A batch that is filled while another is on
// its way takes over what that one has given back by then: at a thousand events a second, when a batch arrives long before the next
// one is full, the two take the memory of one.
type chunkStore struct {
	mu    sync.Mutex
	free  [][]byte // empty
	given int      // times, since spare begins
	spare int      // the fewest that were free since then
}

func (s *chunkStore) take() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.free) - 1
	s.spare = min(s.spare, max(0, last))
	if last < 0 {
		return make([]byte, 0, chunkSize)
	}
	c := s.free[last]
	s.free[last] = nil
	s.free = s.free[:last]
	return c
}

func (s *chunkStore) give(chunks [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range chunks {
		s.free = append(s.free, c[:0])
	}
	if s.given++; s.given < spareAfter {
		return
	}
	kept := len(s.free) - s.spare
	clear(s.free[kept:])
	s.free = s.free[:kept]
	s.given, s.spare = 0, kept
}
