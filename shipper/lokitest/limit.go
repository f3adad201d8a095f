package lokitest

import (
	"net/http"
	"sync"
	"time"
)

// LikeLoki is a script that admits no more than limit streams, and no entry more than an hour behind the newest of its
// stream, and tells only the outcome of the last stream of a push, as Loki 3.7.8 does (DESIGN section 7): if that one was
// taken, the answer is 204, and what was refused of the others is gone without a word.
func LikeLoki(limit int) func(Request) Reply {
	var mu sync.Mutex
	newest := make(map[string]time.Time)
	return func(request Request) Reply {
		mu.Lock()
		defer mu.Unlock()
		type key struct {
			stream string
			time   int64
			line   [32]byte
		}
		refused := make(map[key]bool)
		reply := OK()
		last := ""
		for _, e := range request.Entries {
			if e.Stream != last {
				last, reply = e.Stream, OK()
			}
			status, text := http.StatusNoContent, ""
			head, known := newest[e.Stream]
			switch {
			case !known && len(newest) >= limit:
				status, text = http.StatusTooManyRequests, "Maximum active stream limit exceeded when trying to create stream "+e.Stream
			case known && head.Sub(e.Time) > time.Hour:
				status, text = http.StatusBadRequest, "entry with timestamp "+e.Time.String()+" ignored, reason: 'entry too far behind'"
			case e.Time.After(head):
				newest[e.Stream] = e.Time
			}
			if text != "" {
				refused[key{e.Stream, e.Time.UnixNano(), e.LineHash}] = true
				reply = Reply{Status: status, Body: text}
			}
		}
		reply.Store = func(e Entry) bool { return !refused[key{e.Stream, e.Time.UnixNano(), e.LineHash}] }
		return reply
	}
}
