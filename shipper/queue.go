package shipper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// ErrAbandoned is what Send and Drain return once a Drain has given up: nothing is acknowledged any more.
var ErrAbandoned = errors.New("pushing was abandoned")

// A Queue sends the batches of one followed path, Config.InFlight of them at a time, and acknowledges them in the order of
// Send. Batch and Send are for one goroutine; queues do not hold each other back.
type Queue struct {
	client *Client
	name   string
	slots  chan struct{} // held by each batch from Send until it is acknowledged

	ctx     context.Context // of all pushes; ends when a Drain gives up
	abandon context.CancelFunc
	pushes  sync.WaitGroup

	// order is held while acked functions run, so that they run one at a time and in order.
	order   sync.Mutex
	pending []*sent // in the order of Send; those before pending[0] are acknowledged
	stretch refusedStretch

	mu   sync.Mutex
	free []*Batch
}

// A sent batch is one that Send has taken over.
type sent struct {
	batch   *Batch
	acked   func()
	settled bool
}

// NewQueue returns a queue without batches. Name is for the log: the path that it is for.
func (c *Client) NewQueue(name string) *Queue {
	ctx, abandon := context.WithCancel(context.Background())
	return &Queue{client: c, name: name, slots: make(chan struct{}, c.cfg.InFlight), ctx: ctx, abandon: abandon}
}

// Batch returns an empty batch to fill, if possible one that has been acknowledged.
func (q *Queue) Batch() *Batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.free) == 0 {
		return new(Batch)
	}
	b := q.free[len(q.free)-1]
	q.free = q.free[:len(q.free)-1]
	return b
}

// Send takes b over and pushes it. It blocks while Config.InFlight batches are not acknowledged, which is the backpressure:
// whoever fills batches stops. Acked is called once b and all batches sent before it are stored by Loki, or refused for good
// and in the dead-letter file; in the order of Send, never two at a time, on a goroutine of the queue. It must not call Send
// or Drain. If ctx ends while Send blocks, or if a Drain has given up, the error says so and b is not sent.
func (q *Queue) Send(ctx context.Context, b *Batch, acked func()) error {
	if err := q.wait(ctx, b); err != nil {
		return err
	}
	if q.ctx.Err() != nil {
		<-q.slots
		return ErrAbandoned
	}
	s := &sent{batch: b, acked: acked}
	q.order.Lock()
	q.pending = append(q.pending, s)
	q.order.Unlock()
	q.pushes.Add(1)
	go func() {
		defer q.pushes.Done()
		q.deliver(s)
	}()
	return nil
}

// mayOvertake is how much newer than the oldest entry of a batch that is not settled another batch may be. Batches can
// arrive in any order, and Loki refuses what is an hour behind the newest entry of its stream.
const mayOvertake = 30 * time.Minute

// wait takes a slot for b; all slots first, which is when all before b is acknowledged, if b may not overtake.
func (q *Queue) wait(ctx context.Context, b *Batch) error {
	need := 1
	if q.overtakes(b) {
		need = cap(q.slots)
	}
	if err := q.take(ctx, need); err != nil {
		return err
	}
	q.release(need - 1)
	return nil
}

// take takes slots, all of them or none.
func (q *Queue) take(ctx context.Context, slots int) error {
	for held := range slots {
		select {
		case q.slots <- struct{}{}:
			continue
		case <-ctx.Done():
		case <-q.ctx.Done():
		}
		q.release(held)
		if q.ctx.Err() != nil {
			return ErrAbandoned
		}
		return fmt.Errorf("waiting for batches to be acknowledged: %w", ctx.Err())
	}
	return nil
}

func (q *Queue) release(slots int) {
	for range slots {
		<-q.slots
	}
}

func (q *Queue) overtakes(b *Batch) bool {
	_, newest := b.times()
	q.order.Lock()
	defer q.order.Unlock()
	for _, s := range q.pending {
		if oldest, _ := s.batch.times(); s.batch.Len() > 0 && newest.Sub(oldest) > mayOvertake {
			return true
		}
	}
	return false
}

// Flush waits until everything sent is acknowledged. If ctx ends before, or if a Drain has given up, the error says so, and
// nothing has changed. It must not run at the same time as Send or Drain.
func (q *Queue) Flush(ctx context.Context) error {
	if err := q.take(ctx, cap(q.slots)); err != nil {
		return err
	}
	q.release(cap(q.slots))
	return nil
}

// Drain waits until everything sent is acknowledged. If ctx ends before, it cancels the pushes under way, waits for their
// goroutines, and returns an error that wraps ErrAbandoned and says how many batches were abandoned; none of these, and none
// after the first of these, is ever acknowledged, and the queue takes no more.
// It must not run at the same time as Send or another Drain.
func (q *Queue) Drain(ctx context.Context) error {
	if err := q.Flush(ctx); err != nil {
		return q.giveUp()
	}
	q.pushes.Wait()
	return nil
}

// giveUp ends the pushes under way and says what is left.
func (q *Queue) giveUp() error {
	q.abandon()
	q.pushes.Wait()
	q.order.Lock()
	defer q.order.Unlock()
	if len(q.pending) == 0 {
		return nil // the last one was acknowledged in the meantime
	}
	return fmt.Errorf("%w: batches not acknowledged: %d", ErrAbandoned, len(q.pending))
}

// deliver pushes one batch to its end and acknowledges what is due.
func (q *Queue) deliver(s *sent) {
	d := newDelivery(q.client, s.batch)
	if err := d.run(q.ctx); err != nil {
		return // abandoned: the batch stays pending, which holds back all after it
	}
	q.order.Lock()
	defer q.order.Unlock()
	q.stretch.note(q.client.cfg.Logger.With("path", q.name, "dead_letters", q.client.cfg.DeadLetterFile), d.refused, s.batch.Len())
	s.settled = true
	for len(q.pending) > 0 && q.pending[0].settled {
		head := q.pending[0]
		q.pending[0] = nil
		q.pending = q.pending[1:]
		head.acked()
		q.recycle(head.batch)
		<-q.slots
	}
}

// recycle keeps b for Batch. There are at most InFlight of them and the one being filled.
func (q *Queue) recycle(b *Batch) {
	b.Reset()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free = append(q.free, b)
}

// flood is how many entries make a batch that is refused as a whole a matter of configuration, not of its entries.
const flood = 10

// A refusedStretch is consecutive batches with dead letters; it is logged when it begins, when it becomes a flood, and
// when it is over.
type refusedStretch struct {
	entries int
	flooded bool
}

func (s *refusedStretch) note(log *slog.Logger, r refusedEntries, batch int) {
	if r.count == 0 {
		if s.entries > 0 {
			log.Info("the last batch had no entry that Loki refuses", "refused_before", s.entries)
		}
		*s = refusedStretch{}
		return
	}
	if r.mixed {
		r.reason = "several, the last answer is given"
	}
	first := s.entries == 0
	s.entries += r.count
	switch {
	case !s.flooded && r.count == batch && batch >= flood && !r.mixed:
		s.flooded = true
		log.Error("Loki refuses every entry of a batch; they go to the dead-letter file until it is full",
			"entries", r.count, "reason", r.reason, "answer", r.words)
	case first:
		log.Warn("Loki refuses entries; they are in the dead-letter file, for auditferry replay",
			"entries", r.count, "reason", r.reason, "answer", r.words)
	}
}
