package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/auditferry/auditferry/agent/audit"
	"github.com/auditferry/auditferry/positions"
	"github.com/auditferry/auditferry/shipper"
	"github.com/auditferry/auditferry/tailer"
)

// follower carries one audit log path to one Loki. What it has sent and Loki has not acknowledged is not in its position, so
// a crash at any moment costs repeats, which Loki drops, and never an event.
type follower struct {
	path        string
	key         string // of the path and the destination together, see destination.key
	destination string // its address
	node        string
	gapStream   string // of the entries that tell of gaps
	batchSize   int
	batchWait   time.Duration
	maxLine     int       // bytes of a line that Loki takes
	since       time.Time // events before it are left out; zero once one after it was seen

	tail     *tailer.Tailer
	describe *audit.Describer
	queue    *shipper.Queue
	store    *positions.Store
	moved    chan<- struct{} // is told so
	parked   chan<- struct{} // is told when left becomes true
	logger   *slog.Logger
	metrics  *pathMetrics
	admitted *admissions
	pulse    pulse

	batch     *shipper.Batch
	due       context.Context // of the open batch, once something was waited for
	cancelDue context.CancelFunc
	end       positions.Position // after the newest line in the batch, or left out after it
	gap       *positions.Gap     // before the next event, nil if there is none
	last      time.Time          // of the last event; zero if there was none yet
	ages      ages
	old       oldEvents
	future    futureEvents
	sent      int64 // LSN of the end of the last batch sent

	restamp               *positions.Restamp // times for events that Loki does not take at their own; never changed
	oldStamp, futureStamp stamping
	stampText             []byte

	shipped, caughtUp bool // was told

	stopped  bool         // by the end of ctx, with all that was handed over in the batch, or pushed, but for unplaced
	unplaced *tailer.Line // handed over as ctx ended; nil if none was

	leaving *tailer.ReplacedError // nothing more is to be had of the path: see leave
	left    atomic.Bool           // and all that was is acknowledged, and the position is that of leaving
}

// run is the loop: next line, describe, batch, push, commit. It ends when ctx does, or when nothing can be pushed any
// more; a batch that is open then is left for finish.
func (f *follower) run(ctx context.Context) error {
	f.batch = f.queue.Batch()
	for {
		if over, err := f.turn(ctx); over || err != nil {
			return ignoreStop(ctx, err)
		}
	}
}

// turn is one turn of the loop; over says that it was the last.
func (f *follower) turn(ctx context.Context) (over bool, err error) {
	line, err := f.tail.Next(f.wait(ctx))
	if errors.As(err, &f.leaving) {
		return true, f.leave(ctx)
	}
	if ctx.Err() != nil {
		f.stopped, f.unplaced = true, line
		return true, nil
	}
	if err == nil {
		err = f.add(ctx, line)
	}
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return false, err
	}
	if f.batch.Bytes() >= f.batchSize || f.due != nil && f.due.Err() != nil {
		return false, f.send(ctx)
	}
	return false, nil
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
func (f *follower) add(ctx context.Context, line *tailer.Line) error {
	if f.batch.Len() > 0 && f.batch.Bytes()+len(line.Bytes) > f.batchSize {
		if err := f.send(ctx); err != nil {
			return err
		}
	}
	if f.end.LSN == f.sent {
		f.ages.look()
	}
	f.metrics.read(line)
	if line.Gap != nil {
		f.missed(*line.Gap)
	}
	switch {
	case line.Again:
		f.describe.Again()
	case line.End.FirstLine != f.end.FirstLine:
		f.describe.NextFile()
	}
	var err error
	begins := true // what is torn or glued was not written at once: the times of what comes after it tell nothing
	at := f.each(line, f.end.EventTime, f.end.LSN, func(e *audit.Entry) {
		if err == nil {
			err = f.place(ctx, e, begins)
		}
		begins = false
	})
	if err != nil {
		return err
	}
	f.end = line.End
	f.old.endLine()
	f.endLineStamps()
	f.end.EventTime, f.end.Gap, f.end.Old, f.end.Restamp = at, f.gap, nil, f.restamp
	return nil
}

// place puts an event where its time belongs: mostly into the open batch. begins says that its time tells when its line was
// written.
func (f *follower) place(ctx context.Context, e *audit.Entry, begins bool) error {
	if f.old.open {
		if err := f.retellOld(); err != nil {
			return err
		}
	}
	age := f.ages.of(e.Time, f.old.open)
	if age == inTime && f.restamp != nil && f.stillFuture(e.Time) {
		age = tooNew
	}
	if age == inTime && f.old.open {
		if err := f.tellOld(ctx, e.Time); err != nil {
			return err
		}
	}
	if !e.Malformed {
		if err := f.tellGap(ctx, e, begins && f.tail.Hole(e.Time), age == inTime); err != nil {
			return err
		}
	}
	var err error
	switch age {
	case tooOld:
		err = f.takeOld(ctx, e)
	case tooNew:
		err = f.takeFuture(ctx, e)
	default:
		f.endFuture()
		f.pushOrBury(e, e.Time, e.Metadata)
	}
	if !e.Malformed {
		f.last = e.Time
	}
	return err
}

// push puts an entry into the open batch.
func (f *follower) push(e shipper.Entry) {
	if f.batch.Len() == 0 {
		f.metrics.began(e.Time)
	}
	f.batch.Add(e)
}

// each gives the entries of a line that are to be pushed, and returns the time of its last one. The line begins where the one before it
// ends, at a position and after an event of some time, and it is there again when it is read again.
func (f *follower) each(line *tailer.Line, before time.Time, lsn int64, push func(*audit.Entry)) (at time.Time) {
	at = before
	pieces := f.describe.Entries(line.Bytes, at, lsn)
	for e, ok := pieces.Next(); ok; e, ok = pieces.Next() {
		at = e.Time
		f.metrics.described(e)
		if !e.Blank && !f.tooEarly(e.Time) {
			push(e)
		}
	}
	return at
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
	if f.end.Old == nil {
		f.end.Old = f.old.held()
	}
	if f.end.LSN == f.sent {
		return nil
	}
	defer f.pulse.await()()
	if err := f.admitted.keep(ctx); err != nil {
		return fmt.Errorf("keeping what was admitted to the labels of %s: %w", f.path, err)
	}
	end, entries := f.end, f.batch.Len()
	acked := func() {
		f.metrics.acknowledged(end, entries)
		f.tell(entries)
		// A failed write is held, counted and logged by the store: it costs repeats after a crash, so shipping goes on.
		if err := f.commit(end); errors.Is(err, positions.ErrRefused) {
			f.logger.Error("bug: positions do not follow each other", "error", err)
		}
	}
	if err := f.queue.Send(ctx, f.batch, acked); err != nil {
		return fmt.Errorf("pushing what was read of %s: %w", f.path, err)
	}
	f.sent = end.LSN
	f.sayOldSoFar()
	f.batch, f.batchSize = f.queue.Batch(), f.queue.BatchSize(f.batchSize)
	if f.due != nil {
		f.cancelDue()
		f.due = nil
	}
	return nil
}

// commit moves the position, and notes of which destination it is.
func (f *follower) commit(p positions.Position) error {
	p.Destination = f.destination
	err := f.store.Commit(f.key, p)
	select {
	case f.moved <- struct{}{}:
	default:
	}
	return err
}

// keep makes the position before the line in hand durable, with what was added to it. It waits until all before is pushed.
func (f *follower) keep(ctx context.Context) error {
	if err := f.settle(ctx); err != nil {
		return err
	}
	return f.commitEnd()
}

// settle pushes all lines before the one in hand.
func (f *follower) settle(ctx context.Context) error {
	if err := f.send(ctx); err != nil {
		return err
	}
	defer f.pulse.await()()
	if err := f.queue.Flush(ctx); err != nil {
		return fmt.Errorf("pushing what was read of %s: %w", f.path, err)
	}
	return nil
}

// commitEnd is the second half of keep.
func (f *follower) commitEnd() error {
	defer f.pulse.await()()
	if err := f.commit(f.end); errors.Is(err, positions.ErrRefused) {
		return err
	}
	_ = f.store.Sync() // both are logged and counted there; it costs at most that a crash repeats something in other words
	return nil
}

// tell logs that pushing works, and that the backlog has been carried, once each. It is called by the queue, one at a
// time.
func (f *follower) tell(entries int) {
	if !f.shipped && entries > 0 {
		f.shipped = true
		f.logger.Info("the first events are shipped", "path", f.path, "events", entries)
		if !f.metrics.sound.Load() {
			f.logger.Warn("none of the lines read so far is an audit event: is this the --audit-log-path of a kube-apiserver?", "path", f.path)
		}
	}
	if !f.caughtUp && f.metrics.lag() == 0 {
		f.caughtUp = true
		f.logger.Info("caught up with the audit log", "path", f.path)
	}
}

// finish reads on for a batch at the most, and pushes what was read, as far as ctx allows. What Loki has not acknowledged by then is
// read again at the next start. The loop has ended, and nobody expects it to go on.
func (f *follower) finish(ctx context.Context) error {
	f.pulse.await()
	var err error
	if f.stopped {
		err = f.readOn(ctx)
	}
	err = errors.Join(err, f.send(ctx), f.queue.Drain(ctx)) // Drain waits for the pushes under way in any case
	if err == nil && f.leaving != nil {
		return f.commitLeaving()
	}
	return err
}

// readOn takes what has been written by now, up to a batch of it. A sidecar is stopped at the moment at which kube-apiserver has ended:
// what that wrote last is on its way to the reader then. Who has a backlog leaves it.
func (f *follower) readOn(ctx context.Context) error {
	f.tail.Look() // it may have been rotated just now
	atOnce, cancel := context.WithCancel(ctx)
	cancel()
	line, err := f.unplaced, error(nil)
	if line == nil {
		line, err = f.tail.Next(atOnce)
	}
	for left := f.batchSize; err == nil && ctx.Err() == nil; {
		if err := f.add(ctx, line); err != nil {
			return err
		}
		if left -= len(line.Bytes); left <= 0 {
			break
		}
		line, err = f.tail.Next(atOnce)
	}
	errors.As(err, &f.leaving)
	return nil // there is no more
}

// ignoreStop tells an error that comes from being stopped from one that does not.
func ignoreStop(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
