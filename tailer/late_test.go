package tailer

import (
	"os"
	"slices"
	"testing"
	"time"
)

// second is an apiserver whose life overlaps with that of the world's: both opened the same log.
func (w *world) second() *os.File {
	w.Helper()
	out, err := os.OpenFile(w.path, os.O_WRONLY|os.O_APPEND, 0o600)
	w.ok(err)
	w.Cleanup(func() { _ = out.Close() })
	return out
}

// late writes new lines to a file that is not the log any more.
func (w *world) late(out *os.File, n int) (written []string) {
	w.Helper()
	for range n {
		l := w.line()
		_, err := out.WriteString(l + "\n")
		w.ok(err)
		written = append(written, l)
	}
	return written
}

// One apiserver rotates, the other goes on writing to what is a backup now; it may be packed and deleted under it.
func TestTwoWriters(t *testing.T) {
	for _, test := range []struct {
		name string
		then func(w *world, backup string)
	}{
		{"plain", func(*world, string) {}},
		{"packed", (*world).gzip},
		{"packed and deleted", func(w *world, backup string) { w.gzip(backup); w.look(); w.remove(backup + ".gz") }},
		{"deleted", (*world).remove},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			a := w.lines(2)
			w.start(nil)
			w.reads(a)
			other := w.second()
			backup := w.rotate()
			b := w.lines(1)
			w.reads(b)
			l := w.late(other, 2)
			w.reads(l)
			test.then(w, backup)
			l = w.late(other, 1)
			c := w.lines(2)
			w.reads(c, l) // what is in hand is read to its end first
			w.reads()
			if n := w.tailer.Unread(); n != 0 {
				t.Fatalf("unread %d, want 0:%s", n, w.chain())
			}

			// A line that is written in two halves is not torn.
			half := w.line()
			_, err := other.WriteString(half[:10])
			w.ok(err)
			d := w.lines(1)
			w.reads(d)
			_, err = other.WriteString(half[10:] + "\n")
			w.ok(err)
			w.reads([]string{half})

			// One whose end never comes is handed over when the file is let go.
			_, err = other.WriteString(half[:9])
			w.ok(err)
			w.reads()
			w.reads()
			var e []string
			if test.name == "plain" {
				for range keepLeft {
					w.rotate()
					e = append(e, w.lines(1)...)
				}
			}
			w.tailer.look(time.Now().Add(lateFor + time.Second))
			w.sameSet(w.drain(), append(e, half[:9]+"…"))
			w.tailer.look(time.Now().Add(2 * lateFor))
			w.isSame(w.drain(), nil)
			w.gapsAre()
		})
	}
}

// While the agent is down, both writers go on.
func TestTwoWritersAndRestarts(t *testing.T) {
	w := newWorld(t)
	want := w.lines(3)
	other := w.second()
	w.start(nil)
	w.reads(want)
	w.rotate()
	b := w.lines(2)
	w.reads(b)
	w.kill()
	l := w.late(other, 2)
	c := w.lines(2)
	w.rotate()
	d := w.lines(1)
	end := w.ends[len(w.ends)-1]
	w.start(&end)
	w.isSame(w.drain(), slices.Concat(c, l, d))

	// Each restart goes on in the middle of whatever was in hand, and with the others where they were left.
	more := w.late(other, 3)
	w.look()
	w.isSame(w.next(1), more[:1])
	e := w.lines(2)
	w.restart()
	w.isSame(w.next(1), more[1:2])
	w.restart()
	w.isSame(w.drain(), slices.Concat(more[2:], e))
	w.restart()
	w.reads()
	w.gapsAre()
}

// In a backlog, what comes late to files that were left is read before too many of them are open.
func TestLateInBacklog(t *testing.T) {
	w := newWorld(t)
	w.lines(1)
	other := w.second()
	var want []string
	for range 3 * keepLeft {
		w.rotate()
		want = append(want, w.lines(1)...)
	}
	w.start(nil)
	w.next(2)
	l := w.late(other, 1)
	got := w.drain()
	if !slices.Contains(got, l[0]) || len(got) != len(want) {
		t.Fatalf("read %q after the first two lines; %q came late", got, l)
	}
	w.checkHeld()
}

// What was left is not held for ever where it takes up disk.
func TestLetGo(t *testing.T) {
	w := newWorld(t)
	w.start(nil)
	w.reads(w.lines(1))
	backup := w.rotate()
	w.reads(w.lines(1))
	w.gzip(backup)
	w.look()
	if l := w.tailer.chain.links[0]; l.file == nil {
		t.Fatalf("let go at once:%s", w.chain())
	}
	w.tailer.look(time.Now().Add(lateFor + time.Second))
	if l := w.tailer.chain.links[0]; l.file != nil {
		t.Fatalf("held:%s", w.chain())
	}
}

// A clock that steps back gives names that lie, to files that the agent has seen grow and to files that it has not.
func TestClockStepsBack(t *testing.T) {
	for _, down := range []bool{false, true} {
		w := newWorld(t)
		w.lines(1)
		w.rotate()
		w.lines(1)
		w.rotate()
		a := w.lines(2)
		w.start(nil)
		w.look()
		w.drain()
		b := w.lines(1) // not read yet
		w.rotate()
		c := w.lines(2) // in hand or not, its backup sorts before all that was read
		if down {
			w.kill()
		} else {
			w.look()
		}
		w.clock = w.clock.Add(-time.Hour)
		w.rotate()
		d := w.lines(2)
		w.rotate()
		e := w.lines(1)
		if down {
			end := w.ends[1+len(a)]
			w.start(&end)
			w.gapsAre()
		}
		w.look()
		w.sameSet(w.drain(), slices.Concat(b, c, d, e))
		f := w.lines(1)
		w.restart()
		w.reads(f)
		w.restart()
		w.reads()
	}
}

// sameSet is isSame where the order is not known.
func (w *world) sameSet(got, want []string) {
	w.Helper()
	slices.Sort(got)
	slices.Sort(want)
	w.isSame(got, want)
}
