package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/auditferry/auditferry/agent/audit"
	"github.com/auditferry/auditferry/positions"
	"github.com/auditferry/auditferry/shipper"
	"github.com/auditferry/auditferry/tailer"
)

// What --old-events says is to be done with events that are too old for Loki.
const (
	oldSkip       = "skip"
	oldDeadLetter = "dead-letter"
	oldRestamp    = "restamp"
)

// reasonOld is the reason of an entry in the gap stream that tells of a stretch of events that are too old.
const reasonOld = "too_old"

// oldLine is that entry.
type oldLine struct {
	Reason string `json:"gap"`
	Node   string `json:"node"`
	Path   string `json:"path"`
	positions.Stretch
}

// oldEvents keeps account of the stretch of old events that is being read, if one is. The stretch is part of the position
// (positions.Stretch), so it changes between two lines only: what a damaged line adds to it, it does at its end.
//
// A stretch is told in Loki once, by these steps; a crash in between repeats those after it:
//
//  1. Positions in it hold it as far as it has come: what comes after is read again and counted on.
//  2. An event comes that is in time. The position before it, with its time as the end, is kept, durably, before
//  3. the entry is added to the batch that the event goes to, at the time of the event, so that Loki takes it.
//  4. The batch is acknowledged with a position that does not hold the stretch any more.
//
// A restart between 2 and 4 finds the stretch with its end, and tells it again in the same words: a repeat for Loki. Only if
// that end has become too old itself, the stretch goes on; if it was told, it is told again, with more in it.
type oldEvents struct {
	mode  string // --old-events
	words string // in dead letters

	open  bool              // there is a stretch before the line in hand that is not told
	run   positions.Stretch // that one
	line  positions.Stretch // of the line in hand
	begun bool              // was logged
	soFar bool              // it was logged how many there are so far

	skipped, deadLetters, restamped, files prometheus.Counter
}

func newOldEvents(mode string, reject time.Duration, reg prometheus.Registerer, path string) oldEvents {
	reg = prometheus.WrapRegistererWith(prometheus.Labels{"path": path}, reg)
	events := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "auditferry_old_events_total", Help: "Events older than --loki-reject-old, by what --old-events did with them.",
	}, []string{"action"})
	files := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "auditferry_old_files_total", Help: "Backups that were not read because all in them is older than --loki-reject-old.",
	})
	reg.MustRegister(events, files)
	return oldEvents{
		mode: mode, words: fmt.Sprintf("older than --loki-reject-old=%v", reject), files: files,
		skipped: events.WithLabelValues("skipped"), deadLetters: events.WithLabelValues("dead_letter"),
		restamped: events.WithLabelValues("restamped"),
	}
}

// add counts an event of the line in hand by what was done with it.
func (o *oldEvents) add(event time.Time, done string) {
	switch done {
	case oldDeadLetter:
		o.deadLetters.Inc()
		o.line.DeadLetters++
	case oldRestamp:
		o.restamped.Inc()
		o.line.Restamped++
	default:
		o.skipped.Inc()
		o.line.Skipped++
	}
	widen(&o.line, event, event)
}

func widen(s *positions.Stretch, oldest, newest time.Time) {
	if !oldest.IsZero() && (s.Oldest.IsZero() || oldest.Before(s.Oldest)) {
		s.Oldest = oldest
	}
	if newest.After(s.Newest) {
		s.Newest = newest
	}
}

// endLine makes what the line in hand had part of the stretch.
func (o *oldEvents) endLine() {
	if o.line.Empty() {
		return
	}
	if !o.open {
		o.run, o.open = positions.Stretch{Last: o.line.Last}, true
	}
	o.run.Skipped += o.line.Skipped
	o.run.DeadLetters += o.line.DeadLetters
	o.run.Restamped += o.line.Restamped
	widen(&o.run, o.line.Oldest, o.line.Newest)
	o.line = positions.Stretch{}
}

// held is the stretch for a position between two lines.
func (o *oldEvents) held() *positions.Stretch {
	if !o.open {
		return nil
	}
	run := o.run
	return &run
}

// close ends the stretch and gives it.
func (o *oldEvents) close() (run positions.Stretch) {
	run = o.run
	o.run, o.open, o.begun, o.soFar = positions.Stretch{}, false, false, false
	return run
}

// resumeOld takes up the stretch in the position at which reading begins, and what the tailer has left out after it.
func (f *follower) resumeOld(left tailer.Old) {
	if f.end.Old != nil {
		f.old.run, f.old.open = *f.end.Old, true
	}
	if left.Files == 0 {
		return
	}
	f.old.files.Add(float64(left.Files))
	f.logger.Warn("backups are not read: all in them is older than Loki takes", "path", f.path, "files", left.Files,
		"bytes", left.Bytes, "last_rotated", left.Until, "loki_reject_old", f.ages.reject)
	if !f.old.open {
		f.old.run, f.old.open = positions.Stretch{Last: f.last}, true
	}
	f.old.begun = true
	f.old.run.First = time.Time{} // the file of that event is among them
	f.old.run.Files += left.Files
	f.old.run.Bytes += left.Bytes
	widen(&f.old.run, time.Time{}, left.Until)
	f.end.Old = f.old.held()
}

// takeOld does with an event that is too old what --old-events says.
func (f *follower) takeOld(ctx context.Context, e *audit.Entry) error {
	if !f.old.begun {
		f.old.begun = true
		f.logger.Warn("events are older than Loki takes", "path", f.path, "event", e.Time, "old_events", f.old.mode,
			"loki_reject_old", f.ages.reject)
	}
	if f.old.line.Empty() {
		f.old.line.Last = f.last
	}
	done := f.old.mode
	switch {
	case done == oldDeadLetter:
		f.bury(e, shipper.ReasonOld, f.old.words)
	case done == oldRestamp && e.TooLong:
		done = oldDeadLetter // another time does not make it shorter
		f.bury(e, shipper.ReasonLine, f.tooLong(e))
	case done == oldRestamp:
		if err := f.chooseOldStamp(ctx); err != nil {
			return err
		}
		f.pushAt(e, f.restamp.Old)
	}
	f.old.add(e.Time, done)
	return nil
}

// retellOld tells a stretch that was over before a crash, and perhaps told, in the same words.
func (f *follower) retellOld() error {
	if f.old.run.First.IsZero() {
		return nil
	}
	if f.ages.of(f.old.run.First, false) == tooOld {
		f.old.run.First = time.Time{}
		return nil
	}
	return f.addOld(f.old.close())
}

// tellOld tells the stretch before an event that is in time.
func (f *follower) tellOld(ctx context.Context, event time.Time) error {
	run := f.old.run
	run.First = event
	f.end.Old = &run
	if err := f.keep(ctx); err != nil {
		return fmt.Errorf("keeping a stretch of old events: %w", err)
	}
	f.old.close()
	return f.addOld(run)
}

// addOld puts the entry for a stretch into the open batch.
func (f *follower) addOld(run positions.Stretch) error {
	line, err := json.Marshal(oldLine{Reason: reasonOld, Node: f.node, Path: f.path, Stretch: run})
	if err != nil {
		return fmt.Errorf("writing the entry for a stretch of old events: %w", err)
	}
	f.logger.Warn("events are young enough for Loki again", append(f.oldFacts(&run), "first_event", run.First)...)
	f.push(shipper.Entry{Stream: f.gapStream, Time: run.First, Line: line,
		Metadata: []shipper.Field{{Name: "detected_level", Value: []byte("warn")}}})
	return nil
}

// sayOldSoFar logs what is in the stretch when all of the log was read and it is not over: it may take long until it is.
func (f *follower) sayOldSoFar() {
	if !f.old.open || f.old.soFar || f.tail.Unread() > 0 {
		return
	}
	f.old.soFar = true
	f.logger.Warn("the newest event in the audit log is older than Loki takes", f.oldFacts(&f.old.run)...)
}

func (f *follower) oldFacts(run *positions.Stretch) []any {
	facts := []any{"path", f.path, "old_events", f.old.mode, "events", run.Events()}
	if !run.Oldest.IsZero() {
		facts = append(facts, "oldest_event", run.Oldest)
	}
	facts = append(facts, "newest_event", run.Newest)
	if run.Files > 0 {
		facts = append(facts, "files_not_read", run.Files, "bytes_not_read", run.Bytes)
	}
	return facts
}
