package shipper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

// A tenant is the limit that Loki has for one: it takes pushes or answers 429, in the time of the synctest bubble that it is
// made in, and looks at no more of them than their size, so that a test can push for minutes. There is no network, for which that
// time would not wait.
type tenant struct {
	bucket *rate.Limiter
	takes  time.Duration // to answer

	mu     sync.Mutex
	answer []answered
}

type answered struct {
	at    time.Time
	bytes int // 0: 429
}

// limitTenant puts the client of r before a tenant that may push so many bytes a second.
func (r *rig) limitTenant(perSecond, burst int, takes time.Duration) *tenant {
	loki := &tenant{bucket: rate.NewLimiter(rate.Limit(perSecond), burst), takes: takes}
	r.client.now, r.client.health.now, r.client.sleep = time.Now, time.Now, sleep
	r.client.http = &http.Client{Transport: loki}
	return loki
}

func (l *tenant) RoundTrip(request *http.Request) (*http.Response, error) {
	if err := sleep(request.Context(), l.takes); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return nil, err
	}
	bytes, err := snappy.DecodedLen(body)
	if err != nil {
		return nil, err
	}
	answer := httptest.NewRecorder()
	answer.Code = http.StatusNoContent
	if !l.bucket.AllowN(time.Now(), bytes) {
		http.Error(answer, lokitest.RateLimited("").Body, http.StatusTooManyRequests)
		bytes = 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer = append(l.answer, answered{time.Now(), bytes})
	return answer.Result(), nil
}

// since tells of the answers since a time.
func (l *tenant) since(from time.Time) (pushes, limited, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.answer {
		if a.at.Before(from) {
			continue
		}
		pushes++
		bytes += a.bytes
		if a.bytes == 0 {
			limited++
		}
	}
	return pushes, limited, bytes
}

// flood pushes as much as it can on several queues, and ends when done does.
func (r *rig) flood(done context.Context, queues, batchBytes int) *sync.WaitGroup {
	var all sync.WaitGroup
	line := make([]byte, 4000)
	for i := range queues {
		q := r.client.NewQueue(fmt.Sprint(i))
		all.Go(func() {
			for n := 0; ; {
				b := q.Batch()
				for b.Bytes() < batchBytes {
					n++
					b.Add(Entry{Stream: testEntry(n, "").Stream, Time: testTime.Add(time.Duration(n)), Line: line})
				}
				if err := q.Send(done, b, func() {}); err != nil {
					break
				}
			}
			ended, cancel := context.WithCancel(context.Background())
			cancel()
			_ = q.Drain(ended)
		})
	}
	return &all
}

// The limit of a tenant is approached, not hammered, and next to nothing of it is left unused.
func TestTheTenantsLimitIsApproached(t *testing.T) {
	const mib = 1 << 20
	for _, row := range []struct {
		name             string
		perSecond, burst int
		queues, inFlight int
		batch            int
		takes            time.Duration // to answer a push
		settles          time.Duration
		limited          float64 // share of the pushes after that, at the most
	}{
		{"Loki's default", 4 * mib, 6 * mib, 1, 2, mib, 20 * time.Millisecond, 10 * time.Second, 0.02},
		{"three paths", 4 * mib, 6 * mib, 3, 2, mib, 20 * time.Millisecond, 10 * time.Second, 0.02},
		{"far away", 4 * mib, 6 * mib, 1, 7, mib, 500 * time.Millisecond, 10 * time.Second, 0.02},
		{"small batches", 4 * mib, 6 * mib, 1, 2, mib / 10, 5 * time.Millisecond, 10 * time.Second, 0.005},
		{"hardly a burst", 4 * mib, 3 * mib / 2, 1, 2, mib, 20 * time.Millisecond, 100 * time.Second, 0.03},
		{"a large burst", 4 * mib, 60 * mib, 1, 2, mib, 20 * time.Millisecond, 20 * time.Second, 0.02},
		{"a slow tenant", mib / 5, 2 * mib, 1, 2, mib, 20 * time.Millisecond, 30 * time.Second, 0.15}, // a push takes five seconds
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.InFlight = row.inFlight }) // outside of the bubble, since it listens
			synctest.Test(t, func(t *testing.T) {
				const lasts = 2 * time.Minute
				loki := r.limitTenant(row.perSecond, row.burst, row.takes)
				done, stop := context.WithCancel(t.Context())
				all := r.flood(done, row.queues, row.batch)
				time.Sleep(row.settles)
				settled := time.Now()
				time.Sleep(lasts)
				pushes, limited, bytes := loki.since(settled)
				if r.metric("push_rate_limit_bytes", "") == 0 || r.metric("push_paced_seconds_total", "") == 0 {
					t.Error("the metrics do not tell of the pace")
				}
				stop()
				all.Wait()
				share := float64(bytes) / float64(row.perSecond) / lasts.Seconds()
				if float64(limited) > row.limited*float64(pushes) {
					t.Errorf("%d of %d pushes were answered 429", limited, pushes)
				}
				if share < 0.85 {
					t.Errorf("%.2f of the limit was used", share)
				}
				if r.log.count("Loki does not take pushes") != 0 {
					t.Errorf("a limit that is approached is no trouble; the log:\n%s", r.log.buf.String())
				}
				_, ever, _ := loki.since(time.Time{})
				if got := r.metric("rate_limited_total", scopeTenant); got != float64(ever) {
					t.Errorf("rate_limited_total is %v after %d answers 429", got, ever)
				}
				t.Logf("answered 429: %d of %d pushes, and %d before; %.3f of the limit was used", limited, pushes, ever-limited, share)
			})
		})
	}
}

// --loki-rate holds for all paths together, also before Loki has said anything, and also when the limit of the tenant is higher.
func TestTheRateIsACeiling(t *testing.T) {
	const perSecond, lasts = 1 << 20, time.Minute
	r := newRig(t, func(c *Config) { c.Rate = perSecond })
	if got := r.metric("push_rate_limit_bytes", ""); got != perSecond {
		t.Errorf("push_rate_limit_bytes is %v before the first push", got)
	}
	synctest.Test(t, func(t *testing.T) {
		loki := r.limitTenant(8*perSecond, 8*perSecond, 10*time.Millisecond)
		done, stop := context.WithCancel(t.Context())
		all := r.flood(done, 3, 100<<10)
		time.Sleep(lasts)
		_, limited, bytes := loki.since(time.Time{})
		stop()
		all.Wait()
		if share := float64(bytes) / perSecond / lasts.Seconds(); share < 0.97 || share > 1.03 || limited > 0 {
			t.Errorf("%.3f of the rate was used, with %d answers 429", share, limited)
		}
	})
}

// What is learnt of a limit is forgotten when no 429 has come for long: up to --loki-rate if that is given. An outage meanwhile makes
// nothing faster.
func TestALimitIsLifted(t *testing.T) {
	const mib = 1 << 20
	for _, row := range []struct{ ceiling, cut int }{{0, 8 * mib}, {5 * mib, 4 * mib}} {
		r := newRig(t, func(c *Config) { c.Rate = row.ceiling })
		throttle, now := r.client.throttle, testTime
		pace := func() int { return int(r.metric("push_rate_limit_bytes", "")) }
		throttle.stored(10*mib, now)
		throttle.limited(now, now)
		if got := pace(); got != row.cut {
			t.Errorf("cut to %d after 10 MiB in a second, under the ceiling %d; want %d", got, row.ceiling, row.cut)
		}
		if wait := throttle.reserve(4*row.cut, now); wait < 3*time.Second || wait > 4*time.Second {
			t.Errorf("the bytes of four seconds wait %v", wait)
		}
		throttle.stored(1, now.Add(time.Minute)) // the first after an outage
		if got := pace(); got < row.cut || got > row.cut*106/100 {
			t.Errorf("%d after an outage, %d before", got, row.cut)
		}
		throttle.stored(1, now.Add(liftAfter-1))
		if got := pace(); got == 0 || row.ceiling > 0 && got > row.ceiling {
			t.Errorf("%d before a limit is taken for gone", got)
		}
		throttle.stored(1, now.Add(liftAfter))
		if got := pace(); got != row.ceiling {
			t.Errorf("%d after %v without a 429, want %d", got, liftAfter, row.ceiling)
		}
	}
}

// Several pushes that are under way meet the same limit: that is one reason to be slower.
func TestALimitIsMetOnce(t *testing.T) {
	m := newThrottle(0, prometheus.NewGauge(prometheus.GaugeOpts{}))
	rateOf := func() int { return int(m.bucket.Limit()) }
	now := testTime
	m.limited(now, now)
	if m.bucket != nil {
		t.Error("a limit was made of nothing")
	}
	m.stored(10<<20, now)
	m.limited(now, now)
	first := rateOf()
	m.limited(now.Add(500*time.Millisecond), now.Add(600*time.Millisecond)) // too soon
	m.limited(now, now.Add(5*time.Second))                                  // began before
	if got := rateOf(); got != first {
		t.Errorf("cut from %d to %d by what says nothing new", first, got)
	}
	m.limited(now.Add(time.Second), now.Add(2*time.Second)) // nothing went through since
	if got := rateOf(); got != first/2 {
		t.Errorf("cut from %d to %d, want the half", first, got)
	}
	for i := range 30 {
		at := now.Add(time.Duration(i+2) * 2 * time.Second)
		m.limited(at, at)
	}
	if got := rateOf(); got != slowest {
		t.Errorf("cut to %d, want %d at the least", got, slowest)
	}
}

// A pause for the pace ends when the queue is given up.
func TestAPacedPushEndsWithItsQueue(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Rate = minStreamRate })
	r.client.sleep = sleep
	if err := r.queue.Send(t.Context(), r.batch(string(make([]byte, 1<<20))), func() { t.Error("acknowledged") }); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.queue.Drain(ended); !errors.Is(err, ErrAbandoned) {
		t.Errorf("Drain: %v", err)
	}
	if r.server.Requests() != 0 {
		t.Error("it was pushed at once")
	}
}

func TestWhoseLimitIsMet(t *testing.T) {
	const stream = `{user="ingestion rate limit exceeded for user x", verb="entry with timestamp 1 ignored, reason: 'Per stream rate limit exceeded "}`
	for _, row := range []struct{ body, want string }{
		{"ingestion rate limit exceeded for user fake (limit: 4194304 bytes/sec) while attempting to ingest '1000' lines totaling '1048576' bytes, reduce log volume", scopeTenant},
		{"Ingestion rate limit exceeded for user 29 (limit: 4194304 bytes/sec)", scopeTenant},
		{"entry with timestamp 2026-11-23 20:00:00 +0000 UTC ignored, reason: 'Per stream rate limit exceeded (limit: 3MB/sec) while attempting to ingest for stream '" + stream + "' totaling 1MB'", scopeStream},
		{"maximum active stream limit exceeded when trying to create stream " + stream, scopeOther},
		{"<html>429 Too Many Requests", scopeOther},
		{"", scopeOther},
	} {
		if got := scopeOf(row.body); got != row.want {
			t.Errorf("%s: %s, want %s", row.body, got, row.want)
		}
	}
	r := newRig(t, nil)
	r.server.Answer(lokitest.Sequence(lokitest.Refused(429, "slow down")))
	r.send("a")
	if r.metric("rate_limited_total", scopeOther) != 1 || r.metric("rate_limited_total", scopeTenant) != 0 || r.metric("push_rate_limit_bytes", "") != 0 {
		t.Error("a 429 that is not the tenant's changed the pace, or was not counted")
	}
}
