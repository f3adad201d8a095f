//go:build e2e

package faults

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/auditferry/auditferry/hack/rig"
)

// nextEvent gives the next event and counts it as written: the caller writes it, with a newline.
func (r *run) nextEvent() []byte {
	r.Helper()
	line, err := r.events.line()
	r.must(err)
	r.wrote(line)
	return line
}

// wrote counts a line, or an entry that a damaged line must become, as written. No two may be equal.
func (r *run) wrote(line []byte) {
	r.Helper()
	if !r.ledger.wrote(line) {
		r.Fatal("a scenario writes the same line twice")
	}
}

// rotating gives a writer of the audit log that rotates at 1 MB, which is lumberjack's least, and keeps all backups.
func (r *run) rotating() *rig.Writer {
	w := rig.NewWriter(rig.WriterConfig{Path: r.auditLog, MaxSize: 1})
	r.Cleanup(func() {
		if err := w.Close(); err != nil {
			r.Error(err)
		}
	})
	return w
}

// write writes n events through w.
func (r *run) write(w *rig.Writer, n int) {
	r.Helper()
	for range n {
		r.must(w.Write(r.ctx, r.nextEvent()))
	}
}

// keepWriting writes events through a writer of cfg until stop is called, which waits for the writer. The events are those of the
// run: nobody else may take any meanwhile. cfg.Path is that of the run if it is empty.
func (r *run) keepWriting(cfg rig.WriterConfig) (stop func()) {
	if cfg.Path == "" {
		cfg.Path = r.auditLog
	}
	ctx, cancel := context.WithCancel(r.ctx)
	done := make(chan error, 1)
	go func() { done <- r.writeUntil(ctx, rig.NewWriter(cfg)) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			r.Error(err)
		}
	}
	r.Cleanup(stop)
	return stop
}

func (r *run) writeUntil(ctx context.Context, w *rig.Writer) error {
	for ctx.Err() == nil {
		line, err := r.events.line()
		if err != nil {
			return err
		}
		// Noted first, since the agent may be as fast; so it must be written, whatever becomes of ctx.
		r.ledger.wrote(line)
		if err := w.Write(context.WithoutCancel(ctx), line); err != nil {
			return err
		}
	}
	return w.Close()
}

// backups gives how many backups of the audit log there are; one that is being packed counts once.
func (r *run) backups() int {
	r.Helper()
	files, err := rig.AuditFiles(r.auditLog)
	r.must(err)
	return len(files) - 1
}

// logged says whether the agent's log holds all words in one line.
func (r *run) logged(words ...string) bool {
	r.Helper()
	text, err := os.ReadFile(r.agent.LogFile())
	r.must(err)
	for line := range strings.Lines(string(text)) {
		all := true
		for _, word := range words {
			all = all && strings.Contains(line, word)
		}
		if all {
			return true
		}
	}
	return false
}

// deadLetters gives the lines of the dead-letter files.
func (r *run) deadLetters() [][]byte {
	r.Helper()
	files, err := filepath.Glob(filepath.Join(r.agent.Dir, "dead-letters*.jsonl"))
	r.must(err)
	var letters [][]byte
	for _, file := range files {
		text, err := os.ReadFile(file)
		r.must(err)
		for line := range bytes.Lines(text) {
			letters = append(letters, bytes.TrimSuffix(line, []byte{'\n'}))
		}
	}
	return letters
}
