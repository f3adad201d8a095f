//go:build e2e

package faults

import (
	"bytes"
	"net/http"
	"sync"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

func init() {
	register(
		scenario{side: "sink", name: "429 for 30 % of requests", play: sometimesLimited},
		scenario{side: "sink", name: "429 for 60 s", play: func(r *run) {
			r.answer("fault", always(lokitest.RateLimited("")))
			r.start()
			stop := r.keepWriting(rig.WriterConfig{MaxSize: 1, PerSecond: 40})
			r.pass(time.Minute)
			r.mustBeAway("rate_limited", 60)
			r.server.Answer(nil)
			stop()
		}},
		scenario{side: "sink", name: "500 for a while", play: func(r *run) {
			outage(r, 60, lokitest.Refused(http.StatusInternalServerError, "ingester gone"))
		}},
		scenario{side: "sink", name: "503 with Retry-After", play: retryAfter},
		scenario{side: "sink", name: "stored, but answered 500", play: func(r *run) {
			outage(r, 60, lokitest.Stored(http.StatusInternalServerError, "at least 2 live replicas required"))
			r.mustHaveRepeated()
		}},
		scenario{side: "sink", name: "260: dropped by Loki", play: func(r *run) {
			outage(r, 60, lokitest.Refused(260, "ingestion blocked for user"))
		}},
		scenario{side: "sink", name: "answers after 2 s", play: slow},
		scenario{side: "sink", name: "redirects 302 and 307", play: redirects},
	)
}

// outage lets Loki give replies by turns, for so many requests, in the middle of a stream of events, and then work again.
func outage(r *run, requests int, replies ...lokitest.Reply) {
	r.Helper()
	w := r.rotating()
	r.start()
	r.write(w, 700)
	r.delivered(700)
	r.answer("fault", func(request lokitest.Request) lokitest.Reply { return replies[request.Number%len(replies)] })
	r.write(w, 2000)
	r.eventually("the fault has lasted", func() bool { return r.times("fault") >= requests })
	r.saysAway()
	r.checkPosition()
	r.server.Answer(nil)
}

// mustBeAway fails the scenario unless Loki has misbehaved often enough and taken nothing, and the agent says so.
func (r *run) mustBeAway(reason string, atLeast int) {
	r.Helper()
	if n := r.times("fault"); n < atLeast {
		r.Errorf("the fault happened %d times, want %d", n, atLeast)
	}
	if n := len(r.server.Entries()); n != 0 {
		r.Errorf("%d entries are in Loki, which took none", n)
	}
	if !r.logged("Loki does not take pushes", "reason="+reason) {
		r.Errorf("the agent did not log the reason %s", reason)
	}
}

// mustHaveRepeated fails the scenario unless something was stored twice: only then it matters that log queries do not show it.
func (r *run) mustHaveRepeated() {
	r.Helper()
	r.eventually("something was stored twice", func() bool { return r.server.Arrivals() > len(r.server.Entries()) })
}

// sometimesLimited refuses whatever the rate is, which the agent takes for its own rate: it goes on at the slowest that it has.
func sometimesLimited(r *run) {
	r.answer("request", func(request lokitest.Request) lokitest.Reply {
		if request.Number%10 < 3 {
			r.happened("429")
			return lokitest.RateLimited("")
		}
		return lokitest.OK()
	})
	r.start()
	r.write(r.rotating(), 1000)
	r.eventually("100 requests were answered 429", func() bool { return r.times("429") >= 100 })
}

// fewStreams keeps events of one resource: less than ten streams, so that a start does not meet hundreds.
func fewStreams(line []byte) bool {
	return bytes.Contains(line, []byte(`"objectRef":{"resource":"namespaces"`))
}

// retryAfter has Loki demand two seconds, where the agent's own pause is half of one at most.
func retryAfter(r *run) {
	r.events.keep(fewStreams)
	reply := lokitest.Refused(http.StatusServiceUnavailable, "shutting down")
	reply.Header = http.Header{"Retry-After": {"2"}}
	var mu sync.Mutex
	asked := map[[32]byte]time.Time{} // when, by the first line of the push
	r.answer("fault", func(request lokitest.Request) lokitest.Reply {
		mu.Lock()
		defer mu.Unlock()
		line := request.Entries[0].LineHash
		if last, again := asked[line]; again && time.Since(last) < 1900*time.Millisecond {
			r.happened("too early")
		} else if again {
			r.happened("in time")
		}
		asked[line] = time.Now()
		return reply
	})
	r.start()
	r.write(r.rotating(), 1000)
	r.eventually("pushes were made again", func() bool { return r.times("in time") >= 20 && r.logged("Loki does not take pushes") })
	if n := r.times("too early"); n > 0 {
		r.Errorf("%d pushes were made again before the time that Retry-After names", n)
	}
	r.mustBeAway("unavailable", 20)
	r.server.Answer(nil)
}

// slow is Loki that stores at once and answers late. The position waits for the answers, and nothing is pushed again meanwhile.
func slow(r *run) {
	r.events.keep(fewStreams)
	r.answer("slow", func(lokitest.Request) lokitest.Reply {
		released := make(chan struct{})
		time.AfterFunc(2*time.Second, func() {
			r.happened("answered")
			close(released)
		})
		return lokitest.After(released, lokitest.OK())
	})
	r.start()
	r.write(r.rotating(), 2000)
	r.eventually("a push is under way", func() bool { return r.times("slow") > 0 })
	for r.times("answered") == 0 {
		if at := r.positionOnDisk(); at > 0 && r.times("answered") == 0 {
			r.Fatalf("the position is after %d bytes before the first answer", at)
		}
		r.pass(50 * time.Millisecond)
	}
	r.eventually("10 answers were slow", func() bool { return r.times("answered") >= 10 })
	r.waitDelivered()
	if again := r.server.Arrivals() - len(r.server.Entries()); again != 0 {
		r.Errorf("%d entries were pushed again, though each push was answered", again)
	}
}

// redirects point to a server that would take anything: nobody told the agent that it may be trusted with audit events.
func redirects(r *run) {
	trap := lokitest.New()
	url, err := trap.Start()
	r.must(err)
	r.Cleanup(trap.Close)
	r.start()
	w := r.rotating()
	for _, status := range []int{http.StatusFound, http.StatusTemporaryRedirect} {
		before := r.times("redirected")
		reply := lokitest.Refused(status, "")
		reply.Header = http.Header{"Location": {url + lokitest.PushPath}}
		r.answer("redirected", always(reply))
		r.write(w, 700)
		r.eventually("pushes were redirected", func() bool { return r.times("redirected") >= before+10 })
		r.saysAway()
		r.server.Answer(nil)
		r.delivered(len(r.ledger.list()))
	}
	for _, reason := range []string{"reason=http_302", "reason=http_307"} {
		if !r.logged("Loki does not take pushes", reason, "--loki-url") {
			r.Errorf("the agent did not log %s", reason)
		}
	}
	if n := trap.Requests(); n > 0 {
		r.Errorf("%d pushes followed a redirect", n)
	}
}
