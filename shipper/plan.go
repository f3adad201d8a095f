package shipper

import (
	"maps"
	"sync"
	"time"
)

const (
	// confirmedFor is how long a stream counts as admitted after Loki has taken a push that held nothing else.
	confirmedFor = 5 * time.Minute
	// farBehind is how old, beside the newest entry sent to its stream, an entry must be to be in doubt. Loki refuses what is
	// half of max_chunk_age, an hour by default, behind (Loki pkg/ingester/stream.go).
	farBehind = 50 * time.Minute
	// knownStreams is how many streams are remembered, at the least, before those that are no longer confirmed are
	// forgotten.
	knownStreams = 10_000
)

// A roll knows which streams Loki has admitted. Loki's answer to a push is that of its last stream only: a push of a new
// stream over the limit of streams, or with entries too far behind, and then of one that is fine, is answered 204, and the
// entries of the first are gone (DESIGN section 7, measured on 3.7.8). So whatever is in doubt is pushed alone, and the
// answer is the truth.
type roll struct {
	doubtAll bool // Config.EveryStreamAlone

	mu       sync.Mutex
	streams  map[string]*admitted
	forgetAt int // so many streams that it is time to forget some
}

type admitted struct {
	confirmed time.Time // when a push of this stream alone was last answered 204
	newest    time.Time // entry sent
	forgotten bool      // is no longer in roll.streams
}

func newRoll() *roll { return &roll{streams: make(map[string]*admitted), forgetAt: knownStreams} }

// doubts reports whether a stream of a batch is to be pushed alone.
func (r *roll) doubts(s *stream, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.inDoubt(s, now)
}

// inDoubt is doubts, with mu held.
func (r *roll) inDoubt(s *stream, now time.Time) bool {
	a := r.of(s)
	newest := a.newest
	if s.newest.After(newest) {
		newest = s.newest
	}
	return r.doubtAll || now.Sub(a.confirmed) > confirmedFor || newest.Sub(s.oldest) > farBehind
}

// of gives what is known of a stream. The stream remembers it: to hash its labels at each step costs more than the step. mu is held.
func (r *roll) of(s *stream) *admitted {
	if s.roll == nil || s.roll.forgotten {
		if s.roll = r.streams[s.labels]; s.roll == nil {
			s.roll = new(admitted)
			r.streams[s.labels] = s.roll
		}
	}
	return s.roll
}

// admit decides, just before a push is made, whether it may be: not if it holds several streams and one of them is in doubt by
// now, because an outage has lasted or another push has brought newer entries. If it may, its entries count as sent:
// Loki may store them whatever it answers.
func (r *roll) admit(b *Batch, p span, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.streams) >= r.forgetAt {
		maps.DeleteFunc(r.streams, func(_ string, a *admitted) bool {
			a.forgotten = now.Sub(a.confirmed) > confirmedFor
			return a.forgotten
		})
		r.forgetAt = max(knownStreams, 2*len(r.streams))
	}
	if !b.single(p) {
		for i := range b.streams {
			if s := &b.streams[i]; s.in(p) && r.inDoubt(s, now) {
				return false
			}
		}
	}
	for i := range b.streams {
		if s := &b.streams[i]; s.in(p) {
			if a := r.of(s); s.newest.After(a.newest) {
				a.newest = s.newest
			}
		}
	}
	return true
}

// stored notes a push that was answered 204. It says something only of a stream that was alone.
func (r *roll) stored(b *Batch, p span, now time.Time) {
	if b.single(p) {
		r.confirm(b, p, now)
	}
}

// refused notes a push of which Loki refused something, nobody knows of which streams: all are in doubt.
func (r *roll) refused(b *Batch, p span) { r.confirm(b, p, time.Time{}) }

func (r *roll) confirm(b *Batch, p span, when time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range b.streams {
		if s := &b.streams[i]; s.in(p) {
			r.of(s).confirmed = when
		}
	}
}

// plan groups a batch, those streams last that are in doubt, and cuts it into pushes: each stream in doubt in its own, and
// no stream with more than burst bytes in one. 0: no limit. Different streams that are alone can be pushed in any order, the
// parts of one only in theirs: Loki refuses what is an hour behind the newest entry of its stream.
func (r *roll) plan(b *Batch, burst int, now time.Time) (together []span, alone [][]span) {
	b.group(func(s *stream) bool { return r.doubts(s, now) })
	spans := &together
	lo := 0
	cut := func(at int) {
		if at > lo {
			*spans = append(*spans, span{lo, at})
			lo = at
		}
	}
	for s := range b.ordered {
		if s.alone {
			cut(s.first)
			alone = append(alone, nil)
			spans = &alone[len(alone)-1]
		}
		bytes := 0
		for i := s.first; burst > 0 && i < s.first+s.count; i++ {
			size := b.at(i).size
			if bytes += size; bytes > burst && bytes > size {
				cut(i)
				bytes = size
			}
		}
	}
	cut(b.Len())
	return together, alone
}
