package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/auditferry/auditferry/agent/audit"
	"github.com/auditferry/auditferry/positions"
	"github.com/auditferry/auditferry/tailer"
)

// dryRun reads what is there now and prints what would be pushed of it.
func dryRun(ctx context.Context, cfg *Config, stdout, stderr io.Writer) error {
	logger, closeLog, err := newLogger(cfg, stderr)
	if err != nil {
		return err
	}
	defer closeLog()
	start, err := cfg.start()
	if err != nil {
		return err
	}
	admitted, err := audit.NewAdmissions(cfg.labels(""), cfg.MaxStreams, cfg.AuditLogPath...)
	if err != nil {
		return err
	}
	for _, path := range cfg.AuditLogPath {
		describer, err := audit.NewDescriber(cfg.labels(path), admitted, path)
		if err != nil {
			return err
		}
		tail, err := tailer.New(cfg.tail(path, start, logger, nil), nil)
		if err != nil {
			return explain(err)
		}
		f := &follower{
			describe: describer, since: start.Since, ages: newAges(cfg.clock, cfg.LokiRejectOld),
			metrics: newPathMetrics(prometheus.NewRegistry(), path, positions.Position{}, tail.Unread, tail.Headroom, nil),
		}
		aside := asideCount{mode: cfg.OldEvents, old: tail.Old()}
		streams, err := f.count(ctx, tail, firstEventTime(start, cfg.clock()), &aside)
		tail.Close()
		if err != nil {
			return err
		}
		if err := printStreams(stdout, path, streams, &aside); err != nil {
			return fmt.Errorf("printing the streams: %w", err)
		}
		tellMissing(stdout, path)
	}
	return nil
}

// streamCount is what would be pushed to one stream.
type streamCount struct {
	labels         string
	entries, bytes int
}

// count reads on until nothing more is there, or ctx ends; at is the time of lines that have none, to begin with. What would
// not be pushed at its own time is counted aside.
func (f *follower) count(ctx context.Context, tail *tailer.Tailer, at time.Time, aside *asideCount) (streams map[string]*streamCount, err error) {
	now, cancel := context.WithCancel(ctx)
	cancel() // do not wait for more
	streams = make(map[string]*streamCount)
	var lsn int64
	for ctx.Err() == nil {
		line, err := tail.Next(now)
		if errors.Is(err, context.Canceled) {
			return streams, tail.Trouble()
		}
		if err != nil {
			return nil, err
		}
		at = f.each(line, at, lsn, func(e *audit.Entry) {
			if !aside.pushed(f.ages.of(e.Time, aside.inStretch)) {
				return
			}
			s := streams[e.Stream]
			switch {
			case e.TooLong:
				s = &aside.tooLong
			case s == nil:
				s = &streamCount{labels: e.Stream}
				streams[e.Stream] = s
			}
			s.entries++
			s.bytes += len(e.Line)
		})
		lsn = line.End.LSN
	}
	return nil, errors.New("interrupted before the end")
}

// asideCount is what would not be pushed at its own time because Loki would refuse it.
type asideCount struct {
	mode          string // --old-events
	old           tailer.Old
	events, ahead int
	inStretch     bool
	tooLong       streamCount // cannot be reduced
}

// pushed counts an event, and reports whether it would be pushed.
func (a *asideCount) pushed(of age) bool {
	a.inStretch = of == tooOld || of == tooNew && a.inStretch
	switch of {
	case tooOld:
		a.events++
	case tooNew:
		a.ahead++
	}
	return of == inTime || a.mode == oldRestamp
}

// String is what the last line of the table says of it; nothing if all would be pushed as it is.
func (a *asideCount) String() (s string) {
	becomes := map[string]string{oldSkip: "left out", oldDeadLetter: "for the dead letters", oldRestamp: "restamped"}
	if a.events > 0 {
		s += fmt.Sprintf("; %d events too old: %s", a.events, becomes[a.mode])
	}
	if a.old.Files > 0 {
		s += fmt.Sprintf("; %d backups too old: not read, %d bytes", a.old.Files, a.old.Bytes)
	}
	if future := becomes[oldDeadLetter]; a.ahead > 0 {
		if a.mode == oldRestamp {
			future = becomes[oldRestamp]
		}
		s += fmt.Sprintf("; %d events in the future: %s", a.ahead, future)
	}
	return s
}

// printStreams prints the streams with the most bytes first.
func printStreams(w io.Writer, path string, streams map[string]*streamCount, aside *asideCount) error {
	sorted := slices.SortedFunc(maps.Values(streams), func(a, b *streamCount) int {
		return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(a.labels, b.labels))
	})
	total := streamCount{labels: fmt.Sprintf("%d streams of %s%s", len(streams), path, aside)}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "entries\tbytes\t\t stream")
	for _, s := range sorted {
		total.entries += s.entries
		total.bytes += s.bytes
	}
	sorted = append(sorted, &total)
	if long := aside.tooLong; long.entries > 0 {
		long.labels = "to the dead letters: cannot be reduced to --max-line-size"
		sorted = append(sorted, &long)
	}
	for _, s := range sorted {
		fmt.Fprintf(table, "%d\t%d\t\t %s\n", s.entries, s.bytes, s.labels)
	}
	return table.Flush()
}
