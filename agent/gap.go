package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/auditferry/auditferry/agent/audit"
	"github.com/auditferry/auditferry/positions"
	"github.com/auditferry/auditferry/shipper"
)

// reasonUnseen is the reason of a gap that only the times of events tell: files came and went between two looks.
const reasonUnseen = "unseen_files"

// gapLine is the entry in Loki that tells of a gap.
type gapLine struct {
	Reason string     `json:"gap"`
	Node   string     `json:"node"`
	Path   string     `json:"path"`
	Last   *time.Time `json:"last_event,omitempty"`
	First  time.Time  `json:"first_event"`
	Files  int        `json:"lost_files,omitempty"`
	Bytes  int64      `json:"lost_bytes,omitempty"`
}

// resumeGap takes up the gap in the position at which reading begins.
func (f *follower) resumeGap() {
	f.gap = f.end.Gap
	if f.gap != nil && f.gap.First.IsZero() && f.gap.Last.IsZero() { // an agent of before did not note it
		gap := *f.gap
		gap.Last = f.last
		f.gap = &gap
	}
}

// missed notes what is missing before a line. It stays with every position from there on until an event has come that says
// where the gap ends. A gap that is in the position already, whole, is the one that is found again after a restart.
func (f *follower) missed(gap positions.Gap) {
	switch {
	case f.gap == nil:
		gap.Last = f.last
		f.gap = &gap
	case f.gap.First.IsZero():
		both := *f.gap
		both.Files += gap.Files
		both.Bytes += gap.Bytes
		f.gap = &both
	}
}

// tellGap adds an entry for the gap before an event, if there is one; hole says that the times show one. It waits for an event
// that is sent at its own time, which is that of the entry too.
func (f *follower) tellGap(ctx context.Context, e *audit.Entry, hole, inTime bool) error {
	if hole {
		f.missed(positions.Gap{Reason: reasonUnseen})
	}
	if f.gap == nil {
		return nil
	}
	if gap := *f.gap; !gap.First.IsZero() && f.ages.of(gap.First, false) == tooOld { // since it was kept, before a crash
		gap.First = time.Time{}
		f.gap = &gap
	}
	if gap := *f.gap; !gap.First.IsZero() { // before a crash it was kept, and perhaps told: in the same words
		if err := f.addGap(gap); err != nil {
			return err
		}
		f.gap = nil
		if gap.First.Equal(e.Time) {
			return nil
		}
		f.missed(positions.Gap{Reason: gap.Reason}) // what came after it then is gone as well by now
	}
	if !inTime {
		return nil
	}
	gap := *f.gap
	gap.First = e.Time
	f.end.Gap = &gap // so that it is told in the same words after a crash
	if err := f.keep(ctx); err != nil {
		return fmt.Errorf("keeping a gap: %w", err)
	}
	f.gap = nil
	return f.addGap(gap)
}

// addGap puts the entry into the open batch.
func (f *follower) addGap(gap positions.Gap) error {
	text := gapLine{Reason: gap.Reason, Node: f.node, Path: f.path, First: gap.First, Files: gap.Files, Bytes: gap.Bytes}
	if !gap.Last.IsZero() {
		text.Last = &gap.Last
	}
	line, err := json.Marshal(text)
	if err != nil {
		return fmt.Errorf("writing the entry for a gap: %w", err)
	}
	f.metrics.gaps.Inc()
	known := []any{"path", f.path, "reason", gap.Reason, "first_event", gap.First}
	if text.Last != nil {
		known = append(known, "last_event", gap.Last)
	}
	if gap.Files+int(gap.Bytes) > 0 {
		known = append(known, "files", gap.Files, "bytes", gap.Bytes)
	}
	f.logger.Error("gap: events are missing in the audit log", known...)
	f.push(shipper.Entry{Stream: f.gapStream, Time: gap.First, Line: line,
		Metadata: []shipper.Field{{Name: "detected_level", Value: []byte("error")}}})
	return nil
}
