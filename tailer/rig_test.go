package tailer

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/auditferry/auditferry/positions"
)

// world is a directory of audit logs, what writes and rotates them, and a Tailer that is stepped by hand.
type world struct {
	testing.TB
	dir, path string
	out       *os.File  // what the apiserver has open
	clock     time.Time // of the last rotation
	count     int       // lines made

	cfg    Config
	tailer *Tailer
	ends   []positions.Position // after each line that was read
	gaps   []positions.Gap      // before lines that were read
}

func newWorld(t testing.TB) *world {
	dir := t.TempDir()
	return newWorldAt(t, filepath.Join(dir, "audit.log"))
}

func newWorldAt(t testing.TB, path string) *world {
	w := &world{TB: t, dir: filepath.Dir(path), path: path, clock: time.Date(2026, 11, 23, 20, 33, 23, 92e6, time.UTC)}
	w.cfg = Config{
		Path: path, MaxLine: 1 << 20, Poll: time.Hour, MaxGone: 1 << 40, Logger: slog.New(slog.DiscardHandler),
	}
	t.Cleanup(w.kill)
	t.Cleanup(w.closeOut)
	return w
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// file gives the path of a file beside the log.
func (w *world) file(name string) string { return filepath.Join(w.dir, name) }

func (w *world) closeOut() {
	if w.out != nil {
		_ = w.out.Close()
		w.out = nil
	}
}

// raw writes to the log as it is.
func (w *world) raw(s string) {
	w.Helper()
	if w.out == nil {
		var err error
		w.out, err = os.OpenFile(w.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		w.ok(err)
	}
	_, err := w.out.WriteString(s)
	w.ok(err)
}

// line makes a line that is like no other.
func (w *world) line() string {
	w.count++
	return fmt.Sprintf(`{"auditID":"%06d","pad":"%s"}`, w.count, strings.Repeat("x", w.count%37))
}

// lines writes n new lines and gives them.
func (w *world) lines(n int) (written []string) {
	w.Helper()
	for range n {
		l := w.line()
		w.raw(l + "\n")
		written = append(written, l)
	}
	return written
}

// rename is the first half of a rotation by lumberjack. It gives the name of the backup.
func (w *world) rename() string {
	w.Helper()
	w.closeOut()
	w.clock = w.clock.Add(1250 * time.Millisecond)
	base := filepath.Base(w.path)
	ext := filepath.Ext(base)
	name := strings.TrimSuffix(base, ext) + "-" + w.clock.Format(backupTime) + ext
	w.ok(os.Rename(w.path, w.file(name)))
	return name
}

// rotate does as lumberjack does, up to the write that caused it.
func (w *world) rotate() string {
	w.Helper()
	name := w.rename()
	w.raw("")
	return name
}

func packed(content []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(content)
	_ = z.Close()
	return b.Bytes()
}

// pack puts the first part of the .gz of a backup beside it; all of it if part is 1.
func (w *world) pack(name string, part float64) {
	w.Helper()
	content, err := os.ReadFile(w.file(name))
	w.ok(err)
	z := packed(content)
	w.ok(os.WriteFile(w.file(name+".gz"), z[:int(float64(len(z))*part)], 0o600))
}

// gzip compresses a backup to the end.
func (w *world) gzip(name string) {
	w.Helper()
	w.pack(name, 1)
	w.remove(name)
}

func (w *world) remove(name string) {
	w.Helper()
	w.ok(os.Remove(w.file(name)))
}

// logrotate renames the log to .1 and those before it one further, packing what becomes .2 if told to.
func (w *world) logrotate(pack bool) {
	w.Helper()
	w.closeOut()
	w.shift()
	w.ok(os.Rename(w.path, w.path+".1"))
	if _, err := os.Stat(w.path + ".2"); err == nil && pack {
		w.gzip(filepath.Base(w.path) + ".2")
	}
	w.raw("")
}

func (w *world) shift() {
	w.Helper()
	for i := 30; i > 0; i-- {
		for _, ext := range []string{"", ".gz"} {
			err := os.Rename(fmt.Sprintf("%s.%d%s", w.path, i, ext), fmt.Sprintf("%s.%d%s", w.path, i+1, ext))
			if err != nil && !os.IsNotExist(err) {
				w.Fatal(err)
			}
		}
	}
}

// copyTo is the first half of copytruncate.
func (w *world) copyTo(name string) {
	w.Helper()
	content, err := os.ReadFile(w.path)
	w.ok(err)
	w.ok(os.WriteFile(w.file(name), content, 0o600))
}

func (w *world) truncate() {
	w.Helper()
	w.ok(os.Truncate(w.path, 0))
}

// start makes a Tailer that goes on from a position; nil for none.
func (w *world) start(from *positions.Position) {
	w.Helper()
	w.kill()
	w.ends, w.gaps = nil, nil
	var err error
	w.tailer, err = open(w.cfg, from)
	w.ok(err)
}

// restart kills the Tailer and makes another, which goes on after the last line that was read.
func (w *world) restart() {
	w.Helper()
	end := w.tailer.Start()
	if len(w.ends) > 0 {
		end = w.ends[len(w.ends)-1]
	}
	w.start(&end)
}

func (w *world) kill() {
	if w.tailer != nil {
		w.tailer.Close()
		w.tailer = nil
	}
}

func (w *world) look() {
	w.Helper()
	w.tailer.look(time.Now())
	w.checkHeld()
}

var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// next reads up to n lines, without waiting. A fragment ends in "…", a line that was cut in "+" and the bytes missing.
func (w *world) next(n int) (got []string) {
	w.Helper()
	for range n {
		l, err := w.tailer.Next(ended)
		if errors.Is(err, context.Canceled) {
			return got
		}
		w.ok(err)
		s := string(l.Bytes)
		if l.Cut > 0 {
			s += fmt.Sprintf("+%d", l.Cut)
		}
		if l.Fragment {
			s += "…"
		}
		if l.Gap != nil {
			w.gaps = append(w.gaps, *l.Gap)
		}
		got = append(got, s)
		w.ends = append(w.ends, l.End)
	}
	return got
}

func (w *world) drain() []string {
	w.Helper()
	return w.next(1 << 30)
}

// reads looks once, and checks what there is to read then.
func (w *world) reads(want ...[]string) {
	w.Helper()
	w.look()
	w.isSame(w.drain(), slices.Concat(want...))
}

func (w *world) isSame(got, want []string) {
	w.Helper()
	if slices.Equal(got, want) {
		return
	}
	short := func(lines []string) string {
		var b strings.Builder
		for _, l := range lines {
			fmt.Fprintf(&b, "\n\t%.60q", l)
		}
		return b.String()
	}
	w.Fatalf("read %d lines:%s\nwant %d:%s\nchain:%s", len(got), short(got), len(want), short(want), w.chain())
}

// chain describes the chain, for messages.
func (w *world) chain() string {
	var b strings.Builder
	for i, l := range w.tailer.chain.links {
		fmt.Fprintf(&b, "\n\t%s at=%v open=%v gone=%v id=%x", l.name(), i == w.tailer.chain.at, l.file != nil, l.gone, l.id[:3])
	}
	return b.String()
}

// checkHeld checks what the chain promises: little before the file in hand is open, no file stands in it twice.
func (w *world) checkHeld() {
	w.Helper()
	c := &w.tailer.chain
	open := 0
	for i, l := range c.links {
		if i < c.at && l.file != nil {
			open++
		}
		if open > keepLeft || slices.Index(c.links, l) != i {
			w.Fatalf("link %d is open though done, or twice in the chain:%s", i, w.chain())
		}
	}
}

// gapsAre checks what was missing, as far as it was read since the start.
func (w *world) gapsAre(want ...positions.Gap) {
	w.Helper()
	if !slices.Equal(w.gaps, want) {
		w.Fatalf("gaps %+v, want %+v", w.gaps, want)
	}
}

// counted checks a metric.
func (w *world) counted(c prometheus.Metric, want float64) {
	w.Helper()
	var m dto.Metric
	w.ok(c.Write(&m))
	got := m.GetCounter().GetValue()
	if m.Gauge != nil {
		got = m.GetGauge().GetValue()
	}
	if got != want {
		w.Fatalf("%v is %v, want %v", c.Desc(), got, want)
	}
}

// corpus opens a file of the corpus, unpacked.
func corpus(t testing.TB, name string) []byte {
	t.Helper()
	for _, dir := range []string{os.Getenv("AUDITFERRY_CORPUS"), "../../shared/corpus", "../hack/corpus"} {
		f, err := os.Open(filepath.Join(dir, name))
		if dir == "" || err != nil {
			continue
		}
		defer func() { _ = f.Close() }()
		var r io.Reader = f
		if strings.HasSuffix(name, ".gz") {
			if r, err = gzip.NewReader(f); err != nil {
				t.Fatal(err)
			}
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	t.Skipf("no %s: set AUDITFERRY_CORPUS", name)
	return nil
}
