package shipper

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

// deliver sends entries in one batch and waits until they are acknowledged.
func (r *rig) deliver(entries ...Entry) {
	r.t.Helper()
	b := r.queue.Batch()
	for _, e := range entries {
		b.Add(e)
	}
	if err := r.queue.Send(r.t.Context(), b, func() {}); err != nil {
		r.t.Fatal(err)
	}
	if err := r.queue.Drain(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

func at(stream int, d time.Duration) Entry {
	return Entry{Stream: fmt.Sprintf(`{job="test", n="%d"}`, stream), Time: testTime.Add(d), Line: fmt.Appendf(nil, "%d at %v", stream, d)}
}

// What Loki is known to have admitted shares a push; what is in doubt goes alone.
func TestStreamsInDoubtGoAlone(t *testing.T) {
	r := newRig(t, nil)
	var mu sync.Mutex
	var pushes []string // the streams of each push
	r.server.Answer(func(request lokitest.Request) lokitest.Reply {
		mu.Lock()
		defer mu.Unlock()
		var streams []string
		for _, e := range request.Entries {
			streams = append(streams, e.Labels["n"])
		}
		pushes = append(pushes, strings.Join(slices.Compact(streams), "+"))
		return lokitest.OK()
	})
	for _, step := range []struct {
		name    string
		pass    time.Duration
		entries []Entry
		want    string
	}{
		{"new streams", 0, []Entry{at(0, 0), at(1, 0), at(0, 1)}, "0 1"},
		{"admitted ones", time.Second, []Entry{at(0, 2), at(1, 2)}, "0+1"},
		{"one more", time.Second, []Entry{at(2, 3), at(0, 3), at(1, 3)}, "0+1 2"},
		{"far behind the newest sent before", time.Second, []Entry{at(0, -2*time.Hour), at(1, 4), at(2, 4)}, "0 1+2"},
		{"far behind in the same batch", time.Second, []Entry{at(0, 3*time.Hour), at(0, 5), at(1, 5), at(2, 5)}, "0 1+2"},
		{"not confirmed for long", confirmedFor - 3*time.Second, []Entry{at(1, 6), at(2, 6)}, "1 2"},
		{"confirmed again", time.Second, []Entry{at(1, 7), at(2, 7)}, "1+2"},
	} {
		pushes = nil
		r.pass(step.pass)
		r.deliver(step.entries...)
		slices.Sort(pushes) // those alone are made side by side
		if got := strings.Join(pushes, " "); got != step.want {
			t.Errorf("%s: pushes of %q, want %q", step.name, got, step.want)
		}
	}
}

// A Loki that admits 20 streams, and tells the outcome of the last stream of a push only, is pushed 60. Nothing may be taken
// for stored that is not, and all of it is there once the limit is raised.
func TestNothingIsLostOverTheStreamLimit(t *testing.T) {
	r := newRig(t, nil)
	limited, open := lokitest.LikeLoki(20), lokitest.LikeLoki(60)
	var mu sync.Mutex
	refusals := 0
	r.server.Answer(func(request lokitest.Request) lokitest.Reply {
		mu.Lock()
		defer mu.Unlock()
		reply := limited(request)
		if reply.Status == 429 {
			refusals++
		}
		if refusals > 100 {
			return open(request)
		}
		return reply
	})
	var entries []Entry
	for i := range 20 {
		entries = append(entries, at(i, 0))
	}
	r.deliver(entries...)
	for round := range 5 {
		var part []Entry
		for i := range 60 { // those that are admitted come last, so that the answer is 204
			part = append(part, at(59-i, time.Duration(1+round)))
		}
		r.deliver(part...)
		entries = append(entries, part...)
	}
	if got := len(r.server.Entries()); got != len(entries) {
		t.Errorf("%d entries are in Loki, want %d", got, len(entries))
	}
	if r.log.count("Maximum active stream limit exceeded") == 0 {
		t.Error("nobody was told of the limit")
	}
}

// Entries that are too far behind are refused one by one, and said to be, though the answer tells of one stream only.
func TestNothingTooFarBehindIsLostInSilence(t *testing.T) {
	r := newRig(t, nil)
	r.server.Answer(lokitest.LikeLoki(1000))
	r.deliver(at(0, 3*time.Hour), at(1, 3*time.Hour), at(2, 3*time.Hour))
	r.deliver(at(0, 0), at(1, 0), at(1, 3*time.Hour+1), at(2, 3*time.Hour+1))
	stored, dropped := len(r.server.Entries()), int(r.metric("dropped_entries_total", reasonBehind))
	if stored != 5 || dropped != 2 {
		t.Errorf("%d entries are stored and %d are dead letters, want 5 and 2", stored, dropped)
	}
}

// A stream with more bytes than may be pushed at once is cut, and an attempt at its first part can fail: the later parts wait,
// though other streams do not.
func TestPartsOfAStreamKeepTheirOrder(t *testing.T) {
	r := newRig(t, func(cfg *Config) { cfg.StreamRate = 64 << 10 })
	like := lokitest.LikeLoki(1000)
	failed := false
	var mu sync.Mutex
	r.server.Answer(func(request lokitest.Request) lokitest.Reply {
		mu.Lock()
		defer mu.Unlock()
		if !failed && request.Entries[0].Time.Equal(testTime) {
			failed = true
			return lokitest.Refused(500, "ingester gone")
		}
		return like(request)
	})
	var entries []Entry
	for i := range 16 {
		e := at(0, time.Duration(i)*20*time.Minute)
		e.Line = bytes.Repeat([]byte{byte('a' + i)}, 10<<10)
		entries = append(entries, e)
	}
	r.deliver(entries...)
	if stored, dropped := len(r.server.Entries()), r.metric("dropped_entries_total", reasonBehind); stored != 16 || dropped != 0 {
		t.Errorf("%d entries are stored and %v are dead letters, want 16 and 0", stored, dropped)
	}
}

// An outage of an hour: Loki may have forgotten streams that were confirmed before it, so what was to share a push goes
// alone after it.
func TestNothingIsLostWhenAnOutageOutlastsAConfirmation(t *testing.T) {
	r := newRig(t, nil)
	r.deliver(at(0, 0), at(1, 0), at(2, 0))
	start := r.client.now()
	known := []lokitest.Entry{{Stream: at(2, 0).Stream, Time: testTime}}
	full, open := lokitest.LikeLoki(1), lokitest.LikeLoki(3)
	full(lokitest.Request{Entries: known})
	r.server.Answer(func(request lokitest.Request) lokitest.Reply {
		switch away := r.client.now().Sub(start); {
		case away < time.Hour:
			return lokitest.Refused(503, "away")
		case away < 2*time.Hour:
			return full(request)
		}
		return open(request)
	})
	r.deliver(at(0, 1), at(1, 1), at(2, 1))
	if got := len(r.server.Entries()); got != 6 {
		t.Errorf("%d entries are in Loki, want 6", got)
	}
}

// A batch with much newer entries waits for the one before it: it would make Loki refuse that.
func TestNoBatchOvertakesAMuchOlderOne(t *testing.T) {
	r := newRig(t, nil)
	like := lokitest.LikeLoki(100)
	var mu sync.Mutex
	r.server.Answer(func(request lokitest.Request) lokitest.Reply {
		mu.Lock()
		defer mu.Unlock()
		return like(request)
	})
	for _, shift := range []time.Duration{0, 2 * time.Hour, 4 * time.Hour} {
		b := r.queue.Batch()
		for i := range 50 {
			b.Add(at((i*7+int(shift/time.Hour))%50, shift))
		}
		if err := r.queue.Send(t.Context(), b, func() {}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.queue.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if stored, dropped := len(r.server.Entries()), r.metric("dropped_entries_total", reasonBehind); stored != 150 || dropped != 0 {
		t.Errorf("%d entries are stored and %v are dead letters, want 150 and none", stored, dropped)
	}
}

// What was refused together is cut by streams: half of it could be answered by another stream again.
func TestARefusedPushIsCutByStreams(t *testing.T) {
	r := newRig(t, nil)
	r.deliver(at(0, 0), at(1, 0), at(2, 0), at(3, 0))
	// Loki knows newer entries of the first and the last stream than we do.
	like := lokitest.LikeLoki(100)
	like(lokitest.Request{Entries: []lokitest.Entry{{Stream: at(0, 0).Stream, Time: testTime.Add(3 * time.Hour)},
		{Stream: at(3, 0).Stream, Time: testTime.Add(3 * time.Hour)}}})
	r.server.Answer(like)
	r.deliver(at(0, 1), at(1, 1), at(2, 1), at(3, 1))
	if stored, dropped := len(r.server.Entries()), r.metric("dropped_entries_total", reasonBehind); stored != 6 || dropped != 2 {
		t.Errorf("%d entries are stored and %v are dead letters, want 6 and 2", stored, dropped)
	}
}

func TestRollForgetsStreams(t *testing.T) {
	r := newRoll()
	now := testTime
	for i := range 3 * knownStreams {
		var b Batch
		b.Add(at(i, 0))
		_, alone := r.plan(&b, 0, now)
		for _, parts := range alone {
			r.admit(&b, parts[0], now)
			r.stored(&b, parts[0], now)
		}
		now = now.Add(confirmedFor / knownStreams)
	}
	if len(r.streams) > 2*knownStreams {
		t.Errorf("%d streams are remembered", len(r.streams))
	}
}

// What a push tells of a stream that was forgotten while it was on its way is remembered.
func TestRollRemembersAgain(t *testing.T) {
	r := newRoll()
	var b Batch
	b.Add(at(0, 0))
	_, alone := r.plan(&b, 0, testTime)
	r.admit(&b, alone[0][0], testTime)
	r.forgetAt = 0
	var other Batch
	other.Add(at(1, 0))
	_, others := r.plan(&other, 0, testTime)
	r.admit(&other, others[0][0], testTime)
	if len(r.streams) != 1 {
		t.Fatalf("%d streams are remembered: the first should be forgotten", len(r.streams))
	}
	r.stored(&b, alone[0][0], testTime)
	var next Batch
	next.Add(at(0, 1))
	if together, alone := r.plan(&next, 0, testTime); len(together) != 1 || len(alone) != 0 {
		t.Error("a stream that Loki has confirmed is in doubt")
	}
}

// Of the memory for the bytes of a push, what only an unusual one has needed is let go.
func TestMemoryOfALargePushIsLetGo(t *testing.T) {
	c := newRig(t, nil).client
	for _, row := range []struct {
		length, capacity int
		kept             bool
	}{
		{0, 0, false}, {100, keptBody, true}, {100, keptBody + 1, false}, {2 * keptBody, 4 * keptBody, true}, {2 * keptBody, 4*keptBody + 1, false},
	} {
		d := newDelivery(c, nil)
		d.body = make([]byte, row.length, row.capacity)
		d.giveBody()
		if got := c.bodies.take(); (got != nil) != row.kept {
			t.Errorf("%d bytes in %d: kept %t", row.length, row.capacity, got != nil)
		}
	}
}

// A stream in doubt, of which there is mostly one, does not cost the others the memory of their push.
func TestMemoryOfAPushIsKept(t *testing.T) {
	r := newRig(t, nil)
	b := r.batch("a", "b", "c")
	b.Add(Entry{Stream: `{job="new"}`, Time: testTime, Line: []byte("d")})
	if err := r.queue.Send(t.Context(), b, func() {}); err != nil {
		t.Fatal(err)
	}
	if err := r.queue.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.inLoki(); len(strings.Fields(got)) != 4 || r.server.Requests() != 2 {
		t.Errorf("in Loki: %s, in %d requests", got, r.server.Requests())
	}
	if kept := r.queue.Batch(); kept != b || len(r.client.bodies.free) == 0 {
		t.Error("the memory of the push is not kept")
	}
}
