package shipper

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

// bad begins a line that Loki refuses.
const bad = "bad "

// Whatever Loki answers to pushes of batches of any kind, on two queues that share memory: each entry ends in Loki or in the dead-letter
// file, once and as it was, and each batch is acknowledged in its turn.
func TestEachEntryEndsOnce(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(cfg *Config) {
				cfg.Timeout = 150 * time.Millisecond
				cfg.EveryStreamAlone = seed%5 == 4
				if seed%7 == 3 {
					cfg.StreamRate = 1 << 20
				}
			})
			if seed%2 == 0 {
				r.slow()
			}
			r.server.Answer(anyAnswer(seed))
			w := world{want: make(map[string]Entry)}
			var queues sync.WaitGroup
			for n := range uint64(2) {
				queues.Go(func() {
					w.fill(r, r.client.NewQueue(fmt.Sprintf("%d.log", n)), rand.New(rand.NewPCG(seed, 1+n)), fmt.Sprint(n))
				})
			}
			queues.Wait()
			w.judge(r)
			if extras := r.client.extras.taken.Load(); extras != 0 {
				t.Errorf("%d extras are still taken", extras)
			}
		})
	}
}

// anyAnswer refuses bad lines, and otherwise answers by chance.
func anyAnswer(seed uint64) func(lokitest.Request) lokitest.Reply {
	var mu sync.Mutex
	chance := rand.New(rand.NewPCG(seed, 0))
	good := func(e lokitest.Entry) bool { return !strings.HasPrefix(e.Line, bad) }
	return func(request lokitest.Request) lokitest.Reply {
		mu.Lock()
		n := chance.IntN(100)
		mu.Unlock()
		switch {
		case n < 10:
			return lokitest.RateLimited("")
		case n < 18:
			return lokitest.Refused(500, "x")
		case n < 22:
			return lokitest.Reply{Cut: true, Store: good}
		case n < 25:
			return lokitest.Cut()
		case n < 27:
			return lokitest.Hang()
		case n < 33:
			return lokitest.Refused(429, "ingestion rate limit exceeded for user x")
		case n < 40 && len(request.Entries) > 3:
			return lokitest.Refused(413, "big")
		}
		reply := lokitest.OK()
		for _, e := range request.Entries {
			if !good(e) {
				reply = lokitest.Refusing(request, func(e lokitest.Entry) string {
					if good(e) {
						return ""
					}
					return "bad line"
				})
			}
		}
		return reply
	}
}

// A world is what was sent, by the second word of the line.
type world struct {
	mu   sync.Mutex
	want map[string]Entry
}

// fill sends batches of any kind through a queue, and waits for them.
func (w *world) fill(r *rig, q *Queue, chance *rand.Rand, name string) {
	const batches = 15
	acked := 0
	for n := range batches {
		b := q.Batch()
		entries := chance.IntN(40)
		if chance.IntN(5) == 0 {
			entries = 1
		}
		for i := range entries {
			e := testEntry(chance.IntN(3), "")
			if chance.IntN(3) == 0 { // of a stream in doubt
				e.Stream = fmt.Sprintf(`{queue="%s", n="%d"}`, name, chance.IntN(4))
			}
			b.Add(w.entry(e, chance, fmt.Sprintf("%s-%d-%d", name, n, i)))
		}
		if chance.IntN(4) == 0 {
			b.Bury(w.entry(testEntry(0, ""), chance, fmt.Sprintf("%s-%d-buried", name, n)), "line_too_long", "too long")
		}
		err := q.Send(r.t.Context(), b, func() {
			if acked != n {
				r.t.Errorf("batch %d is acknowledged after %d", n, acked)
			}
			acked++
		})
		if err != nil {
			r.t.Error(err)
		}
	}
	if err := q.Drain(r.t.Context()); err != nil || acked != batches {
		r.t.Errorf("%d batches of %d are acknowledged: %v", acked, batches, err)
	}
}

// entry gives e a line with a name, and remembers it.
func (w *world) entry(e Entry, chance *rand.Rand, name string) Entry {
	length := chance.IntN(3000)
	if chance.IntN(200) == 0 {
		length = 2 * chunkSize
	}
	kind := "good "
	if chance.IntN(25) == 0 {
		kind = bad
	}
	e.Line = []byte(kind + name + " " + strings.Repeat("x", length))
	e.Metadata = []Field{{"name", []byte(name)}}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.want[name] = e
	return e
}

// judge looks for what was sent in Loki and among the dead letters.
func (w *world) judge(r *rig) {
	found := make(map[string]bool)
	check := func(line, stamp, labels string) {
		name := strings.Fields(line)[1]
		want := w.want[name]
		wanted, err := lokitest.ParseLabels(want.Stream)
		if err != nil {
			r.t.Fatal(err)
		}
		if found[name] || line != string(want.Line) || stamp != want.Time.Format(time.RFC3339Nano) || labels != fmt.Sprint(wanted) {
			r.t.Errorf("%s is there as %.50s… of %s at %s, and was there before: %t", name, line, labels, stamp, found[name])
		}
		found[name] = true
	}
	for _, e := range r.server.Entries() {
		check(e.Line, e.Time.UTC().Format(time.RFC3339Nano), fmt.Sprint(e.Labels))
	}
	for _, letter := range deadLettersOf(r.t, r.client.cfg.DeadLetterFile) {
		labels, err := lokitest.ParseLabels(letter.Labels)
		if err != nil {
			r.t.Fatal(err)
		}
		check(letter.Event, letter.Timestamp, fmt.Sprint(labels))
	}
	if len(found) != len(w.want) {
		r.t.Errorf("%d of %d entries are found", len(found), len(w.want))
	}
}
