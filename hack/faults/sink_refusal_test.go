//go:build e2e

package faults

import (
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

func init() {
	register(
		scenario{side: "sink", name: "refuses one event in 500", play: refusesSome, refuses: true},
		scenario{side: "sink", name: "413 over 48 KiB", play: tooLarge},
		scenario{side: "sink", name: "refuses all until dead letters are full", play: refusalFlood, refuses: true,
			flags: []string{"--dead-letter-max-size=64KiB"}},
		scenario{side: "sink", name: "admits 20 streams, answers 204", play: streamLimit},
	)
}

// refusesSome is Loki that takes a batch but for the events that are too old in its eyes.
func refusesSome(r *run) {
	refused := 0
	reason := func(e lokitest.Entry) string {
		n, known := r.ledger.number(e.LineHash)
		if !known || n%500 != 250 {
			return ""
		}
		return "entry for stream '" + e.Stream + "' has timestamp too old"
	}
	r.answer("push", func(request lokitest.Request) lokitest.Reply {
		reply := lokitest.Refusing(request, reason)
		if reply.Status == http.StatusBadRequest {
			r.happened("refused")
		}
		return reply
	})
	w := r.rotating()
	r.write(w, 3000)
	for n := range r.ledger.list() {
		if n%500 == 250 {
			refused++
		}
	}
	r.start()
	r.eventually("the refused events are dead letters", func() bool { return len(r.look().dead) >= refused })
	if n := r.times("refused"); n < refused {
		r.Errorf("%d pushes were refused, want at least %d", n, refused)
	}
	r.waitDelivered()
	letters := r.look().dead
	for n, line := range r.ledger.list() {
		if dead := letters[line.hash]; dead != (n%500 == 250) {
			r.Errorf("line %d: it is a dead letter: %t", n, dead)
		}
	}
	r.waitAcknowledged()
	if dropped := int(r.metric("auditferry_dropped_entries_total")); dropped != refused {
		r.Errorf("auditferry_dropped_entries_total is %d, Loki refused %d events", dropped, refused)
	}
}

// tooLarge is a proxy before Loki with a limit below the size of a batch, and above that of any event.
func tooLarge(r *run) {
	r.answer("push", func(request lokitest.Request) lokitest.Reply {
		if request.Packed <= 48<<10 {
			return lokitest.OK()
		}
		r.happened("413")
		return lokitest.Refused(http.StatusRequestEntityTooLarge, "413 Request Entity Too Large")
	})
	// Streams together: confirmed first, one by one.
	r.start()
	w := r.rotating()
	r.write(w, 673)
	r.delivered(673)
	r.write(w, 3000)
	r.eventually("a push was too large, and the agent has learnt from it", func() bool {
		return r.times("413") >= 1 && r.metric("auditferry_batch_limit_bytes") > 0
	})
	r.waitDelivered()
	learnt := r.times("413")
	r.write(w, 3000)
	r.waitDelivered()
	if more := r.times("413") - learnt; more > learnt {
		r.Errorf("%d pushes were too large, and %d more when that was known", learnt, more)
	}
}

// refusalFlood is a fault of Loki's configuration that looks like one of the events. The dead-letter file may not swallow them all.
func refusalFlood(r *run) {
	r.answer("refused", func(request lokitest.Request) lokitest.Reply {
		return lokitest.Refusing(request, func(lokitest.Entry) string { return "label name 'cluster' is not allowed" })
	})
	r.start()
	r.write(r.rotating(), 3000)
	r.eventually("pushing has stopped", func() bool {
		return r.logged("Loki does not take pushes", "reason=dead_letter", "--dead-letter-max-size")
	})
	before := r.times("refused")
	r.eventually("the refused are tried again", func() bool { return r.times("refused") >= before+20 })
	letters := r.deadLetters()
	if len(letters) == 0 || len(letters) >= 500 {
		r.Errorf("%d dead letters", len(letters))
	}
	r.eventually("as many are counted as there are dead letters", func() bool {
		return int(r.metric("auditferry_dropped_entries_total")) == len(r.deadLetters())
	})
	files, err := filepath.Glob(filepath.Join(r.agent.Dir, "dead-letters*.jsonl"))
	r.must(err)
	var size int64
	for _, file := range files {
		info, err := os.Stat(file)
		r.must(err)
		size += info.Size()
	}
	if size > 64<<10 {
		r.Errorf("the dead letters take %d bytes, with --dead-letter-max-size=64KiB", size)
	}
	r.checkPosition()
	r.server.Answer(nil)
}

// streamLimit is the 204 that lies: what Loki says is true of the last stream of a push only. So streams that are over the limit
// are written before one that is not.
func streamLimit(r *run) {
	script := lokitest.LikeLoki(20)
	r.answer("push", func(request lokitest.Request) lokitest.Reply {
		reply := script(request)
		if reply.Status == http.StatusTooManyRequests {
			r.happened("429")
		}
		return reply
	})
	r.start()
	w := r.rotating()
	admitted, over := newEvents(r.T, false), newEvents(r.T, false)
	admitted.keep(fewStreams)
	over.keep(func(line []byte) bool { return !fewStreams(line) })
	r.events = admitted
	r.write(w, 200)
	r.delivered(200)
	streams := len(r.server.Streams())
	if streams >= 20 {
		r.Fatalf("%d streams are no few", streams)
	}
	for range 6 {
		r.events = over
		r.write(w, 60)
		r.events = admitted
		r.write(w, 1)
		r.pass(500 * time.Millisecond) // a batch of its own: it is pushed after 200 ms
	}
	r.events = over
	r.write(w, 300)
	r.eventually("streams were refused", func() bool { return r.times("429") >= 100 && len(r.server.Streams()) == 20 })
	r.saysAway()
	r.checkPosition()
	r.answer("push", lokitest.LikeLoki(1000))
	r.write(w, 1000)
}
