package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

const (
	node      = "demo-node"
	passes    = 8   // over the sample, each with timestamps of its own
	perSecond = 360 // events written a second
	killAt    = 0.5 // part of the events that is written before the agent is killed
	restartAt = 0.7 // part of the events that is written before it is started again
	patience  = 30 * time.Second
)

// demo is one run: a writer, the agent, and what it ships to.
type demo struct {
	dir      string // of everything, removed at the end
	auditLog string
	cluster  string // label that sets this run apart in a running Loki
	lines    [][]byte
	bytes    int
	first    time.Time // timestamps of the events
	last     time.Time

	writer   *rig.Writer
	agent    *rig.Agent
	endpoint *endpoint
	tally    *rig.Tally
	progress *progress
}

// show runs the demo and prints it to out. The error says what is not as it should be.
func show(ctx context.Context, lokiURL string, out io.Writer) (err error) {
	d := &demo{cluster: fmt.Sprintf("demo-%d", time.Now().UnixMilli())}
	if err := d.prepare(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.cleanUp()) }()
	if d.endpoint, err = newEndpoint(ctx, lokiURL); err != nil {
		return err
	}
	defer d.endpoint.close()
	if err := d.makeAgent(); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d real audit events (%s), written as kube-apiserver does: rotated at 1 MB, compressed.\n\n", len(d.lines), size(d.bytes))
	d.progress = newProgress(out)
	if err := d.ship(ctx); err != nil {
		return err
	}
	entries, result, err := d.readBack(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(out)
	printStreams(out, entries)
	fmt.Fprintf(out, "\n%s\n\nwritten %d, in Loki %d, missing %d, repeated %d\n",
		d.endpoint.repeats(), result.Written, result.InLoki, result.Missing, result.Repeated)
	if !result.Clean() {
		for _, example := range result.Examples {
			fmt.Fprintln(out, example)
		}
		return fmt.Errorf("not every event is in Loki once, as it was written: %s", result)
	}
	return nil
}

// prepare makes the directory and reads the sample that the repository carries, moved in time so that it ends now.
func (d *demo) prepare() error {
	root, err := rig.RepoRoot()
	if err != nil {
		return err
	}
	d.tally = rig.NewTally(&rig.Oracle{Node: node, Cluster: d.cluster})
	corpus := rig.Corpus{Dir: filepath.Join(root, "hack", "corpus")}
	for line, err := range corpus.Replay(time.Now(), slices.Repeat([]string{rig.SampleLog}, passes)...) {
		if err != nil {
			return err
		}
		at, err := rig.StageTime(line)
		if err != nil {
			return err
		}
		if d.first.IsZero() || at.Before(d.first) {
			d.first = at
		}
		if at.After(d.last) {
			d.last = at
		}
		d.tally.Wrote(line)
		d.lines = append(d.lines, slices.Clone(line))
		d.bytes += len(line) + 1
	}
	if d.dir, err = os.MkdirTemp("", "auditferry-demo-"); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	d.auditLog = filepath.Join(d.dir, "audit", "audit.log")
	d.writer = rig.NewWriter(rig.WriterConfig{Path: d.auditLog, MaxSize: 1, Compress: true, PerSecond: perSecond})
	return nil
}

func (d *demo) makeAgent() error {
	binary, err := rig.Binary("auditferry")
	if err != nil {
		return err
	}
	d.agent = &rig.Agent{
		Binary: binary, AuditLog: d.auditLog, LokiURL: d.endpoint.url, Dir: d.dir, Node: node,
		ExtraArgs: []string{"--cluster=" + d.cluster},
	}
	return nil
}

// ship writes and follows all events, with a kill on the way. When it returns, the agent and the writer have ended.
func (d *demo) ship(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	if err := d.agent.Start(); err != nil {
		cancel()
		return err
	}
	d.progress.say("agent", "started, pushes to %s", d.endpoint)
	writing, watching := make(chan error, 1), make(chan error, 1)
	go func() { writing <- d.write(ctx) }()
	go func() { watching <- d.progress.watch(ctx, d.auditLog) }()
	err := d.killOnce(ctx)
	if err != nil {
		cancel()
	}
	err = errors.Join(err, <-writing)
	if err == nil {
		err = d.finish(ctx)
	}
	cancel()
	err = errors.Join(err, <-watching)
	if d.agent.Running() == nil {
		err = errors.Join(err, d.agent.Kill())
	}
	return err
}

func (d *demo) write(ctx context.Context) error {
	for _, line := range d.lines {
		if err := d.writer.Write(ctx, line); err != nil {
			return errors.Join(err, d.writer.Close())
		}
	}
	d.progress.say("written", "all %d events", len(d.lines))
	return d.writer.Close()
}

// killOnce ends the agent by SIGKILL while events are being written and, where that can be known, while a push is under way;
// it starts it again after a while.
func (d *demo) killOnce(ctx context.Context) error {
	if err := d.written(ctx, killAt, d.agent.Running); err != nil {
		return err
	}
	if err := d.endpoint.pushArrives(ctx); err != nil {
		return err
	}
	if err := d.agent.Kill(); err != nil {
		return err
	}
	d.progress.say("SIGKILL", "the agent is gone%s; %d events are written", d.endpoint.unanswered(), d.writer.Lines())
	if err := d.written(ctx, restartAt, func() error { return nil }); err != nil {
		return err
	}
	if err := d.agent.Start(); err != nil {
		return err
	}
	d.progress.say("agent", "started again; %d events are written", d.writer.Lines())
	return nil
}

// written waits until that part of the events is written, or check fails.
func (d *demo) written(ctx context.Context, part float64, check func() error) error {
	return rig.Poll(ctx, func() (bool, error) {
		return float64(d.writer.Lines()) >= part*float64(len(d.lines)), check()
	})
}

// finish waits until Loki has acknowledged everything and stops the agent.
func (d *demo) finish(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := rig.Poll(waiting, func() (bool, error) {
		lag, err := d.agent.Metric(waiting, "auditferry_lag_bytes")
		return lag == 0, errors.Join(err, d.agent.Running())
	})
	if err != nil {
		return fmt.Errorf("waiting for %s to acknowledge everything: %w; the agent's last word: %s",
			d.endpoint, err, lastLine(d.agent.LogFile()))
	}
	code, err := d.agent.Stop(patience)
	if err != nil {
		return err
	}
	if code != 0 {
		return fmt.Errorf("the agent stopped with exit code %d; its last word: %s", code, lastLine(d.agent.LogFile()))
	}
	d.progress.say("agent", "everything is acknowledged; stopped by SIGTERM, exit code 0")
	return nil
}

// readBack gives what a log query finds, and how that compares with what was written. A Loki of several parts may show
// the last entries a moment after it has acknowledged them, so what is missing is asked for again.
func (d *demo) readBack(ctx context.Context) ([]rig.Entry, rig.Result, error) {
	query := fmt.Sprintf(`{job="kube-apiserver-audit", cluster=%q}`, d.cluster)
	deadline := time.Now().Add(patience)
	var entries []rig.Entry
	var result rig.Result
	err := rig.Poll(ctx, func() (bool, error) {
		d.tally.Reread()
		var err error
		if entries, err = d.endpoint.entries(ctx, query, d.first, d.last.Add(time.Microsecond)); err != nil {
			return false, err
		}
		for _, e := range entries {
			d.tally.Found(e)
		}
		result = d.tally.Result()
		return result.Missing == 0 || d.endpoint.embedded() || time.Now().After(deadline), nil
	})
	return entries, result, err
}

// cleanUp removes all files, once lumberjack has compressed the last backup: it would make new ones.
func (d *demo) cleanUp() error {
	if d.writer != nil {
		compressed, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = d.writer.Compressed(compressed) // in vain only if a file is left over, which the removal finds
	}
	if err := os.RemoveAll(d.dir); err != nil {
		return fmt.Errorf("removing the files of the demo: %w", err)
	}
	return nil
}
