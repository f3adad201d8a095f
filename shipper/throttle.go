package shipper

import (
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

const (
	cutTo     = 0.8              // of its rate is what a client goes on with when it meets the limit of its tenant
	raiseBy   = 0.01             // of that rate is added each second in which pushes go through
	hurry     = 30 * time.Second // without another 429, what is added grows by the square: the limit is far away
	cutApart  = time.Second      // at the least lies between two cuts
	liftAfter = 5 * time.Minute  // without another 429, the limit is taken for gone
	// slowest is how fast a client goes in any case, in bytes per second. Refusals that have nothing to do with its own rate would
	// else cut it down to nothing; where the limit is lower, the pauses after each 429 are slow enough.
	slowest = 128 << 10
)

// A throttle is how fast all pushes of a client together may be, in the bytes that Loki counts for the rate of a tenant: lines
// and structured metadata (Loki pkg/util/entry_size.go). Loki's limit is not known, and the tenant's other clients share it. So
// it is found by additive increase and multiplicative decrease, as TCP does: there is no limit until Loki says that there is
// one, then a little less than what went through, then a little more each second. Loki's bucket fills below its limit and is
// drained above it, so that a 429 is met about twice a minute, and hardly anything of what Loki allows is left unused.
type throttle struct {
	ceiling float64 // Config.Rate; 0: none
	now     prometheus.Gauge

	mu       sync.Mutex
	bucket   *rate.Limiter // nil: as fast as it goes
	step     float64       // bytes per second that each second adds; 0: no limit was met
	cutAt    time.Time
	raisedAt time.Time
	through  meter // since cutAt
}

func newThrottle(ceiling int, now prometheus.Gauge) *throttle {
	t := &throttle{ceiling: float64(ceiling), now: now}
	t.lift(time.Time{})
	return t
}

// reserve takes the bytes of a push, and gives how long to wait before it is made.
func (t *throttle) reserve(bytes int, now time.Time) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bucket == nil {
		return 0
	}
	return reserveBytes(t.bucket, bytes, now)
}

// stored notes a push that went through.
func (t *throttle) stored(bytes int, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.through.add(bytes, now)
	switch {
	case t.step == 0:
	case now.Sub(t.cutAt) >= liftAfter:
		t.lift(now)
	default:
		since := min(now.Sub(t.raisedAt), time.Second) // an outage is no reason to be faster
		t.raisedAt = now
		far := now.Sub(t.cutAt).Seconds() / hurry.Seconds()
		t.set(float64(t.bucket.Limit())+t.step*(1+far*far)*since.Seconds(), now)
	}
}

// limited notes a 429 that is about the tenant, to a push that was begun at a time. What was under way when the rate was cut
// says nothing about the new one.
func (t *throttle) limited(began, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !began.After(t.cutAt) || now.Sub(t.cutAt) < cutApart {
		return
	}
	measured := t.through.peak(now)
	if measured == 0 && t.bucket == nil {
		return // others use all that there is: pauses between attempts are slow enough
	}
	limit, least := math.Inf(1), 0.0
	if t.bucket != nil {
		limit = float64(t.bucket.Limit())
		least = limit / 2 // little may have gone through only because there was little
	}
	next := max(cutTo*min(limit, measured), least, min(slowest, limit))
	t.step = raiseBy * next
	t.cutAt, t.raisedAt = now, now
	t.through = meter{}
	t.set(next, now)
}

// lift ends what was learnt.
func (t *throttle) lift(now time.Time) {
	t.step = 0
	if t.ceiling > 0 {
		t.set(t.ceiling, now)
		return
	}
	t.bucket = nil
	t.now.Set(0)
}

// set changes the rate. A quarter of a second's bytes may go at once.
func (t *throttle) set(perSecond float64, now time.Time) {
	if t.ceiling > 0 {
		perSecond = min(perSecond, t.ceiling)
	}
	burst := max(1, int(perSecond/4))
	if t.bucket == nil {
		t.bucket = rate.NewLimiter(rate.Limit(perSecond), burst)
	} else {
		t.bucket.SetLimitAt(now, rate.Limit(perSecond))
		t.bucket.SetBurstAt(now, burst)
	}
	t.now.Set(perSecond)
}

// The last ten seconds in tenths, and how many of these a peak is measured over.
const (
	meterSlots = 100
	peakSlots  = 10
	slotTime   = time.Second / peakSlots
)

// A meter is how many bytes went through lately.
type meter struct {
	newest int64 // number of the newest slot since 1970
	bytes  [meterSlots]int
}

func (m *meter) add(bytes int, now time.Time) {
	m.advance(now)
	m.bytes[m.newest%meterSlots] += bytes
}

// advance forgets what is older than the slots.
func (m *meter) advance(now time.Time) {
	slot := now.UnixNano() / int64(slotTime)
	for n := max(m.newest+1, slot-meterSlots+1); n <= slot; n++ {
		m.bytes[n%meterSlots] = 0
	}
	m.newest = max(m.newest, slot)
}

// peak is the bytes of the busiest second.
func (m *meter) peak(now time.Time) float64 {
	m.advance(now)
	sum, most := 0, 0
	for i := range int64(meterSlots) {
		sum += m.bytes[(m.newest+1+i)%meterSlots]
		if i >= peakSlots {
			sum -= m.bytes[(m.newest+1+i-peakSlots)%meterSlots]
		}
		most = max(most, sum)
	}
	return float64(most)
}
