package lokitest

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/grafana/loki/pkg/push"
)

func body(t *testing.T, streams ...push.Stream) []byte {
	t.Helper()
	plain, err := (&push.PushRequest{Streams: streams}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return snappy.Encode(nil, plain)
}

func entry(line string, metadata ...push.LabelAdapter) push.Entry {
	return push.Entry{Timestamp: time.Unix(1, 2000), Line: line, StructuredMetadata: metadata}
}

func post(t *testing.T, url, kind string, body []byte) int {
	t.Helper()
	response, err := http.Post(url, kind, bytes.NewReader(body))
	if err != nil {
		return 0
	}
	if err := response.Body.Close(); err != nil {
		t.Error(err)
	}
	return response.StatusCode
}

func started(t *testing.T, options ...Option) (*Server, string) {
	t.Helper()
	s := New(options...)
	url, err := s.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, url
}

func TestWhatIsRefused(t *testing.T) {
	s, url := started(t)
	const protobuf = "application/x-protobuf"
	one := func(labels string) []byte {
		return body(t, push.Stream{Labels: labels, Entries: []push.Entry{entry("x")}})
	}
	for _, row := range []struct {
		name, path, kind string
		body             []byte
		want             int
	}{
		{"a push", PushPath, protobuf, one(`{a="b"}`), 204},
		{"behind a prefix", "/proxy" + PushPath, protobuf, one(`{a="b", c="\"}, x"}`), 204},
		{"another path", "/push", protobuf, one(`{a="b"}`), 404},
		{"JSON", PushPath, "application/json", []byte("{}"), 415},
		{"no snappy", PushPath, protobuf, []byte("xyz"), 400},
		{"no protobuf", PushPath, protobuf, snappy.Encode(nil, []byte("xyz")), 400},
		{"no streams", PushPath, protobuf, body(t), 422},
		{"no labels", PushPath, protobuf, one(`{}`), 400},
		{"an unquoted value", PushPath, protobuf, one(`{a=b}`), 400},
		{"a name twice", PushPath, protobuf, one(`{a="b",a="c"}`), 400},
		{"a bad name", PushPath, protobuf, one(`{a-b="c"}`), 400},
		{"no end", PushPath, protobuf, one(`{a="b"`), 400},
	} {
		if got := post(t, url+row.path, row.kind, row.body); got != row.want {
			t.Errorf("%s: %d, want %d", row.name, got, row.want)
		}
	}
	if s.Requests() != 2 || s.Arrivals() != 2 {
		t.Errorf("%d requests, %d arrivals", s.Requests(), s.Arrivals())
	}
}

func TestRepeatsAreShownOnce(t *testing.T) {
	for _, options := range [][]Option{nil, {HashLines()}} {
		s, url := started(t, options...)
		a := push.Stream{Labels: `{job="x",a="1"}`, Entries: []push.Entry{entry("one", push.LabelAdapter{Name: "m", Value: "1"}), entry("one"), entry("two")}}
		b := push.Stream{Labels: `{a="1", job="y"}`, Entries: []push.Entry{entry("one")}}
		s.Answer(Sequence(Stored(500, "x"), OK()))
		post(t, url+PushPath, "application/x-protobuf", body(t, a, b))
		a.Labels = `{ a="1", job="x" }` // the same set
		post(t, url+PushPath, "application/x-protobuf", body(t, a))
		entries := s.Entries()
		if len(entries) != 4 || s.Arrivals() != 7 {
			t.Fatalf("%d entries, %d arrivals", len(entries), s.Arrivals())
		}
		if e := entries[0]; e.Count != 2 || e.Acked != 1 || e.Bytes != 3 || e.Stream != `{a="1", job="x"}` || e.Labels["job"] != "x" || !e.Time.Equal(time.Unix(1, 2000)) {
			t.Errorf("%+v", e)
		}
		if e := entries[3]; e.Count != 1 || e.Acked != 0 {
			t.Errorf("%+v", e)
		}
		if hashed := options != nil; (entries[2].Line == "") != hashed || entries[2].LineHash == entries[1].LineHash {
			t.Errorf("%+v", entries[2])
		}
		sum := s.Streams()
		if len(sum) != 2 || sum[0].Stream != `{a="1", job="x"}` || sum[0].Entries != 3 || sum[0].Bytes != 9 || sum[1].Entries != 1 {
			t.Errorf("%+v", sum)
		}
	}
}

func TestReplies(t *testing.T) {
	released := make(chan struct{})
	for _, row := range []struct {
		name         string
		reply        Reply
		want, stored int
	}{
		{"OK", OK(), 204, 2},
		{"the zero reply says 204 and stores nothing", Reply{}, 204, 0},
		{"Refused", Refused(503, "x"), 503, 0},
		{"Stored", Stored(500, "x"), 500, 2},
		{"Cut", Cut(), 0, 0},
		{"StoredCut", StoredCut(), 0, 2},
		{"CutShort", CutShort("HTTP/1.1 204 No Content\r\nDa"), 0, 0},
		{"RateLimited", RateLimited("3"), 429, 0},
		{"After", After(released, OK()), 204, 2},
	} {
		s, url := started(t)
		s.Answer(func(Request) Reply { return row.reply })
		push := body(t, push.Stream{Labels: `{a="b"}`, Entries: []push.Entry{entry("one"), entry("two")}})
		done := make(chan int)
		go func() { done <- post(t, url+PushPath, "application/x-protobuf", push) }()
		if row.name == "After" {
			for s.Arrivals() == 0 {
				runtime.Gosched()
			}
			close(released)
		}
		if got := <-done; got != row.want || s.Arrivals() != row.stored {
			t.Errorf("%s: %d, %d stored", row.name, got, s.Arrivals())
		}
	}
}

func TestRefusing(t *testing.T) {
	s, url := started(t)
	s.Answer(func(r Request) Reply {
		return Refusing(r, func(e Entry) string {
			if strings.HasPrefix(e.Line, "bad") {
				return "too bad"
			}
			return ""
		})
	})
	bad := push.Stream{Labels: `{a="b"}`, Entries: []push.Entry{entry("one"), entry("bad")}}
	if got := post(t, url+PushPath, "application/x-protobuf", body(t, bad)); got != 400 || len(s.Entries()) != 1 {
		t.Errorf("%d, %v", got, s.Entries())
	}
	bad.Entries = bad.Entries[:1]
	if got := post(t, url+PushPath, "application/x-protobuf", body(t, bad)); got != 204 {
		t.Errorf("%d", got)
	}
}

func TestMaxLine(t *testing.T) {
	s, url := started(t)
	s.Answer(MaxLine(3))
	long := push.Stream{Labels: `{a="b"}`, Entries: []push.Entry{entry("four"), entry("one", push.LabelAdapter{Name: "m", Value: "1234"})}}
	if got := post(t, url+PushPath, "application/x-protobuf", body(t, long)); got != 400 || len(s.Entries()) != 1 || s.Entries()[0].Line != "one" {
		t.Errorf("%d, %v", got, s.Entries())
	}
}

// Close ends what hangs; Start is at the same address again, with what was stored.
func TestOutage(t *testing.T) {
	s, url := started(t)
	one := body(t, push.Stream{Labels: `{a="b"}`, Entries: []push.Entry{entry("one")}})
	post(t, url+PushPath, "application/x-protobuf", one)
	s.Answer(func(Request) Reply { return Hang() })
	done := make(chan int)
	go func() { done <- post(t, url+PushPath, "application/x-protobuf", one) }()
	for s.Requests() < 2 {
		runtime.Gosched()
	}
	s.Close()
	if got := <-done; got != 0 {
		t.Errorf("a push that hangs was answered %d", got)
	}
	if got := post(t, url+PushPath, "application/x-protobuf", one); got != 0 {
		t.Errorf("answered %d while closed", got)
	}
	again, err := s.Start()
	if err != nil || again != url {
		t.Fatalf("%s, %v; before %s", again, err, url)
	}
	s.Answer(nil)
	if got := post(t, url+PushPath, "application/x-protobuf", one); got != 204 || len(s.Entries()) != 1 || s.Arrivals() != 2 {
		t.Errorf("%d, %d arrivals", got, s.Arrivals())
	}
}

// A request that was read to its end before Close, and comes to be answered after it, is part of the outage.
func TestNothingIsStoredAfterClose(t *testing.T) {
	s, _ := started(t)
	s.Close()
	func() {
		defer func() {
			if err, _ := recover().(error); !errors.Is(err, http.ErrAbortHandler) {
				t.Errorf("recovered %v, want the connection to be closed", err)
			}
		}()
		request := httptest.NewRequest(http.MethodPost, PushPath, bytes.NewReader(body(t,
			push.Stream{Labels: `{job="x"}`, Entries: []push.Entry{entry("late")}})))
		request.Header.Set("Content-Type", "application/x-protobuf")
		s.ServeHTTP(httptest.NewRecorder(), request)
	}()
	if n := len(s.Entries()); n != 0 {
		t.Errorf("%d entries were stored after Close", n)
	}
}
