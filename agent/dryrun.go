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
	for _, path := range cfg.AuditLogPath {
		describer, err := audit.NewDescriber(cfg.labels(path))
		if err != nil {
			return err
		}
		tail, err := tailer.New(cfg.tail(path, start, logger, nil), nil)
		if err != nil {
			return explain(err)
		}
		f := &follower{
			describe: describer, since: start.Since,
			metrics: newPathMetrics(prometheus.NewRegistry(), path, positions.Position{}, tail.Unread, tail.Headroom),
		}
		streams, err := f.count(ctx, tail, firstEventTime(start))
		tail.Close()
		if err != nil {
			return err
		}
		if err := printStreams(stdout, path, streams); err != nil {
			return fmt.Errorf("printing the streams: %w", err)
		}
	}
	return nil
}

// streamCount is what would be pushed to one stream.
type streamCount struct {
	labels         string
	entries, bytes int
}

// count reads on until nothing more is there, or ctx ends; at is the time of lines that have none, to begin with.
func (f *follower) count(ctx context.Context, tail *tailer.Tailer, at time.Time) (map[string]*streamCount, error) {
	now, cancel := context.WithCancel(ctx)
	cancel() // do not wait for more
	streams := make(map[string]*streamCount)
	for ctx.Err() == nil {
		line, err := tail.Next(now)
		if errors.Is(err, context.Canceled) {
			return streams, tail.Trouble()
		}
		if err != nil {
			return nil, err
		}
		at = f.each(line, at, func(e audit.Entry) {
			s := streams[e.Stream]
			if s == nil {
				s = &streamCount{labels: e.Stream}
				streams[e.Stream] = s
			}
			s.entries++
			s.bytes += len(e.Line)
		})
	}
	return nil, errors.New("interrupted before the end")
}

// printStreams prints the streams with the most bytes first.
func printStreams(w io.Writer, path string, streams map[string]*streamCount) error {
	sorted := slices.SortedFunc(maps.Values(streams), func(a, b *streamCount) int {
		return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(a.labels, b.labels))
	})
	total := streamCount{labels: fmt.Sprintf("%d streams of %s", len(streams), path)}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "entries\tbytes\t\t stream")
	for _, s := range sorted {
		total.entries += s.entries
		total.bytes += s.bytes
	}
	for _, s := range append(sorted, &total) {
		fmt.Fprintf(table, "%d\t%d\t\t %s\n", s.entries, s.bytes, s.labels)
	}
	return table.Flush()
}
