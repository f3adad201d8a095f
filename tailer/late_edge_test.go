package tailer

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/auditferry/auditferry/positions"
)

// noHoles reads lines whose events have that time: none shows that something is missing before it.
func (w *world) noHoles(event time.Time, want []string) {
	w.Helper()
	for _, l := range want {
		got := w.nextLine()
		if string(got.Bytes) != l {
			w.Fatalf("read %q, want %q:%s", got.Bytes, l, w.chain())
		}
		if w.tailer.Hole(event) {
			w.Fatalf("a hole before %q:%s", l, w.chain())
		}
	}
}

// A file that came late was rotated long before the file that is read after it began: that is no hole. Nor is it after a
// restart in the middle.
func TestLateIsNoHole(t *testing.T) {
	for _, restart := range []bool{false, true} {
		w := newWorld(t)
		a := w.lines(1)
		other := w.second()
		w.start(nil)
		w.reads(a)
		w.rotate()
		b := w.lines(1)
		w.reads(b)
		w.rotate()
		event := w.clock // of what made it necessary, the first line of c
		c := w.lines(1)
		w.look()
		l := w.late(other, 2)
		w.noHoles(event.Add(-time.Hour), l[:1])
		if restart {
			w.restart()
		}
		w.noHoles(event.Add(-time.Hour), l[1:])
		w.noHoles(event, c)
	}
}

// What another apiserver writes between the last read of a file and the moment at which it is left is late, not lost.
func TestWrittenWhileLeaving(t *testing.T) {
	w := newWorld(t)
	var other *os.File
	var l []string
	ends := 0
	w.cfg.Logger = slog.New(between{do: func() {
		if ends++; ends < 2 {
			w.tailer.observer.readErr = "so that the second end of the file is logged, too"
			return
		}
		l = w.late(other, 1)
	}})
	a := w.lines(1)
	other = w.second()
	w.start(nil)
	w.reads(a)
	w.rotate()
	b := w.lines(1)
	w.tailer.observer.readErr = "so that the end of the file is logged"
	w.look()
	got := w.drain()
	if ends != 2 {
		t.Fatalf("%d ends of the file were seen, want 2", ends)
	}
	w.isSame(got, slices.Concat(l, b))
}

// A file that was put aside and then truncated begins anew.
func TestTruncatedWhilePutAside(t *testing.T) {
	w := newWorld(t)
	a := w.lines(1)
	other := w.second()
	w.start(nil)
	w.reads(a)
	w.rotate()
	w.reads(w.lines(2))
	l := w.late(other, 2)
	w.look()
	w.isSame(w.next(1), l[:1]) // the log is put aside
	w.truncate()
	w.look()
	c := w.lines(5)
	w.look()
	w.isSame(w.drain(), slices.Concat(l[1:], c))
	w.gapsAre()
}

// What came late to a file that is not held any more is read from its .gz.
func TestLateAndPackedUnseen(t *testing.T) {
	w := newWorld(t)
	a := w.lines(1)
	other := w.second()
	w.start(nil)
	w.reads(a)
	backup := w.rotate()
	for range keepLeft + 1 {
		w.reads(w.lines(1))
		w.rotate()
	}
	w.reads(w.lines(1))
	if l := w.tailer.chain.links[0]; l.file != nil {
		t.Fatalf("held:%s", w.chain())
	}
	l := w.late(other, 2)
	w.gzip(backup)
	w.reads(l)
	w.reads()
	if n := w.tailer.Unread(); n != 0 {
		t.Fatalf("unread %d, want 0", n)
	}
}

// What came late to a file that is not held, and is deleted before it can be read, is missing.
func TestLateAndDeletedUnread(t *testing.T) {
	w := newWorld(t)
	a := w.lines(1)
	other := w.second()
	w.start(nil)
	w.reads(a)
	backup := w.rotate()
	for range keepLeft + 1 {
		w.reads(w.lines(1))
		w.rotate()
	}
	w.reads(w.lines(1))
	l := w.late(other, 2)
	w.rotate()
	w.look()
	w.remove(backup)
	w.look()
	w.reads(w.lines(1))
	w.gapsAre(positions.Gap{Reason: reasonDeleted, Files: 1, Bytes: int64(len(l[0]) + len(l[1]) + 2)})
}

// What comes late after a restart is seen at the next look, though nothing happens in the directory; and when the file is
// packed and deleted meanwhile.
func TestLateAfterRestart(t *testing.T) {
	w := newWorld(t)
	a := w.lines(1)
	other := w.second()
	w.start(nil)
	w.reads(a)
	backup := w.rotate()
	w.reads(w.lines(1))
	w.restart()
	w.tailer.look(time.Now().Add(2 * settle)) // from here on the directory is not listed
	w.isSame(w.drain(), nil)
	w.reads(w.late(other, 1))
	w.reads(w.lines(1))
	w.restart()
	w.gzip(backup)
	w.look()
	w.look()
	w.reads(w.late(other, 1))
}

// A backup ahead that was packed is held as it was, as long as another apiserver may be writing to it.
func TestLateAndPackedAhead(t *testing.T) {
	w := newWorld(t)
	w.start(nil)
	a := w.lines(1)
	w.look()
	w.rotate()
	b := w.lines(1)
	other := w.second()
	backup := w.rotate()
	c := w.lines(1)
	w.look()
	w.gzip(backup)
	w.look()
	l := w.late(other, 2)
	w.reads(a, b, l, c)
}

// An empty backup is not the file of a position that has none.
func TestNothingAcknowledgedBesideAnEmptyBackup(t *testing.T) {
	w := newWorld(t)
	w.start(nil)
	begin := w.tailer.Start()
	begin.EventTime = w.clock.Add(24 * time.Hour)
	a := w.lines(1)
	name := w.rotate()
	content, err := os.ReadFile(w.file(name))
	w.ok(err)
	w.ok(os.WriteFile(w.file("audit-2026-11-23T20-00-00.000.log"), content, 0o600)) // cannot be told from it
	w.rotate()
	b := w.lines(1)
	w.start(&begin)
	w.reads(a, a, b)
	w.gapsAre()
}

// The position before the first line knows as much as the one that it was made from.
func TestStartKnowsTheOthers(t *testing.T) {
	w := newWorld(t)
	a := w.lines(2)
	other := w.second()
	w.start(nil)
	w.reads(a)
	w.rotate()
	w.reads(w.lines(1))
	w.kill()
	l := w.late(other, 1)
	end := w.ends[len(w.ends)-1]
	w.start(&end)
	if begin := w.tailer.Start(); !begin.Equal(end) {
		t.Errorf("start at %+v, want %+v", begin, end)
	}
	w.reads(l)
}

// After a step of the clock while the agent was down, what is named before what was read is read last, and its time tells
// nothing.
func TestClockStepsBackWhileDown(t *testing.T) {
	w := newWorld(t)
	a := w.lines(1)
	w.start(nil)
	w.reads(a)
	w.kill()
	w.rotate()
	first := w.clock
	b := w.lines(1)
	w.rotate()
	second := w.clock
	c := w.lines(1)
	w.clock = w.clock.Add(-time.Hour)
	w.rotate()
	d := w.lines(1)
	end := w.ends[0]
	end.EventTime = first.Add(-time.Second)
	w.start(&end)
	w.noHoles(first, b)
	w.noHoles(second, c)
	w.noHoles(w.clock, d)
}

// BenchmarkTwoWriters turns to a backup and back for one line each.
func BenchmarkTwoWriters(b *testing.B) {
	for _, backups := range []int{10, 500} {
		b.Run(fmt.Sprint(backups), func(b *testing.B) {
			w := newWorld(b)
			w.lines(1)
			for range backups {
				w.rotate()
				w.lines(1)
			}
			w.start(nil)
			other := w.second()
			w.rotate()
			w.lines(1)
			w.look()
			w.drain()
			b.ReportAllocs()
			for b.Loop() {
				w.late(other, 1)
				w.lines(1)
				if got := len(w.next(3)); got != 2 {
					b.Fatalf("read %d lines, want 2", got)
				}
			}
		})
	}
}
