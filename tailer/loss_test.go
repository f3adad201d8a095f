package tailer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/auditferry/auditferry/positions"
)

// nextLine reads one line.
func (w *world) nextLine() Line {
	w.Helper()
	l, err := w.tailer.Next(ended)
	if errors.Is(err, context.Canceled) {
		w.Fatalf("nothing to read:%s", w.chain())
	}
	w.ok(err)
	w.ends = append(w.ends, l.End)
	return *l
}

// The name of a backup says when it was rotated. A file whose first event is later does not follow it.
func TestFilesUnseen(t *testing.T) {
	w := newWorld(t)
	w.lines(1)
	w.rotate()
	first := w.clock
	w.lines(2)
	w.rotate()
	second := w.clock
	w.lines(1)
	w.start(nil)
	check := func(name string, event time.Time, want bool) {
		t.Helper()
		if got := w.tailer.Hole(event); got != want {
			t.Errorf("%s: hole %v, want %v", name, got, want)
		}
	}
	w.nextLine()
	check("first file", first, false)
	end := w.nextLine().End
	check("event that made room", first.Add(-time.Millisecond), false)
	check("late event", first.Add(-time.Hour), false)
	check("same millisecond", first.Add(900*time.Microsecond), false)
	check("next file is missing", first.Add(50*time.Millisecond), true)
	w.nextLine()
	check("in the middle", second.Add(time.Hour), false)
	w.nextLine()
	check("active file", second, false)
	check("active file, hole", second.Add(time.Hour), true)
	w.start(&end)
	w.nextLine()
	check("in the middle after a restart", second.Add(time.Hour), false)
	w.nextLine()
	check("active file after a restart", second.Add(time.Hour), true)

	// A file that was rotated before its own first event saw the clock step back: backups are not in the order of their names.
	w.lines(1)
	w.rotate()
	w.lines(1)
	w.start(nil)
	w.nextLine()
	check("clock stepped back in this file", first.Add(time.Hour), false)
	w.nextLine()
	check("after a step", second, false)
	w.nextLine()
	w.nextLine()
	check("after a step, another file", second.Add(time.Second), false)
	w.nextLine()
	w.nextLine()
	check("after a step, what is written now", second.Add(time.Hour), true)
}

// The file in hand and its successors were pruned between two looks, under names that nobody saw.
func TestPrunedUnseen(t *testing.T) {
	w := newWorld(t)
	w.clock = time.Now().Add(time.Hour) // names that are later than what is written now
	old := w.rotateWith(w.lines(1))
	w.lines(1)
	w.start(nil)
	w.reads([]string{`{"auditID":"000001","pad":"x"}`, `{"auditID":"000002","pad":"xx"}`})
	var backups []string
	for range 3 {
		backups = append(backups, w.rotate())
		w.lines(1)
	}
	for _, name := range append(backups[:2], old) {
		w.remove(name)
	}
	w.look()
	l := w.nextLine()
	if now := time.Now(); w.tailer.Hole(now.Add(-time.Hour)) || !w.tailer.Hole(now.Add(time.Second)) {
		t.Errorf("line %.30q: hole an hour ago %v, in a second %v", l.Bytes, w.tailer.Hole(now.Add(-time.Hour)), w.tailer.Hole(now.Add(time.Second)))
	}

	// The directory went with all, and there is another now: the apiserver wrote on to the file in hand.
	w = newWorldAt(t, filepath.Join(t.TempDir(), "audit", "audit.log"))
	w.clock = time.Now().Add(time.Hour)
	w.ok(os.Mkdir(w.dir, 0o700))
	w.lines(1)
	w.start(nil)
	w.look()
	w.drain()
	w.ok(os.RemoveAll(w.dir))
	w.look()
	w.ok(os.Mkdir(w.dir, 0o700))
	w.closeOut()
	w.lines(1)
	w.rotate()
	w.lines(1)
	w.look()
	if l := w.nextLine(); w.tailer.Hole(time.Now().Add(time.Minute)) {
		t.Errorf("a hole before %q, in a directory that was made anew", l.Bytes)
	}

	// An external rm is none: older backups stand.
	w = newWorld(t)
	w.rotateWith(w.lines(1))
	a := w.lines(1)
	w.start(nil)
	w.look()
	w.drain()
	w.remove("audit.log")
	w.closeOut()
	w.lines(1)
	w.look()
	if w.nextLine(); w.tailer.Hole(time.Now().Add(time.Hour)) {
		t.Errorf("a hole after %q, which was removed", a)
	}
}

// rotateWith is rotate; the lines say what was written before.
func (w *world) rotateWith([]string) string {
	w.Helper()
	return w.rotate()
}

// A file that is cut in place loses what was not read of it, unless it was copied before.
func TestTruncationLoses(t *testing.T) {
	for _, copied := range []bool{false, true} {
		w := newWorld(t)
		var a []string
		for i := range 6 {
			a = append(a, strings.Repeat(string(rune('a'+i)), 100_000))
			w.raw(a[i] + "\n")
		}
		w.start(nil)
		w.look()
		w.isSame(w.next(1), a[:1])
		if copied {
			w.copyTo("audit.log.1")
		}
		w.truncate()
		b := w.lines(1)
		w.look()
		if copied {
			w.reads(a[1:], b)
			w.gapsAre()
			continue
		}
		w.reads(a[1:2], b) // one more had been fetched
		w.gapsAre(positions.Gap{Reason: reasonTruncated, Bytes: 4 * 100_001})
	}
}

// Truncated again and again while the reader waits: each copy is read, and what has none is lost.
func TestTruncatedTwice(t *testing.T) {
	for _, copied := range []bool{false, true} {
		w := newWorld(t)
		w.lines(1)
		w.rotate()
		big := strings.Repeat("big ", 100_000)
		w.raw(big + "1\n" + big + "2\n")
		w.start(nil)
		w.look()
		w.next(2)
		w.copyTo("audit.log.1")
		w.truncate()
		w.look()
		a := w.lines(3)
		w.look()
		w.shift()
		if copied {
			w.copyTo("audit.log.1")
		}
		w.truncate()
		w.look()
		b := w.lines(2)
		w.look()
		got := w.drain()
		want := append([]string{big + "2"}, b...)
		var gaps []positions.Gap
		if copied {
			want = append(want, a...)
		} else {
			gaps = append(gaps, positions.Gap{Reason: reasonTruncated, Bytes: int64(len(strings.Join(a, "")) + len(a))})
		}
		w.sameSet(got, want)
		w.gapsAre(gaps...)
		c := w.lines(1)
		w.reads(c)
		w.restart()
		w.reads()
	}
}

// After a truncation, the file does not follow the backup that it followed when it was made.
func TestTruncationIsNoHole(t *testing.T) {
	w := newWorld(t)
	w.lines(1)
	w.rotate()
	w.lines(1)
	w.start(nil)
	w.look()
	w.drain()
	w.copyTo("audit.log.1")
	w.truncate()
	w.lines(1)
	w.look()
	l := w.nextLine()
	if w.tailer.Hole(w.clock.Add(time.Hour)) {
		t.Errorf("a hole before %q", l.Bytes)
	}
}

// What is missing before a file that is lost itself is missing before the next one.
func TestLossesAddUp(t *testing.T) {
	w := newWorld(t)
	a := w.lines(1)
	w.start(nil)
	w.reads(a)
	w.tailer.chain.maxOpen = 0 // so that nothing ahead is held
	w.rotate()
	var backups []string
	for range 4 {
		w.lines(1)
		backups = append(backups, w.rotate())
	}
	last := w.lines(1)
	w.look()
	for _, name := range backups {
		w.remove(name)
		w.look()
	}
	w.reads(last)
	bytes := int64(0)
	for i := 2; i <= 5; i++ {
		bytes += int64(len(`{"auditID":"000000","pad":""}`) + i + 1)
	}
	w.gapsAre(positions.Gap{Reason: reasonDeleted, Files: 4, Bytes: bytes})
}

func TestHeadroom(t *testing.T) {
	w := newWorld(t) // rotates every 1.25 s
	w.lines(1)
	w.start(nil)
	headroom := func(after time.Duration) time.Duration { return w.tailer.Headroom(w.clock.Add(after)) }
	if got := headroom(0); got >= 0 {
		t.Errorf("without backups: %v", got)
	}
	for range 4 {
		w.rotate()
		w.lines(1)
	}
	const pace = 1250 * time.Millisecond
	w.look()
	for _, test := range []struct {
		name  string
		read  int
		after time.Duration
		want  time.Duration
	}{
		{"the oldest is the next to go", 0, 0, pace},
		{"soon", 0, time.Second, pace - time.Second},
		{"overdue: it has become quiet", 0, 10 * time.Second, 0},
		{"the second oldest", 2, 0, 2 * pace},
		{"the active file", 3, 0, 5 * pace},
		{"the active file, quiet for an hour", 0, time.Hour, 4 * time.Hour},
	} {
		w.next(test.read)
		if got := headroom(test.after); got != test.want {
			t.Errorf("%s: %v, want %v:%s", test.name, got, test.want, w.chain())
		}
	}

	// What is deleted and held open has none.
	w.rotate()
	w.lines(1)
	w.rotate()
	w.lines(1)
	w.look()
	w.next(1) // the first of those two is in hand
	name := w.tailer.chain.links[w.tailer.chain.at].name()
	w.remove(name)
	w.look()
	if got := headroom(0); got != 0 {
		t.Errorf("%s is deleted and in hand: %v", name, got)
	}
}

// Files that are lost when nothing comes after them yet are missing before what comes then, and not before what is in hand.
func TestLostAtTheEnd(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxGone = 0
	big := strings.Repeat("big ", 100_000)
	w.raw(big + "1\n" + big + "2\n")
	w.start(nil)
	w.look()
	w.isSame(w.next(1), []string{big + "1"})
	var lost int64
	names := []string{w.rotate()}
	for range 3 {
		lost += int64(len(w.lines(1)[0]) + 1)
		w.look()
		names = append(names, w.rotate())
	}
	w.closeOut()
	for _, name := range append(names, "audit.log") {
		w.remove(name)
	}
	w.look()
	w.look()
	last := w.lines(1)
	w.look()
	w.isSame(w.next(1), []string{big + "2"})
	w.gapsAre()
	w.isSame(w.drain(), last)
	w.gapsAre(positions.Gap{Reason: reasonDeleted, Files: 3, Bytes: lost})
}

// A copy that cannot be opened when the file in hand is truncated is waited for.
func TestTruncatedAndTheCopyCannotBeOpened(t *testing.T) {
	w := newWorld(t)
	var a []string
	for i := range 6 {
		a = append(a, strings.Repeat(string(rune('a'+i)), 100_000))
		w.raw(a[i] + "\n")
	}
	w.start(nil)
	w.look()
	w.isSame(w.next(2), a[:2])
	w.copyTo("audit.log.1")
	w.look()
	w.truncate()
	b := w.lines(1)
	w.look()
	dir := w.tailer.chain.dir
	w.tailer.chain.dir = w.path // a file: ENOTDIR
	w.isSame(w.drain(), nil)
	if w.tailer.Trouble() == nil {
		t.Error("Trouble says nothing")
	}
	w.tailer.chain.dir = dir
	w.reads(a[2:], b)
	w.gapsAre()
	w.counted(w.tailer.observer.truncations, 1)
}
