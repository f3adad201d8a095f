package shipper

import (
	"fmt"
	"sync"
	"testing"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

// However many streams are in doubt, in however many batches, a slow Loki is not pushed more of them side by side than may be.
func TestLanes(t *testing.T) {
	r := newRig(t, func(cfg *Config) { cfg.InFlight = 3 })
	r.slow()
	const batches, streams = 3, 100
	arrived := make(chan chan struct{}, batches*streams)
	r.server.Answer(func(lokitest.Request) lokitest.Reply {
		released := make(chan struct{})
		arrived <- released
		return lokitest.After(released, lokitest.OK())
	})
	for n := range batches {
		b := r.queue.Batch()
		for i := range streams {
			b.Add(Entry{Stream: fmt.Sprintf(`{batch="%d", n="%d"}`, n, i), Time: testTime, Line: []byte("x")})
		}
		if err := r.queue.Send(t.Context(), b, func() {}); err != nil {
			t.Fatal(err)
		}
	}
	var held []chan struct{}
	for answered := range 100 {
		for len(held) < batches*lanesAtFirst+min(answered, lanesIfSlow) {
			held = append(held, <-arrived)
		}
		// Each lane may count one more for a moment, to find that it may not.
		if open := r.queue.lanes.Load(); open > lanesIfSlow+batches*lanesAtFirst {
			t.Fatalf("%d lanes are open after %d answers, want %d", open, answered, lanesIfSlow)
		}
		close(held[0])
		held = held[1:]
	}
	var rest sync.WaitGroup
	rest.Go(func() {
		for _, released := range held {
			close(released)
		}
		for released := range arrived {
			close(released)
		}
	})
	if err := r.queue.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(arrived)
	rest.Wait()
	if open, stored := r.queue.lanes.Load(), len(r.server.Entries()); open != 0 || stored != batches*streams {
		t.Errorf("%d lanes are open, and %d entries stored", open, stored)
	}
}
