package shipper

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

// A gate holds the answers to pushes, by the first line of each, until the test releases them.
type gate struct {
	mu      sync.Mutex
	held    map[string]chan struct{}
	arrived chan string
}

func newGate() *gate {
	return &gate{held: make(map[string]chan struct{}), arrived: make(chan string, 100)}
}

func (g *gate) of(line string) chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held[line] == nil {
		g.held[line] = make(chan struct{})
	}
	return g.held[line]
}

func (g *gate) script(request lokitest.Request) lokitest.Reply {
	line := request.Entries[0].Line
	released := g.of(line)
	g.arrived <- line
	return lokitest.After(released, lokitest.OK())
}

// awaitSettled returns when a batch is settled, whether acknowledged or not.
func awaitSettled(t *testing.T, q *Queue, b *Batch) {
	t.Helper()
	for t.Context().Err() == nil {
		q.order.Lock()
		i := slices.IndexFunc(q.pending, func(s *sent) bool { return s.batch == b })
		settled := i < 0 || q.pending[i].settled
		q.order.Unlock()
		if settled {
			return
		}
		runtime.Gosched()
	}
}

func TestAcknowledgedInTheOrderOfSend(t *testing.T) {
	r := newRig(t, func(cfg *Config) { cfg.InFlight = 3 })
	g := newGate()
	r.server.Answer(g.script)
	var acked []string
	batches := map[string]*Batch{}
	for _, line := range []string{"a", "b", "c"} {
		batches[line] = r.batch(line)
		if err := r.queue.Send(t.Context(), batches[line], func() { acked = append(acked, line) }); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		<-g.arrived
	}
	close(g.of("c"))
	awaitSettled(t, r.queue, batches["c"])
	close(g.of("b"))
	awaitSettled(t, r.queue, batches["b"])
	r.queue.order.Lock()
	if len(acked) > 0 {
		t.Errorf("%v acknowledged while the push before it is under way", acked)
	}
	r.queue.order.Unlock()
	close(g.of("a"))
	if err := r.queue.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(acked, []string{"a", "b", "c"}) {
		t.Errorf("acknowledged %v", acked)
	}
}

// Send blocks while InFlight batches are not acknowledged, also if only the first of them is still being pushed.
func TestBackpressure(t *testing.T) {
	r := newRig(t, nil)
	g := newGate()
	r.server.Answer(g.script)
	batches := map[string]*Batch{}
	for _, line := range []string{"a", "b"} {
		batches[line] = r.batch(line)
		if err := r.queue.Send(t.Context(), batches[line], func() {}); err != nil {
			t.Fatal(err)
		}
		<-g.arrived
	}
	close(g.of("b"))
	awaitSettled(t, r.queue, batches["b"])
	sent := make(chan error)
	go func() { sent <- r.queue.Send(t.Context(), r.batch("c"), func() {}) }()
	given, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.queue.Send(given, r.batch("x"), func() { t.Error("acknowledged what was not sent") }); !errors.Is(err, context.Canceled) {
		t.Errorf("a third batch was sent: %v", err)
	}
	select {
	case err := <-sent:
		t.Errorf("a third batch was sent: %v", err)
	default:
	}
	close(g.of("a"))
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	close(g.of("c"))
	if err := r.queue.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	in := strings.Fields(r.inLoki())
	slices.Sort(in) // a and b were pushed at the same time
	if !slices.Equal(in, []string{"a", "b", "c"}) {
		t.Errorf("in Loki: %v", in)
	}
}

func TestQueuesDoNotHoldEachOtherBack(t *testing.T) {
	r := newRig(t, func(cfg *Config) { cfg.InFlight = 1 })
	g := newGate()
	r.server.Answer(g.script)
	other := r.client.NewQueue("other.log")
	if err := r.queue.Send(t.Context(), r.batch("stuck"), func() {}); err != nil {
		t.Fatal(err)
	}
	close(g.of("a"))
	if err := other.Send(t.Context(), r.batch("a"), func() {}); err != nil {
		t.Fatal(err)
	}
	if err := other.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(g.of("stuck"))
}

func TestDrainGivesUp(t *testing.T) {
	r := newRig(t, func(cfg *Config) { cfg.InFlight = 4 })
	arrived := make(chan struct{}, 4)
	r.server.Answer(func(request lokitest.Request) lokitest.Reply {
		arrived <- struct{}{}
		if request.Entries[0].Line == "hangs" {
			return lokitest.Hang()
		}
		return lokitest.OK()
	})
	var acked []string
	batches := map[string]*Batch{}
	for _, line := range []string{"a", "hangs", "b"} {
		batches[line] = r.batch(line)
		if err := r.queue.Send(t.Context(), batches[line], func() { acked = append(acked, line) }); err != nil {
			t.Fatal(err)
		}
		<-arrived
	}
	awaitSettled(t, r.queue, batches["a"])
	awaitSettled(t, r.queue, batches["b"])
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	err := r.queue.Drain(ended)
	if !errors.Is(err, ErrAbandoned) || !strings.Contains(err.Error(), "batches not acknowledged: 2") {
		t.Errorf("Drain: %v", err)
	}
	if !slices.Equal(acked, []string{"a"}) {
		t.Errorf("acknowledged %v", acked)
	}
	if err := r.queue.Send(t.Context(), r.batch("c"), func() { t.Error("acknowledged") }); !errors.Is(err, ErrAbandoned) {
		t.Errorf("Send after giving up: %v", err)
	}
	if err := r.queue.Drain(t.Context()); !errors.Is(err, ErrAbandoned) {
		t.Errorf("a second Drain: %v", err)
	}
}

// A drain that gives up during a pause ends at once, and says nothing good about Loki.
func TestDrainGivesUpDuringAPause(t *testing.T) {
	r := newRig(t, nil)
	r.server.Answer(func(lokitest.Request) lokitest.Reply { return lokitest.Refused(401, "") })
	paused := make(chan struct{}, 1)
	r.client.sleep = func(ctx context.Context, _ time.Duration) error {
		paused <- struct{}{}
		return sleep(ctx, time.Hour)
	}
	if err := r.queue.Send(t.Context(), r.batch("a"), func() { t.Error("acknowledged") }); err != nil {
		t.Fatal(err)
	}
	<-paused
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.queue.Drain(ended); !errors.Is(err, ErrAbandoned) {
		t.Errorf("Drain: %v", err)
	}
	if r.log.count("Loki takes pushes again") != 0 {
		t.Error("the log says that Loki takes pushes again")
	}
}

// An attempt that gets no answer ends at the time-out, and what it stored is stored once.
func TestTimeout(t *testing.T) {
	r := newRig(t, func(cfg *Config) { cfg.Timeout = 50 * time.Millisecond })
	hangs := lokitest.Hang()
	hangs.Store = lokitest.All
	r.server.Answer(lokitest.Sequence(hangs))
	r.send("a", "b")
	if got := r.inLoki(); got != " a b " {
		t.Errorf("in Loki:%s", got)
	}
	// On a slow machine the second attempt can end so, too.
	if r.server.Arrivals() < 4 || r.metric("pushes_total", "error") < 1 || r.metric("pushes_total", "204") != 1 {
		t.Errorf("%d arrivals", r.server.Arrivals())
	}
}

func TestOutage(t *testing.T) {
	r := newRig(t, nil)
	r.send("a")
	r.server.Close()
	attempts := 0
	r.client.sleep = func(context.Context, time.Duration) error {
		if attempts++; attempts == 5 {
			if _, err := r.server.Start(); err != nil {
				t.Error(err)
			}
		}
		return nil
	}
	r.send("b")
	if attempts != 5 || r.inLoki() != " a b " {
		t.Errorf("%d attempts failed, in Loki:%s", attempts, r.inLoki())
	}
}

// Batches come back for use, and never while they are still being pushed.
func TestBatchesAreUsedAgain(t *testing.T) {
	r := newRig(t, nil)
	seen := map[*Batch]bool{}
	for i := range 50 {
		b := r.batch(fmt.Sprint("line", i))
		seen[b] = true
		if err := r.queue.Send(t.Context(), b, func() {}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.queue.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(seen) > 4 {
		t.Errorf("%d batches for 2 pushes in flight", len(seen))
	}
	if len(r.server.Entries()) != 50 || r.server.Arrivals() != 50 {
		t.Errorf("%d entries, %d arrivals", len(r.server.Entries()), r.server.Arrivals())
	}
}
