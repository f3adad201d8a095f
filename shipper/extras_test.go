package shipper

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// How many batches Send takes before the first is acknowledged.
func TestBatchesUnderWay(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*Config)
		answer time.Duration // how long Loki takes
		want   int
		second int // by a second queue, after that
	}{
		{"a prompt Loki", func(*Config) {}, slowAnswer - 1, UsualInFlight, UsualInFlight},
		{"a slow Loki", func(*Config) {}, slowAnswer, UsualInFlight + maxExtras, UsualInFlight},
		{"a slow Loki, paced", func(cfg *Config) { cfg.StreamRate = 1 << 20 }, time.Second, UsualInFlight, UsualInFlight},
		{"a slow Loki, and told how many", func(cfg *Config) { cfg.InFlight = 3 }, time.Second, 3, 3},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t, row.change)
			r.client.answers.note(row.answer, largePush)
			g := newGate()
			r.server.Answer(g.script)
			second := r.client.NewQueue("second.log")
			if got := r.fill(r.queue, g, "a"); got != row.want {
				t.Errorf("%d batches are under way, want %d", got, row.want)
			}
			if got := r.fill(second, g, "b"); got != row.second {
				t.Errorf("%d batches of the second queue are under way, want %d", got, row.second)
			}
			for n := range row.want {
				close(g.of(fmt.Sprintf("a%d", n)))
			}
			for n := range row.second {
				close(g.of(fmt.Sprintf("b%d", n)))
			}
			for _, q := range []*Queue{r.queue, second} {
				if err := q.Drain(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// What was lent is lent again once it is given back, and what a queue has by right is not taken for it.
func TestExtrasAreGivenBack(t *testing.T) {
	r := newRig(t, nil)
	r.slow()
	g := newGate()
	r.server.Answer(g.script)
	n := r.fill(r.queue, g, "a")
	for i := range 3 * n { // the oldest is acknowledged, one more is sent
		close(g.of(fmt.Sprintf("a%d", i)))
		if err := r.queue.Send(t.Context(), r.batch(fmt.Sprintf("a%d", n+i)), func() {}); err != nil {
			t.Fatal(err)
		}
	}
	r.queue.order.Lock()
	got := len(r.queue.pending)
	r.queue.order.Unlock()
	if got != n {
		t.Errorf("%d batches are under way, want %d", got, n)
	}
	for i := range n {
		close(g.of(fmt.Sprintf("a%d", 3*n+i)))
	}
	if err := r.queue.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if taken := r.client.extras.taken.Load(); taken != 0 {
		t.Errorf("%d extras are still taken", taken)
	}
	if kept := len(r.queue.free); kept != n {
		t.Errorf("%d batches are kept, want %d", kept, n)
	}
}

// slow makes Loki slow: between any two looks at the clock, time passes.
func (r *rig) slow() {
	var looks atomic.Int64
	began := r.client.now()
	r.client.now = func() time.Time { return began.Add(time.Duration(looks.Add(1)) * slowAnswer) }
	r.client.answers.note(slowAnswer, largePush)
}

// fill sends batches until it would have to wait, and gives how many.
func (r *rig) fill(q *Queue, g *gate, name string) (n int) {
	r.t.Helper()
	full, cancel := context.WithCancel(r.t.Context())
	cancel()
	for {
		err := q.Send(full, r.batch(fmt.Sprintf("%s%d", name, n)), func() {})
		if errors.Is(err, context.Canceled) {
			return n
		}
		if err != nil {
			r.t.Fatal(err)
		}
		<-g.arrived // so what it took is let go
		n++
	}
}

// Nothing more is lent while four batches take memory for all of their entries, as those do that are made up of several pushes; it is
// as soon as one of them is settled, though not acknowledged.
func TestNothingIsLentForHeavyBatches(t *testing.T) {
	r := newRig(t, nil)
	r.slow()
	g := newGate()
	r.server.Answer(g.script)
	send := func(ctx context.Context, n int) error {
		b := new(Batch) // of nobody's yet, as one of another queue
		b.Add(testEntry(0, fmt.Sprintf("a%d", n)))
		b.Add(Entry{Stream: fmt.Sprintf(`{new="%d"}`, n), Time: testTime, Line: fmt.Appendf(nil, "b%d", n)})
		return r.queue.Send(ctx, b, func() {})
	}
	for n := range maxHeavy {
		if err := send(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		<-g.arrived
		<-g.arrived
	}
	full, cancel := context.WithCancel(t.Context())
	cancel()
	if err := send(full, 99); !errors.Is(err, context.Canceled) {
		t.Fatalf("one more was sent (%v)", err)
	}
	lent := make(chan error)
	go func() { lent <- send(t.Context(), maxHeavy) }()
	close(g.of("a2"))
	close(g.of("b2"))
	if err := <-lent; err != nil { // though nothing is acknowledged
		t.Fatal(err)
	}
	for n := range maxHeavy + 1 {
		if n != 2 {
			close(g.of(fmt.Sprintf("a%d", n)))
			close(g.of(fmt.Sprintf("b%d", n)))
		}
	}
	if err := r.queue.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := len(r.server.Entries()); got != 2*(maxHeavy+1) {
		t.Errorf("%d entries are stored", got)
	}
}

// Who waits with another batch is told as soon as one of those before it is let go, though nothing is answered yet; and a batch may come
// from anywhere.
func TestWhatIsLetGoIsTold(t *testing.T) {
	r := newRig(t, nil)
	r.slow()
	g := newGate()
	r.server.Answer(g.script)
	send := func(ctx context.Context, line string) error {
		b := new(Batch)
		b.Add(testEntry(0, line))
		return r.queue.Send(ctx, b, func() {})
	}
	r.client.encoder.mu.Lock() // so all are heavy
	lines := []string{"a", "b", "c", "d"}
	for _, line := range lines {
		if err := send(t.Context(), line); err != nil {
			t.Fatal(err)
		}
	}
	full, cancel := context.WithCancel(t.Context())
	cancel()
	if err := send(full, "x"); !errors.Is(err, context.Canceled) {
		t.Fatalf("one more was sent (%v)", err)
	}
	r.client.encoder.mu.Unlock()
	for range lines {
		<-g.arrived
	}
	select {
	case <-r.queue.news: // that a Send waits for
	default:
		t.Error("nobody is told")
	}
	if err := send(t.Context(), "e"); err != nil {
		t.Fatal(err)
	}
	for _, line := range append(lines, "e") {
		close(g.of(line))
	}
	if err := r.queue.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// One quick answer in six shows that Loki is not slow: an agent that has used up its share of the processor sees the others late.
func TestAnswersSeenLate(t *testing.T) {
	const late, quick = 90 * time.Millisecond, 10 * time.Millisecond
	for _, row := range []struct {
		name  string
		every int // how many answers there are for each quick one
		bytes int // of the push that is answered quickly
		slow  bool
	}{
		{"each is quick", 1, largePush, false},
		{"one in two", 2, largePush, false},
		{"one in six", 6, largePush, false},
		{"one in twenty", 20, largePush, true},
		{"one in six, to small pushes", 6, largePush - 1, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			var answers answerTime
			slow := false
			for n := range 10 * row.every {
				if n%row.every == 0 {
					answers.note(quick, row.bytes)
				} else {
					answers.note(late, largePush)
				}
				slow = slow || answers.slow()
			}
			if slow != row.slow {
				t.Errorf("Loki was taken for slow: %v, want %v", slow, row.slow)
			}
		})
	}
}
