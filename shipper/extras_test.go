package shipper

import (
	"context"
	"errors"
	"fmt"
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
			r.client.answers.note(row.answer)
			g := newGate()
			r.server.Answer(g.script)
			second := r.client.NewQueue("second.log")
			if got := r.fill(r.queue, "a"); got != row.want {
				t.Errorf("%d batches are under way, want %d", got, row.want)
			}
			if got := r.fill(second, "b"); got != row.second {
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
	r.client.answers.note(time.Hour) // the answers of this test take no time, and do not outweigh it
	g := newGate()
	r.server.Answer(g.script)
	n := r.fill(r.queue, "a")
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
	if kept := len(r.queue.free); kept > UsualInFlight {
		t.Errorf("%d batches are kept", kept)
	}
}

// fill sends batches until it would have to wait, and gives how many.
func (r *rig) fill(q *Queue, name string) (n int) {
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
		n++
	}
}
