package shipper

import "sync"

const (
	// spareAfter is after how many givings that is let go which none of them has needed.
	spareAfter = 16
	// keptLong is the longest piece that is kept for long entries: etcd takes objects of 1.5 MB, and an event can hold two.
	keptLong = 4 << 20
)

// spares are pieces of memory that nobody needs now: of the batches of a Client the chunks, and the bodies of their pushes. A batch that is
// filled while another is on its way takes over what that one has given back by then: at a thousand events a second, when a batch
// arrives long before the next one is full, the two take the memory of one.
type spares struct {
	mu    sync.Mutex
	free  [][]byte // empty
	given int      // times, since spare begins
	spare int      // the fewest that were free since then

	long   []byte // one, for an entry that is larger than a chunk; nil if there is none
	unused int    // givings since it was given
}

// take gives an empty piece, nil if there is none.
func (s *spares) take() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.free) - 1
	s.spare = min(s.spare, max(0, last))
	if last < 0 {
		return nil
	}
	p := s.free[last]
	s.free[last] = nil
	s.free = s.free[:last]
	return p
}

// give takes pieces back.
func (s *spares) give(pieces ...[]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range pieces {
		s.free = append(s.free, p[:0])
	}
	if s.unused++; s.unused > spareAfter {
		s.long = nil
	}
	if s.given++; s.given < spareAfter {
		return
	}
	kept := len(s.free) - s.spare
	clear(s.free[kept:])
	s.free = s.free[:kept]
	s.given, s.spare = 0, kept
}

// takeLong gives memory for at least n bytes. What is made anew is cleared first, and is garbage next.
func (s *spares) takeLong(n int) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.long; len(p) >= n {
		s.long = nil
		return p
	}
	return make([]byte, n)
}

// giveLong takes pieces back, of which the longest is kept.
func (s *spares) giveLong(pieces [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range pieces {
		if len(p) > len(s.long) && len(p) <= keptLong {
			s.long, s.unused = p, 0
		}
	}
}
