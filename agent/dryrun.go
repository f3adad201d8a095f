package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/auditferry/auditferry/agent/audit"
	"github.com/auditferry/auditferry/positions"
	"github.com/auditferry/auditferry/tailer"
)

// checkConfig opens what serve would open, without following, pushing, or taking the positions away from an agent that
// runs.
func checkConfig(cfg *Config, stdout io.Writer) error {
	if err := cfg.makeStateDir(); err != nil {
		return err
	}
	quiet := slog.New(slog.DiscardHandler)
	if _, err := newClient(cfg, quiet, nil); err != nil {
		return err
	}
	if dir := filepath.Dir(cfg.PositionsFile); !isDir(dir) {
		return fmt.Errorf("--positions-file=%s: there is no directory %s: create it", cfg.PositionsFile, dir)
	}
	for _, path := range cfg.AuditLogPath {
		tail, err := tailer.New(cfg.tail(path, tailer.Start{}, quiet, nil), nil)
		if err != nil {
			return explain(err)
		}
		tail.Close()
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintf(stdout, "%s does not exist yet: the agent would wait for it\n", path)
		}
	}
	fmt.Fprintln(stdout, "the configuration is fine")
	return nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// dryRun reads what is there now and prints what would be pushed of it.
func dryRun(cfg *Config, stdout, stderr io.Writer) error {
	logger, closeLog, err := newLogger(cfg, stderr)
	if err != nil {
		return err
	}
	defer closeLog()
	describer, err := audit.NewDescriber(cfg.labels())
	if err != nil {
		return err
	}
	start, err := cfg.start()
	if err != nil {
		return err
	}
	for _, path := range cfg.AuditLogPath {
		tail, err := tailer.New(cfg.tail(path, start, logger, nil), nil)
		if err != nil {
			return explain(err)
		}
		f := &follower{
			describe: describer, since: start.Since,
			metrics: newPathMetrics(prometheus.NewRegistry(), path, positions.Position{}, tail.Unread),
		}
		streams, err := f.count(tail)
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

// count reads on until nothing more is there.
func (f *follower) count(tail *tailer.Tailer) (map[string]*streamCount, error) {
	now, cancel := context.WithCancel(context.Background())
	cancel() // do not wait for more
	streams := make(map[string]*streamCount)
	at := time.Now()
	for {
		line, err := tail.Next(now)
		if errors.Is(err, context.Canceled) {
			return streams, nil
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
