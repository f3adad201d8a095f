//go:build e2e

package faults

import (
	"net/http"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

func init() {
	register(
		scenario{side: "sink", name: "429 for 30 % of requests", play: func(r *run) {
			r.answer("request", func(request lokitest.Request) lokitest.Reply {
				if request.Number%10 < 3 {
					r.happened("429")
					return lokitest.RateLimited("")
				}
				return lokitest.OK()
			})
			r.start()
			r.write(r.rotating(), 6000)
			r.eventually("100 requests were answered 429", func() bool { return r.times("429") >= 100 })
		}},
		scenario{side: "sink", name: "500 for a while", play: func(r *run) {
			outage(r, lokitest.Refused(http.StatusInternalServerError, "ingester gone"), 10)
		}},
	)
}

// outage lets Loki give one reply for so many requests, in the middle of a stream of events, and then work again.
func outage(r *run, reply lokitest.Reply, requests int) {
	r.Helper()
	w := r.rotating()
	r.start()
	r.write(w, 700)
	r.delivered(700)
	r.answer("fault", always(reply))
	r.write(w, 2000)
	r.eventually("the fault has lasted", func() bool { return r.times("fault") >= requests })
	if n := len(r.server.Entries()); reply.Store == nil && n != 700 {
		r.Errorf("%d entries are in Loki, which took 700", n)
	}
	r.server.Answer(nil)
}
