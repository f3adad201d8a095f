package shipper

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

// Loki's defaults: shard_streams.desired_rate (pkg/distributor/shardstreams/config.go) and max_line_size.
const (
	desiredRate = 1536 << 10
	maxLine     = 256 << 10
	streamRate  = 900 << 10 // the default of --loki-stream-rate
)

// attempt is what Loki's rate calculation sees of one stream in one push.
type attempt struct {
	at    time.Time
	bytes int
}

// Whatever is pushed, and pushed again, Loki must not find a stream so fast that it cuts it into shards: what came within a
// second, and the push at hand, together stay at most the desired rate.
func TestPaceStaysBelowSharding(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	failures := 0
	r := newRig(t, func(c *Config) { c.StreamRate, c.InFlight = streamRate, 1 })
	// Admitted long since, so that pushes follow one another: side by side, their pauses would not overlap on this clock.
	r.client.roll.streams[`{job="hot"}`] = &admitted{confirmed: testTime.AddDate(100, 0, 0)}
	for i := range 20 {
		r.client.roll.streams[fmt.Sprintf(`{job="cold%d"}`, i)] = &admitted{confirmed: testTime.AddDate(100, 0, 0)}
	}
	attempts := make(map[string][]attempt)
	var mu sync.Mutex
	r.server.Answer(func(request lokitest.Request) lokitest.Reply {
		mu.Lock()
		defer mu.Unlock()
		bytes := make(map[string]int)
		for _, e := range request.Entries {
			bytes[e.Stream] += e.Bytes
			for _, f := range e.Metadata {
				bytes[e.Stream] += len(f.Name) + len(f.Value)
			}
		}
		for stream, n := range bytes {
			attempts[stream] = append(attempts[stream], attempt{r.client.now(), n})
		}
		if random.IntN(4) == 0 {
			failures++
			return lokitest.Stored(500, "stored, and said to be not")
		}
		return lokitest.OK()
	})
	sent := 0
	for i := range 30 {
		b := r.queue.Batch()
		for b.Bytes() < 1<<20 {
			line := make([]byte, 100+random.IntN(4000))
			if random.IntN(50) == 0 {
				line = make([]byte, maxLine)
			}
			stream := `{job="hot"}`
			if random.IntN(3) == 0 {
				stream = fmt.Sprintf(`{job="cold%d"}`, random.IntN(20))
			}
			b.Add(Entry{Stream: stream, Time: testTime.Add(time.Duration(sent)), Line: line, Metadata: []Field{{"audit_id", []byte("0123456789")}}})
			sent++
		}
		if i%3 == 2 { // killed, and started again at once
			r.client.pace = newPace(streamRate, 2)
		}
		if err := r.queue.Send(t.Context(), b, func() {}); err != nil {
			t.Fatal(err)
		}
		if err := r.queue.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(r.server.Entries()); got != sent || failures == 0 {
		t.Errorf("%d entries arrived of %d, with %d failures", got, sent, failures)
	}
	most := 0
	for _, of := range attempts {
		for i, a := range of {
			within := a.bytes
			for j := i; j >= 0 && a.at.Sub(of[j].at) < time.Second; j-- {
				within += of[j].bytes
			}
			most = max(most, within)
		}
	}
	if most > desiredRate || most < desiredRate/2 {
		t.Errorf("the bytes of a second and of the push at hand came to %d, want just below %d", most, desiredRate)
	}
}

func TestNoPace(t *testing.T) {
	r := newRig(t, func(c *Config) { c.InFlight = 1 })
	b := r.queue.Batch()
	for i := range 100 {
		b.Add(Entry{Stream: `{job="x"}`, Time: testTime.Add(time.Duration(i)), Line: make([]byte, 100_000)})
	}
	if err := r.queue.Send(t.Context(), b, func() {}); err != nil {
		t.Fatal(err)
	}
	if err := r.queue.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.server.Requests() != 1 || len(r.paused) != 0 {
		t.Errorf("%d requests and the pauses %v, want one request at once", r.server.Requests(), r.paused)
	}
}

func TestPaceForgetsStreams(t *testing.T) {
	p := newPace(streamRate, 2)
	now := testTime
	for i := range 3 * knownStreams {
		p.limiter(fmt.Sprint(i), now)
		now = now.Add(time.Millisecond)
	}
	if len(p.streams) > knownStreams {
		t.Errorf("%d streams are remembered, want at most %d", len(p.streams), knownStreams)
	}
}
