package shipper

import (
	"maps"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A pace keeps every stream of a client below a rate. Loki cuts a stream that is faster than 1,536 KB/s into shards, and the
// shard changes from push to push: what is sent again after a crash can land in another one, and log queries then show it
// twice (shard_streams, on by default; Loki pkg/distributor/distributor.go, calculateShards: the rate of a stream and the
// size of the push together decide). A quarter of the rate, or less where more pushes are in flight, is the most that one push
// may hold of a stream, and the most that may be sent of it at once. A new pace begins with little to spare: the agent that was killed a moment ago may have
// used it up; an eighth is what lets hundreds of quiet streams begin without a pause for each.
type pace struct {
	perSecond, burst int // bytes; 0: no limit

	mu       sync.Mutex
	streams  map[string]*rate.Limiter
	forgetAt int // so many streams that it is time to forget some
}

func newPace(perSecond, inFlight int) *pace {
	return &pace{perSecond: perSecond, burst: perSecond / (2 * max(2, inFlight)), streams: make(map[string]*rate.Limiter), forgetAt: knownStreams}
}

// reserve takes what the span needs of the rates of its streams, and gives how long to wait before it is pushed.
func (p *pace) reserve(b *Batch, s span, now time.Time) (wait time.Duration) {
	if p.perSecond == 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, stream := range b.streams {
		bytes := 0
		for i := max(s.lo, stream.first); i < min(s.hi, stream.first+stream.count); i++ {
			bytes += b.at(i).size
		}
		if bytes > 0 {
			wait = max(wait, reserveBytes(p.limiter(stream.labels, now), bytes, now))
		}
	}
	return wait
}

// reserveBytes reserves bytes, which can be more than the burst: an entry cannot be cut.
func reserveBytes(l *rate.Limiter, bytes int, now time.Time) (wait time.Duration) {
	for bytes > 0 {
		part := min(bytes, l.Burst())
		wait = l.ReserveN(now, part).DelayFrom(now)
		bytes -= part
	}
	return wait
}

func (p *pace) limiter(labels string, now time.Time) *rate.Limiter {
	if l, known := p.streams[labels]; known {
		return l
	}
	if len(p.streams) >= p.forgetAt { // those that have their burst to spare
		maps.DeleteFunc(p.streams, func(_ string, l *rate.Limiter) bool { return l.TokensAt(now) >= float64(p.burst) })
		p.forgetAt = max(knownStreams, 2*len(p.streams))
	}
	l := rate.NewLimiter(rate.Limit(p.perSecond), p.burst)
	l.ReserveN(now, p.burst-p.burst/8)
	p.streams[labels] = l
	return l
}
