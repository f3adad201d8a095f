package main

import (
	"context"
	"encoding/json"
	"errors"
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

// missed notes what is missing before a line. It stays with every position from there on until an event has come that says
// where the gap ends. A gap that is in the position already, whole, is the one that is found again after a restart.
func (f *follower) missed(gap positions.Gap) {
	switch {
	case f.gap == nil:
		f.gap = &gap
	case f.gap.First.IsZero():
		both := *f.gap
		both.Files += gap.Files
		both.Bytes += gap.Bytes
		f.gap = &both
	}
}

// tellGap adds an entry for the gap before an event, if there is one; hole says that the times show one.
func (f *follower) tellGap(ctx context.Context, e audit.Entry, hole bool) error {
	if hole {
		f.missed(positions.Gap{Reason: reasonUnseen})
	}
	if f.gap == nil {
		return nil
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
	gap := *f.gap
	gap.Last, gap.First = f.last, e.Time
	if err := f.keepGap(ctx, gap); err != nil {
		return err
	}
	f.gap = nil
	return f.addGap(gap)
}

// keepGap makes a gap part of the position before it, durably, so that it is told in the same words after a crash.
func (f *follower) keepGap(ctx context.Context, gap positions.Gap) error {
	f.end.Gap = &gap
	if err := f.send(ctx); err != nil {
		return err
	}
	if err := f.queue.Flush(ctx); err != nil {
		return fmt.Errorf("pushing what was read of %s before a gap: %w", f.path, err)
	}
	err := f.store.Commit(f.path, f.end)
	if errors.Is(err, positions.ErrRefused) {
		return fmt.Errorf("keeping a gap: %w", err)
	}
	_ = f.store.Sync() // both are logged and counted there; it costs at most that a crash tells the gap in other words
	return nil
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
