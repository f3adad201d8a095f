package lokitest

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// A Request is one valid push, as a script sees it.
type Request struct {
	Number  int // 1 for the first valid push of the server
	Header  http.Header
	Tenant  string // X-Scope-OrgID
	Packed  int64  // bytes of the body as sent
	Entries []Entry
}

// A Reply says what becomes of a push. Store and the rest are apart: Loki may store and fail, or answer 204 and not store.
type Reply struct {
	Status int // 204 if 0
	Body   string
	Header http.Header
	// Store says of each entry whether it is stored, before anything is answered. Nil stores none.
	Store func(Entry) bool
	// Wait, if not nil, holds the answer (not the storing) until it is closed or the client has gone.
	Wait <-chan struct{}
	// Hang never answers: the request ends when the client or the server goes.
	Hang bool
	// Cut closes the connection instead of an answer.
	Cut bool
	// Raw, if not empty, is sent as it is instead of an answer; then the connection is closed. HTTP/1 only.
	Raw string
}

// All is a Reply.Store that stores every entry.
func All(Entry) bool { return true }

// OK stores everything and answers 204.
func OK() Reply { return Reply{Status: http.StatusNoContent, Store: All} }

// Refused stores nothing and answers status with body.
func Refused(status int, body string) Reply { return Reply{Status: status, Body: body} }

// Stored stores everything, and answers status with body all the same.
func Stored(status int, body string) Reply { return Reply{Status: status, Body: body, Store: All} }

// RateLimited stores nothing and answers 429, with retryAfter as the header Retry-After unless it is empty.
func RateLimited(retryAfter string) Reply {
	r := Refused(http.StatusTooManyRequests, "ingestion rate limit exceeded for user fake (limit: 4194304 bytes/sec)")
	if retryAfter != "" {
		r.Header = http.Header{"Retry-After": {retryAfter}}
	}
	return r
}

// Hang stores nothing and never answers.
func Hang() Reply { return Reply{Hang: true} }

// Cut stores nothing and closes the connection.
func Cut() Reply { return Reply{Cut: true} }

// StoredCut stores everything and closes the connection: the client cannot know.
func StoredCut() Reply { return Reply{Cut: true, Store: All} }

// CutShort stores nothing, sends the beginning of an answer and closes the connection.
func CutShort(beginning string) Reply { return Reply{Raw: beginning} }

// After gives the reply once released is closed; it stores at once.
func After(released <-chan struct{}, reply Reply) Reply {
	reply.Wait = released
	return reply
}

// Refusing answers as Loki does to entries that it does not take: those for which reason gives a text are not stored,
// all others are; 400 with the first of the texts if there is one, else 204.
func Refusing(request Request, reason func(Entry) string) Reply {
	reply := OK()
	reply.Store = func(e Entry) bool { return reason(e) == "" }
	for _, e := range request.Entries {
		if text := reason(e); text != "" {
			reply.Status, reply.Body = http.StatusBadRequest, text
			break
		}
	}
	return reply
}

// MaxLine is a script that refuses lines longer than limit bytes, in Loki's words (Loki pkg/validation/validate.go,
// LineTooLongErrorMsg), and stores all others.
func MaxLine(limit int) func(Request) Reply {
	return func(request Request) Reply {
		return Refusing(request, func(e Entry) string {
			if e.Bytes <= limit {
				return ""
			}
			return fmt.Sprintf("max entry size '%d' bytes exceeded for stream '%s' while adding an entry with length '%d' bytes", limit, e.Stream, e.Bytes)
		})
	}
}

// Sequence is a script that gives the replies in order, one for each push, and OK from then on.
func Sequence(replies ...Reply) func(Request) Reply {
	var mu sync.Mutex
	return func(Request) Reply {
		mu.Lock()
		defer mu.Unlock()
		if len(replies) == 0 {
			return OK()
		}
		next := replies[0]
		replies = replies[1:]
		return next
	}
}

func (r Reply) send(w http.ResponseWriter, request *http.Request) {
	cut := r.Cut || r.Raw != ""
	switch {
	case r.Hang:
		<-request.Context().Done()
		cut = true
	case r.Wait != nil:
		select {
		case <-r.Wait:
		case <-request.Context().Done():
			cut = true
		}
	}
	if r.Raw != "" {
		sendRaw(w, r.Raw)
	}
	if cut {
		panic(http.ErrAbortHandler) // net/http's way to close a connection; a return would be an answer, 200
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	for name, values := range r.Header {
		w.Header()[name] = values
	}
	status := r.Status
	if status == 0 {
		status = http.StatusNoContent
	}
	w.WriteHeader(status)
	if r.Body != "" {
		_, _ = io.WriteString(w, strings.TrimSuffix(r.Body, "\n")+"\n") // a client that has gone does not matter
	}
}

// sendRaw writes text on the connection of w, past net/http, and closes it.
func sendRaw(w http.ResponseWriter, text string) {
	connection, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return // HTTP/2 has no text to send; the connection is closed all the same
	}
	_, _ = io.WriteString(connection, text) // a client that has gone does not matter
	_ = connection.Close()
}
