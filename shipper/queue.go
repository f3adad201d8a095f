package shipper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// ErrAbandoned is what Send and Drain return once a Drain has given up: nothing is acknowledged any more.
var ErrAbandoned = errors.New("pushing was abandoned")

// A Queue sends the batches of one followed path, Config.InFlight of them at a time, and acknowledges them in the order of
// Send. Batch, Send, Flush and Drain are for one goroutine; queues do not hold each other back.
type Queue struct {
	client *Client
	name   string
	news   chan struct{} // has one if something was acknowledged, or let go, since the last look

	ctx     context.Context // of all pushes; ends when a Drain gives up
	abandon context.CancelFunc
	pushes  sync.WaitGroup
	lanes   atomic.Int64 // that are open beyond the first ones of each batch

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
	extra   bool // is beyond InFlight, see extras
}

// NewQueue returns a queue without batches. Name is for the log: the path that it is for.
func (c *Client) NewQueue(name string) *Queue {
	ctx, abandon := context.WithCancel(context.Background())
	return &Queue{client: c, name: name, news: make(chan struct{}, 1), ctx: ctx, abandon: abandon}
}

// Batch returns an empty batch to fill, if possible one that has been acknowledged.
func (q *Queue) Batch() *Batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.free) == 0 {
		return &Batch{arena: arena{store: &q.client.chunks}}
	}
	b := q.free[len(q.free)-1]
	q.free = q.free[:len(q.free)-1]
	return b
}

// BatchSize gives the bytes at which a batch is to be sent: those given, or fewer once Loki, or a gateway before it, has answered
// that so much at a time is too much. It can be called at any time.
func (q *Queue) BatchSize(wanted int) int { return q.client.sizes.of(wanted) }

// Send takes b over and pushes it. It blocks while as many batches as may be are not acknowledged, which is the backpressure:
// whoever fills batches stops. Acked is called once b and all batches sent before it are stored by Loki, or refused for good
// and in the dead-letter file; in the order of Send, never two at a time, on a goroutine of the queue. It must not call Send
// or Drain. If ctx ends while Send blocks, or if a Drain has given up, the error says so and b is not sent.
func (q *Queue) Send(ctx context.Context, b *Batch, acked func()) error {
	s := &sent{batch: b, acked: acked}
	room := func() bool {
		return q.usual() < q.client.cfg.InFlight || q.client.answers.slow() && q.heavy() < maxHeavy && q.client.extras.take(s)
	}
	if q.overtakes(b) {
		room = q.idle
	}
	if err := q.wait(ctx, room); err != nil {
		return err
	}
	b.news = q.news
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

// wait waits until there is room beside what is not acknowledged.
func (q *Queue) wait(ctx context.Context, room func() bool) error {
	for {
		if q.ctx.Err() != nil {
			return ErrAbandoned
		}
		q.order.Lock()
		ok := room()
		q.order.Unlock()
		if ok {
			return nil
		}
		select {
		case <-q.news:
		case <-q.ctx.Done():
		case <-ctx.Done():
			return fmt.Errorf("waiting for batches to be acknowledged: %w", ctx.Err())
		}
	}
}

// idle reports whether all is acknowledged. order is held.
func (q *Queue) idle() bool { return len(q.pending) == 0 }

// usual is how many batches are not acknowledged, but for extras. order is held.
func (q *Queue) usual() (n int) {
	for _, s := range q.pending {
		if !s.extra {
			n++
		}
	}
	return n
}

// heavy is how many batches that are not acknowledged take memory for all of their entries, see letGo. order is held.
func (q *Queue) heavy() (n int) {
	for _, s := range q.pending {
		if !s.batch.packed.Load() {
			n++
		}
	}
	return n
}

// overtakes reports whether b must wait until all before it is acknowledged.
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
	return q.wait(ctx, q.idle)
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
	d.lanes = &q.lanes
	if err := d.run(q.ctx); err != nil {
		return // abandoned: the batch stays pending, which holds back all after it
	}
	s.batch.letGo()
	q.order.Lock()
	defer q.order.Unlock()
	q.stretch.note(q.client.cfg.Logger.With("path", q.name, "dead_letters", q.client.cfg.DeadLetterFile), d.refused, s.batch.Len()+len(s.batch.buried))
	s.settled = true
	for len(q.pending) > 0 && q.pending[0].settled {
		head := q.pending[0]
		q.pending[0] = nil
		q.pending = q.pending[1:]
		head.acked()
		q.recycle(head.batch)
		q.client.extras.release(head)
	}
	select {
	case q.news <- struct{}{}:
	default:
	}
}

// recycle keeps b for Batch. As many are kept as were under way: without their entries, they are small.
func (q *Queue) recycle(b *Batch) {
	b.Reset()
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.free) < q.client.cfg.InFlight+maxExtras {
		q.free = append(q.free, b)
	}
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
		log.Warn("Loki refuses entries, or is known to; they are in the dead-letter file, for auditferry replay",
			"entries", r.count, "reason", r.reason, "answer", r.words)
	}
}
