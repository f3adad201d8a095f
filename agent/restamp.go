package main

import (
	"context"
	"fmt"
	"time"

	"github.com/auditferry/auditferry/agent/audit"
	"github.com/auditferry/auditferry/positions"
	"github.com/auditferry/auditferry/shipper"
)

// Under --old-events=restamp, events that Loki does not take at their own time are sent at one that it takes, the same for many,
// with their own in the structured metadata event_time. That time is chosen by the clock, so it is kept with the position
// before the first event that gets it: a replay gives the same.
const (
	// oldStampMargin is how much the time chosen for old events has left before it is too old itself. Half of it later another
	// is chosen; after a restart, only when it comes to oldMargin, so that what was in flight gets the same again.
	oldStampMargin = time.Hour
	// stampBehind is how far behind the newest event the time for old ones may be: Loki refuses what is over an hour behind
	// the newest entry of a stream.
	stampBehind = 30 * time.Minute
	// For as long the time chosen for future events is used, and after a restart for as long.
	futureStampUse      = 30 * time.Minute
	futureStampUseAgain = 50 * time.Minute
)

// stamping is what is to be known of the times in follower.restamp.
type stamping struct {
	used     bool // for an event of the line in hand
	restored bool // was chosen before a restart
}

// chooseOldStamp sees to it that there is a time for old events.
func (f *follower) chooseOldStamp(ctx context.Context) error {
	f.oldStamp.used = true
	left := oldStampMargin / 2
	if f.oldStamp.restored {
		left = oldMargin
	}
	if f.restamp != nil && f.restamp.Old.After(f.ages.now.Add(left-f.ages.reject)) {
		return nil
	}
	if err := f.settle(ctx); err != nil {
		return err
	}
	f.ages.look() // pushing may have taken long
	at := f.ages.now.Add(oldStampMargin - f.ages.reject)
	if near := f.last.Add(-stampBehind); near.After(at) && near.Before(f.ages.now) {
		at = near
	}
	next := positions.Restamp{Old: at}
	if f.restamp != nil {
		next.Future = f.restamp.Future
	}
	f.oldStamp.restored = false
	return f.keepRestamp(next)
}

// stillFuture reports whether an event that is in time now was not when the time for such events was chosen: for a replay, the
// present has come nearer. What is not ahead of the clock at all has nothing to do with that.
func (f *follower) stillFuture(event time.Time) bool {
	if f.restamp.Future.IsZero() || !event.After(f.restamp.Future.Add(futureGrace)) {
		return false
	}
	f.ages.look()
	return event.After(f.ages.now)
}

// chooseFutureStamp sees to it that there is a time for events in the future, of which event is one.
func (f *follower) chooseFutureStamp(ctx context.Context, event time.Time) error {
	f.futureStamp.used = true
	use := futureStampUse
	if f.futureStamp.restored {
		use = futureStampUseAgain
	}
	if f.restamp != nil && f.restamp.Future.After(f.ages.now.Add(-use)) {
		return nil
	}
	if err := f.settle(ctx); err != nil {
		return err
	}
	f.ages.look()
	next := positions.Restamp{Future: f.ages.now}
	if latest := event.Add(-futureGrace - 1); next.Future.After(latest) { // that it is stillFuture for
		next.Future = latest
	}
	if f.restamp != nil {
		next.Old = f.restamp.Old
	}
	f.futureStamp.restored = false
	return f.keepRestamp(next)
}

func (f *follower) keepRestamp(next positions.Restamp) error {
	f.restamp, f.end.Restamp = &next, &next
	if err := f.commitEnd(); err != nil {
		return fmt.Errorf("keeping the time for events that Loki does not take at their own: %w", err)
	}
	return nil
}

// resumeStamps takes up the times in the position at which reading begins.
func (f *follower) resumeStamps() {
	f.restamp = f.end.Restamp
	f.oldStamp.restored, f.futureStamp.restored = f.restamp != nil, f.restamp != nil
}

// endLineStamps forgets, after a line, the times that it did not use: the next stretch gets its own.
func (f *follower) endLineStamps() {
	if f.restamp == nil {
		return
	}
	next := *f.restamp
	if !f.oldStamp.used {
		next.Old = time.Time{}
	}
	if !f.futureStamp.used {
		next.Future = time.Time{}
	}
	f.oldStamp.used, f.futureStamp.used = false, false
	switch next {
	case *f.restamp:
	case positions.Restamp{}:
		f.restamp = nil
	default:
		f.restamp = &next
	}
}

// pushAt puts an event into the open batch at another time than its own, which goes into its metadata.
func (f *follower) pushAt(e *audit.Entry, at time.Time) {
	f.stampText = e.Time.AppendFormat(f.stampText[:0], time.RFC3339Nano)
	f.pushOrBury(e, at, append(e.Metadata, shipper.Field{Name: "event_time", Value: f.stampText}))
}

// bury puts an event into the dead letters, in its turn.
func (f *follower) bury(e *audit.Entry, reason, words string) {
	f.batch.Bury(shipper.Entry{Stream: e.Stream, Time: e.Time, Line: e.Line, Metadata: e.Metadata}, reason, words)
}
