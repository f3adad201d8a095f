//go:build e2e && linux

package packages

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

// auditLog is an audit log with real events, written as if they happened now, and the Loki in which they must be.
type auditLog struct {
	t      *testing.T
	dir    string
	events [][]byte // as they were recorded
	next   int
	writer *rig.Writer
	tally  *rig.Tally
	loki   *lokitest.Server
	url    string
}

func newAuditLog(t *testing.T) *auditLog {
	t.Helper()
	corpus, err := rig.FindCorpus()
	if err != nil {
		t.Fatal(err)
	}
	a := &auditLog{t: t, dir: t.TempDir(), tally: rig.NewTally(nil), loki: lokitest.New()}
	for line, err := range corpus.Lines(rig.MetadataLog) {
		if err != nil {
			t.Fatal(err)
		}
		a.events = append(a.events, slices.Clone(line))
	}
	a.writer = rig.NewWriter(rig.WriterConfig{Path: filepath.Join(a.dir, "audit.log"), MaxSize: 1, Compress: true})
	t.Cleanup(func() {
		if err := a.writer.Close(); err != nil {
			t.Error(err)
		}
	})
	if a.url, err = a.loki.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.loki.Close)
	return a
}

// write appends so many events.
func (a *auditLog) write(events int) {
	a.t.Helper()
	var line []byte
	for range events {
		recorded := a.events[a.next%len(a.events)]
		a.next++
		at, err := rig.StageTime(recorded)
		if err != nil {
			a.t.Fatal(err)
		}
		if line, err = rig.Shift(time.Since(at)).Append(line[:0], recorded); err != nil {
			a.t.Fatal(err)
		}
		a.tally.Wrote(line)
		if err := a.writer.Write(a.t.Context(), line); err != nil {
			a.t.Fatal(err)
		}
	}
}

// result compares what a log query shows with what was written.
func (a *auditLog) result() rig.Result {
	a.tally.Reread()
	for _, e := range a.loki.Entries() {
		a.tally.Found(rig.Entry{Time: e.Time, Line: []byte(e.Line)})
	}
	return a.tally.Result()
}

// wantAll waits until everything written is in Loki, once.
func (a *auditLog) wantAll(m *machine) {
	a.t.Helper()
	m.until("all events in Loki", func() bool { return a.result().Missing == 0 })
	result := a.result()
	a.t.Log(result)
	if !result.Clean() {
		a.t.Errorf("not every event is in Loki once, as it was written: %s: %v", result, result.Examples)
	}
}
