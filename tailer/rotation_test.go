package tailer

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/auditferry/auditferry/positions"
)

func TestLiveRotation(t *testing.T) {
	w := newWorld(t)
	a := w.lines(3)
	w.start(nil)
	w.reads(a)
	b := w.lines(2)
	w.reads(b)
	w.rename()
	w.reads() // the path is missing for a moment
	w.raw("")
	w.reads()
	c := w.lines(2)
	w.reads(c)
	w.counted(w.tailer.observer.rotations, 1)
	if n := w.tailer.Unread(); n != 0 {
		t.Fatalf("unread %d, want 0", n)
	}
	d := w.lines(1)
	if n := w.tailer.Unread(); n != int64(len(d[0])+1) {
		t.Fatalf("unread %d, want %d", n, len(d[0])+1)
	}
}

// between is a log handler that does something once, between a read and the decision to leave the file.
type between struct {
	slog.Handler
	do func()
}

func (between) Enabled(context.Context, slog.Level) bool { return true }

func (b between) WithAttrs([]slog.Attr) slog.Handler { return b }

func (b between) Handle(_ context.Context, r slog.Record) error {
	if r.Message == readableAgain {
		b.do()
	}
	return nil
}

// What is written between the last read and the rotation must not be skipped.
func TestLastWriteBeforeRotation(t *testing.T) {
	w := newWorld(t)
	var b, c []string
	w.cfg.Logger = slog.New(between{do: func() {
		b = w.lines(1)
		w.rotate()
		c = w.lines(1)
		w.ok(w.tailer.chain.scan(time.Now()))
	}})
	a := w.lines(1)
	w.start(nil)
	w.isSame(w.drain(), a)
	w.tailer.observer.readErr = "so that the end of the file is logged"
	got := w.drain()
	w.isSame(got, slices.Concat(b, c))
	if len(got) != 2 {
		t.Fatal("nothing happened between")
	}
}

// The disk gets the space of a plain backup back though the packed one waits to be read.
func TestHeldInPackedForm(t *testing.T) {
	w := newWorld(t)
	a := w.lines(1)
	w.start(nil)
	w.rotate()
	b := w.lines(1)
	name := w.rotate()
	c := w.lines(1)
	w.look()
	long := time.Now().Add(-2 * lateFor)
	w.ok(os.Chtimes(w.file(name), long, long)) // or another apiserver may be writing to it
	w.gzip(name)
	w.look()
	if l := w.tailer.chain.links[1]; !l.gz || !l.file.gz {
		t.Fatalf("the plain file is still held:%s", w.chain())
	}
	w.reads(a, b, c)
}

func TestRotationsBetweenTwoLooks(t *testing.T) {
	for _, packs := range []string{"none", "some", "all"} {
		t.Run(packs, func(t *testing.T) {
			w := newWorld(t)
			want := w.lines(2)
			w.start(nil)
			w.isSame(w.drain(), want)
			want = nil
			for i := range 5 {
				want = append(want, w.lines(2)...)
				name := w.rotate()
				if packs == "all" || packs == "some" && i%2 == 0 {
					w.gzip(name)
				}
			}
			want = append(want, w.lines(1)...)
			w.reads(want)
		})
	}
}

// A reader that waits for Loki never calls Next; the backups are pruned meanwhile.
func TestPrunedWhileBlocked(t *testing.T) {
	for _, compress := range []bool{false, true} {
		w := newWorld(t)
		want := w.lines(3)
		w.start(nil)
		w.isSame(w.next(1), want[:1])
		want = want[1:]
		var backups []string
		for range 8 {
			backups = append(backups, w.rotate())
			want = append(want, w.lines(2)...)
			w.look()
			if len(backups) > 1 && compress {
				w.gzip(backups[len(backups)-2])
				backups[len(backups)-2] += ".gz"
				w.look()
			}
			if len(backups) > 3 {
				w.remove(backups[len(backups)-4])
				w.look()
			}
		}
		w.reads(want)
		w.gapsAre()
		w.tailer.look(time.Now().Add(2 * lateFor)) // nobody writes to what was left any more
		if n := len(w.tailer.chain.links); n != 4 {
			t.Fatalf("%d links, want the 3 backups and the active file:%s", n, w.chain())
		}
	}
}

func TestMaxGone(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxGone = 130
	first := w.lines(1)
	w.start(nil)
	var backups []string
	var kept [][]string
	for range 4 {
		backups = append(backups, w.rotate())
		w.look()
		w.raw("123456789 123456789 123456789 123456789 123456789 12345678" + string(rune('a'+len(kept))) + "\n") // 60 bytes
		kept = append(kept, []string{"123456789 123456789 123456789 123456789 123456789 12345678" + string(rune('a'+len(kept)))})
	}
	backups = append(backups, w.rotate())
	last := w.lines(1)
	w.look()
	for _, name := range backups {
		w.remove(name)
	}
	w.reads(first, kept[2], kept[3], last)
	w.counted(w.tailer.observer.lostFiles, 2)
	w.counted(w.tailer.observer.lostBytes, 120)
	w.gapsAre(positions.Gap{Reason: reasonDeleted, Files: 2, Bytes: 120})
}

func TestMaxOpen(t *testing.T) {
	w := newWorld(t)
	w.raw("")
	w.start(nil)
	w.tailer.chain.maxOpen = 3
	var want []string
	for i := range 12 {
		want = append(want, w.lines(2)...)
		name := w.rotate()
		w.look()
		if i%3 == 0 {
			w.gzip(name)
		}
		w.look()
		open := 0
		for _, l := range w.tailer.chain.links {
			if l.file != nil {
				open++
			}
		}
		if open > 4 {
			t.Fatalf("%d files open:%s", open, w.chain())
		}
	}
	want = append(want, w.lines(1)...)
	w.reads(want)
	w.gapsAre()
}

func TestLogrotate(t *testing.T) {
	for _, compress := range []bool{false, true} {
		w := newWorld(t)
		want := w.lines(2)
		w.logrotate(compress)
		want = append(want, w.lines(2)...)
		w.logrotate(compress)
		want = append(want, w.lines(2)...)
		w.start(nil)
		w.isSame(w.drain(), want)
		for range 12 {
			w.logrotate(compress)
			want = w.lines(2)
			w.reads(want)
			w.logrotate(compress)
			want = w.lines(1)
			w.logrotate(compress)
			want = append(want, w.lines(1)...)
			w.look()
			w.isSame(w.next(1), want[:1])
			w.restart()
			w.isSame(w.drain(), want[1:])
		}
		w.gapsAre()
	}
}

// After an external mv the apiserver writes on to the old file, though there may be a new one.
func TestWriterKeepsTheOldFile(t *testing.T) {
	for _, name := range []string{"audit.log.1", "elsewhere", "removed"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a := w.lines(2)
			w.start(nil)
			w.reads(a)
			if name == "removed" {
				w.remove("audit.log")
			} else {
				w.ok(os.Rename(w.path, w.file(name)))
			}
			b := w.lines(2)
			w.reads(b)
			w.ok(os.WriteFile(w.path, nil, 0o600))
			w.look()
			c := w.lines(2)
			w.raw("torn")
			w.reads(c)
			w.closeOut()
			d := w.lines(1)
			w.reads([]string{"torn…"}, d)
		})
	}
}

func TestFragments(t *testing.T) {
	w := newWorld(t)
	w.start(nil)
	w.raw(`{"a`)
	w.reads()
	w.raw(`":1`)
	w.reads()
	w.raw("}\n{\"b")
	w.reads([]string{`{"a":1}`})
	w.rotate()
	w.reads() // nothing says yet that the backup will not grow
	w.raw(`{"c"`)
	w.reads([]string{`{"b…`})
	w.restart()
	w.raw("}\n")
	w.reads([]string{`{"c"}`})
	w.raw("alone")
	w.rotate()
	w.raw("alone too")
	w.rotate()
	w.raw("last\n")
	w.reads([]string{"alone…", "alone too…", "last"})
	w.rotate()
	w.raw("packed")
	w.look()
	w.gzip(w.rotate())
	w.reads([]string{"packed…"}, w.lines(1))
	w.gapsAre()
}
