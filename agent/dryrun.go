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
	"net"
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

// checkConfig tries what serve needs, without following, pushing, or taking the positions away from an agent that runs.
// It leaves nothing behind.
func checkConfig(cfg *Config, stdout io.Writer) error {
	if err := cfg.checkState(stdout); err != nil {
		return err
	}
	if _, err := cfg.httpConfig(); err != nil {
		return err
	}
	if cfg.LogFile != "" {
		if err := tryWriting("--log-file", cfg.LogFile); err != nil {
			return err
		}
	}
	if cfg.ListenAddress != "" {
		if _, err := net.ResolveTCPAddr("tcp", cfg.ListenAddress); err != nil {
			return fmt.Errorf("--listen-address: %w", err)
		}
	}
	quiet := slog.New(slog.DiscardHandler)
	for _, path := range cfg.AuditLogPath {
		tail, err := tailer.New(cfg.tail(path, tailer.Start{}, quiet, nil), nil)
		if err != nil {
			return explain(err)
		}
		tail.Close()
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintf(stdout, "%s does not exist yet: the agent would wait for it\n", path)
			if !isDir(filepath.Dir(path)) {
				fmt.Fprintf(stdout, "nor does its directory: is the path right?\n")
			}
		}
	}
	fmt.Fprintln(stdout, "the configuration is fine")
	return nil
}

// checkState tries where positions and dead letters go.
func (c *Config) checkState(stdout io.Writer) error {
	made := "" // a directory that the agent would make
	if dir := filepath.Dir(c.PositionsFile); c.PositionsFile == defaultPositionsFile() && !isDir(dir) {
		made = dir
		fmt.Fprintf(stdout, "%s does not exist yet: the agent would make it\n", dir)
	} else if err := tryWriting("--positions-file", c.PositionsFile); err != nil {
		return err
	}
	if filepath.Dir(c.DeadLetterFile) == made {
		return nil
	}
	return tryWriting("--dead-letter-file", c.DeadLetterFile)
}

// tryWriting says why a file cannot be made beside path.
func tryWriting(flag, path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".auditferry-check-*")
	if err != nil {
		return fmt.Errorf("%s=%s: its directory must exist and be writable: %w", flag, path, err)
	}
	_ = f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return fmt.Errorf("%s=%s: %w", flag, path, err)
	}
	return nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

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
