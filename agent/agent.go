package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/auditferry/auditferry/agent/audit"
	"github.com/auditferry/auditferry/positions"
	"github.com/auditferry/auditferry/shipper"
	"github.com/auditferry/auditferry/tailer"
)

// follower carries one audit log path to Loki. What it has sent and Loki has not acknowledged is not in its position, so
// a crash at any moment costs repeats, which Loki drops, and never an event.
type follower struct {
	path      string
	node      string
	gapStream string // of the entries that tell of gaps
	batchSize int
	batchWait time.Duration
	since     time.Time // events before it are left out; zero once one after it was seen

	tail     *tailer.Tailer
	describe *audit.Describer
	queue    *shipper.Queue
	store    *positions.Store
	logger   *slog.Logger
	metrics  *pathMetrics

	batch     *shipper.Batch
	due       context.Context // of the open batch, once something was waited for
	cancelDue context.CancelFunc
	fields    []shipper.Field
	end       positions.Position // after the newest line in the batch, or left out after it
	gap       *positions.Gap     // before the next event, nil if there is none
	last      time.Time          // of the last event; zero if there was none yet
	sent      int64              // LSN of the end of the last batch sent

	shipped, caughtUp bool // was told
}

// run is the loop: next line, describe, batch, push, commit. It ends when ctx does, or when nothing can be pushed any
// more; a batch that is open then is left for finish.
func (f *follower) run(ctx context.Context) error {
	f.batch = f.queue.Batch()
	for {
		line, err := f.tail.Next(f.wait(ctx))
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = f.add(ctx, line)
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return ignoreStop(ctx, err)
		}
		if f.batch.Bytes() >= f.batchSize || f.due != nil && f.due.Err() != nil {
			if err := f.send(ctx); err != nil {
				return ignoreStop(ctx, err)
			}
		}
	}
}

// wait gives how long to wait for the next line: as long as what was read may, if anything was.
func (f *follower) wait(ctx context.Context) context.Context {
	if f.end.LSN == f.sent {
		return ctx
	}
	if f.due == nil {
		f.due, f.cancelDue = context.WithTimeout(ctx, f.batchWait)
	}
	return f.due
}

// add puts what a line holds into the open batch; a damaged line can hold several events.
func (f *follower) add(ctx context.Context, line tailer.Line) error {
	if f.batch.Len() > 0 && f.batch.Bytes()+len(line.Bytes) > f.batchSize {
		if err := f.send(ctx); err != nil {
			return err
		}
	}
	f.metrics.read(line)
	if line.Gap != nil {
		f.missed(*line.Gap)
	}
	var err error
	begins := true // what is torn or glued was not written at once: the times of what comes after it tell nothing
	at := f.each(line, f.end.EventTime, func(e audit.Entry) {
		if err == nil && !e.Malformed {
			err = f.tellGap(ctx, e, begins && f.tail.Hole(e.Time))
		}
		begins = false
		if !e.Malformed {
			f.last = e.Time
		}
		f.fields = f.fields[:0]
		for _, field := range e.Metadata {
			f.fields = append(f.fields, shipper.Field(field))
		}
		f.push(shipper.Entry{Stream: e.Stream, Time: e.Time, Line: e.Line, Metadata: f.fields})
	})
	if err != nil {
		return err
	}
	f.end = line.End
	f.end.EventTime, f.end.Gap = at, f.gap
	return nil
}

// push puts an entry into the open batch.
func (f *follower) push(e shipper.Entry) {
	if f.batch.Len() == 0 {
		f.metrics.began(e.Time)
	}
	f.batch.Add(e)
}

// each gives the entries of a line that are to be pushed, and returns the time of its last one; before is that of the
// line before it.
func (f *follower) each(line tailer.Line, before time.Time, push func(audit.Entry)) time.Time {
	pieces := f.describe.Entries(line.Bytes, before)
	for e, ok := pieces.Next(); ok; e, ok = pieces.Next() {
		before = e.Time
		f.metrics.described(e)
		if !e.Blank && !f.tooEarly(e.Time) {
			push(e)
		}
	}
	return before
}

// tooEarly leaves out what is before --start-at, up to the first event that is not.
func (f *follower) tooEarly(t time.Time) bool {
	if f.since.IsZero() {
		return false
	}
	if t.Before(f.since) {
		return true
	}
	f.since = time.Time{}
	return false
}

// send hands the open batch over to be pushed and begins another. The position moves when Loki has acknowledged it and
// all before it: this is the only place that moves one. A batch that is empty, because what was read is not to be pushed,
// takes its turn as well.
func (f *follower) send(ctx context.Context) error {
	if f.end.LSN == f.sent {
		return nil
	}
	end, entries := f.end, f.batch.Len()
	acked := func() {
		f.metrics.acknowledged(end, entries)
		f.tell(entries)
		// A failed write is held, counted and logged by the store: it costs repeats after a crash, so shipping goes on.
		if err := f.store.Commit(f.path, end); errors.Is(err, positions.ErrRefused) {
			f.logger.Error("bug: positions do not follow each other", "error", err)
		}
	}
	if err := f.queue.Send(ctx, f.batch, acked); err != nil {
		return fmt.Errorf("pushing what was read of %s: %w", f.path, err)
	}
	f.sent = end.LSN
	f.batch = f.queue.Batch()
	if f.due != nil {
		f.cancelDue()
		f.due = nil
	}
	return nil
}

// tell logs that pushing works, and that the backlog has been carried, once each. It is called by the queue, one at a
// time.
func (f *follower) tell(entries int) {
	if !f.shipped && entries > 0 {
		f.shipped = true
		f.logger.Info("the first events are shipped", "path", f.path, "events", entries)
	}
	if !f.caughtUp && f.metrics.lag() == 0 {
		f.caughtUp = true
		f.logger.Info("caught up with the audit log", "path", f.path)
	}
}

// finish pushes what was read, as far as ctx allows. What Loki has not acknowledged by then is read again at the next
// start.
func (f *follower) finish(ctx context.Context) error {
	return errors.Join(f.send(ctx), f.queue.Drain(ctx)) // Drain waits for the pushes under way in any case
}

// ignoreStop tells an error that comes from being stopped from one that does not.
func ignoreStop(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
