package shipper

import (
	"context"
	"errors"
	"sync"
)

// How many streams that are in doubt are pushed side by side: a start meets hundreds. Each takes a connection, which is 30 KB of
// memory. Where Loki turns out to be slow, or a stream had to wait for its pace, each answer lets one more begin.
const (
	lanesAtFirst = 4  // of each batch
	lanesIfSlow  = 64 // of a queue, beyond these
)

// lanes deliver lists of spans side by side, the spans of each list one after the other. The lists have no stream in common.
type lanes struct {
	d     *delivery
	lists [][]span
	all   sync.WaitGroup

	mu      sync.Mutex
	next    int // index of the list that is to be taken next
	refused refusedEntries
	errs    []error
}

// begin delivers lists of spans that have no stream in common, with each other or with what d delivers meanwhile.
func (d *delivery) begin(ctx context.Context, lists [][]span) *lanes {
	l := &lanes{d: d, lists: lists}
	for range lanesAtFirst {
		l.open(ctx, func() {})
	}
	return l
}

// wait waits for all lists.
func (l *lanes) wait() error {
	l.all.Wait()
	l.d.refused.add(l.refused)
	return errors.Join(l.errs...)
}

// open begins a lane, unless there is nothing for it to do, and calls ended when it is over.
func (l *lanes) open(ctx context.Context, ended func()) {
	first, ok := l.take()
	if !ok {
		ended()
		return
	}
	l.all.Go(func() {
		defer ended()
		l.run(ctx, first)
	})
}

// more opens a lane beyond the first ones, if the queue may have it.
func (l *lanes) more(ctx context.Context) {
	giveBack := func() { l.d.lanes.Add(-1) }
	if l.d.lanes.Add(1) > lanesIfSlow {
		giveBack()
		return
	}
	l.open(ctx, giveBack)
}

// run delivers a list, and others for as long as there are any.
func (l *lanes) run(ctx context.Context, list []span) {
	part := newDelivery(l.d.client, l.d.batch)
	defer part.client.health.abandon(part) // of no effect after a success
	err := part.deliver(ctx, list)
	for err == nil {
		if part.paced || part.client.answers.slow() {
			l.more(ctx)
		}
		next, ok := l.take()
		if !ok {
			break
		}
		err = part.deliver(ctx, next)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, err)
	l.refused.add(part.refused)
}

func (l *lanes) take() (list []span, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == len(l.lists) {
		return nil, false
	}
	l.next++
	return l.lists[l.next-1], true
}
