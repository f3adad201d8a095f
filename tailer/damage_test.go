package tailer

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTruncatedWithoutCopy(t *testing.T) {
	w := newWorld(t)
	a := w.lines(3)
	w.start(nil)
	w.reads(a)
	w.truncate()
	b := w.lines(1)
	w.reads(b)
	w.counted(w.tailer.observer.truncations, 1)
	w.restart()
	c := w.lines(1)
	w.reads(c)
}

// longLines are more than the Tailer reads at once.
func (w *world) longLines(n int) (written []string) {
	w.Helper()
	for range n {
		l := w.line() + strings.Repeat("x", 200_000)
		w.raw(l + "\n")
		written = append(written, l)
	}
	return written
}

var copytruncates = []struct {
	name        string
	read        int  // lines before the copy
	lookBetween bool // between copying and truncating
	lookEmpty   bool // while the copy is empty
	blocked     bool // until the file is longer again than it was
	pack        bool
	ahead       bool // an older backup is in hand
	unseen      bool // the reader notices before a look does
}{
	{name: "all read", read: 4},
	{name: "all read, look", read: 4, lookBetween: true},
	{name: "some read", read: 2},
	{name: "some read, look", read: 2, lookBetween: true},
	{name: "some read, copy seen empty", read: 2, lookBetween: true, lookEmpty: true},
	{name: "some read, copy seen empty, blocked", read: 2, lookEmpty: true, blocked: true},
	{name: "some read, unseen", read: 2, unseen: true},
	{name: "blocked", read: 2, blocked: true},
	{name: "blocked, look", read: 2, blocked: true, lookBetween: true},
	{name: "nothing read, blocked", blocked: true},
	{name: "packed", read: 2, pack: true, blocked: true},
	{name: "ahead", read: 1, ahead: true},
	{name: "ahead, look", read: 1, ahead: true, lookBetween: true},
	{name: "ahead, blocked", read: 1, ahead: true, lookBetween: true, blocked: true},
}

// copytruncate, before and while the reader comes to the file: the copy has what was not read.
func TestCopytruncate(t *testing.T) {
	for _, tt := range copytruncates {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			var want []string
			if tt.ahead {
				want = w.lines(2)
				w.logrotate(false)
			}
			want = append(want, w.longLines(4)...)
			w.start(nil)
			w.isSame(w.next(tt.read), want[:tt.read])
			w.shift()
			if tt.lookEmpty {
				w.ok(os.WriteFile(w.file("audit.log.1"), nil, 0o600))
				w.look()
				if last := w.tailer.chain.links[len(w.tailer.chain.links)-1]; last.kind != active {
					t.Fatalf("a copy that has only begun is taken for a new file:%s", w.chain())
				}
			}
			w.copyTo("audit.log.1")
			if tt.lookBetween {
				w.look()
			}
			if tt.pack {
				w.gzip("audit.log.1")
			}
			w.truncate()
			if tt.blocked {
				w.look()
				want = append(want, w.longLines(5)...)
			} else {
				want = append(want, w.lines(1)...)
			}
			if !tt.unseen {
				w.look()
			}
			w.isSame(w.drain(), want[tt.read:])
			more := w.lines(2)
			w.reads(more)
			w.restart()
			w.reads()
		})
	}
}

// An external truncation of a file without O_APPEND leaves a hole; however long, the event after it is not cut off.
func TestHole(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxLine = 100
	w.lines(1)
	hole := strings.Repeat("\x00", 300_000)
	w.rotate()
	w.raw(hole + "event\n" + "next\n")
	w.start(nil)
	w.drain()
	if len(w.ends) != 3 {
		t.Fatalf("%d lines", len(w.ends))
	}
	for k, end := range slices.Clone(w.ends) {
		w.start(&end)
		w.isSame(w.drain(), []string{"event", "next"}[k:])
	}
}

func TestTooLongLines(t *testing.T) {
	long := strings.Repeat("0123456789", 40_000)
	w := newWorld(t)
	w.cfg.MaxLine = 1000
	w.raw(long + "\n" + "short\n" + long + "a\n")
	name := w.rotate()
	w.raw(long + "b\n" + "x\n")
	want := []string{long[:1000] + "+399000", "short", long[:1000] + "+399001", long[:1000] + "+399001", "x"}
	w.start(nil)
	w.isSame(w.drain(), want)
	ends := slices.Clone(w.ends)
	for _, pack := range []bool{false, true} {
		if pack {
			w.gzip(name)
		}
		for k, end := range ends {
			w.start(&end)
			w.isSame(w.drain(), want[k+1:])
			w.gapsAre()
		}
	}
	w.raw(long)
	w.rotate()
	w.raw("y\n")
	w.restart()
	w.reads([]string{long[:1000] + "+399000…", "y"})
	w.restart()
	w.reads()
}

// A damaged .gz costs its own lines only, and is counted.
func TestDamagedPacks(t *testing.T) {
	type damage struct {
		name string
		of   func(z []byte) []byte
		kept int // lines of the ten
	}
	for _, d := range []damage{
		{"empty", func([]byte) []byte { return nil }, 0},
		{"one byte", func(z []byte) []byte { return z[:1] }, 0},
		{"no gzip", func([]byte) []byte { return []byte("no gzip file at all") }, 0},
		{"cut", func(z []byte) []byte { return z[:len(z)-9] }, -1},
		{"no trailer", func(z []byte) []byte { return z[:len(z)-8] }, 10},
		{"checksum", func(z []byte) []byte { z[len(z)-6] ^= 1; return z }, 10},
		{"bits", func(z []byte) []byte { z[len(z)/2] ^= 0xff; z[len(z)/2+1] ^= 0xff; return z }, -1},
		{"trailing zeros", func(z []byte) []byte { return append(z, make([]byte, 512)...) }, 10},
	} {
		for _, live := range []bool{false, true} {
			w := newWorld(t)
			a := w.lines(2)
			w.start(nil)
			w.reads(a)
			w.rotate()
			b := w.lines(10)
			name := w.rotate()
			c := w.lines(2)
			w.gzip(name)
			z, err := os.ReadFile(w.file(name + ".gz"))
			w.ok(err)
			w.ok(os.WriteFile(w.file(name+".gz"), d.of(z), 0o600))
			old := time.Now().Add(-time.Minute)
			w.ok(os.Chtimes(w.file(name+".gz"), old, old))
			var got []string
			if live {
				w.look()
			} else {
				w.restart()
			}
			got = w.drain()
			if len(got) < 2 || !slices.Equal(got[len(got)-2:], c) {
				t.Fatalf("%s, live=%v: what comes after the damage is lost: %q", d.name, live, got)
			}
			got = slices.DeleteFunc(got[:len(got)-2], func(l string) bool { return strings.HasSuffix(l, "…") })
			if len(got) > 10 || !slices.Equal(got, b[:len(got)]) || d.kept >= 0 && len(got) != d.kept {
				t.Fatalf("%s, live=%v: got %q of the damaged file", d.name, live, got)
			}
			w.counted(w.tailer.observer.damages, 1)
			w.restart()
			w.reads()
		}
	}
}

// A .gz alone that is still being written is waited for, for a while.
func TestUnfinishedPackAlone(t *testing.T) {
	w := newWorld(t)
	a := w.lines(2)
	w.start(nil)
	w.reads(a)
	w.rotate()
	b := w.lines(5)
	name := w.rotate()
	w.pack(name, 0.2)
	w.remove(name)
	w.look()
	w.isSame(w.drain(), nil)
	if slices.ContainsFunc(w.tailer.chain.links, func(l *link) bool { return l.gz }) {
		t.Fatalf("not waited for:%s", w.chain())
	}
	w.tailer.look(time.Now().Add(2 * unfinished))
	w.drain()
	c := w.lines(1)
	w.look()
	got := w.drain()
	if len(got) == 0 || got[len(got)-1] != c[0] {
		t.Fatalf("stuck: %q of %q", got, b)
	}
	w.counted(w.tailer.observer.damages, 1)
}

// A whole file in hand is not given up for a .gz that is damaged.
func TestDamagedPackOfAHeldFile(t *testing.T) {
	w := newWorld(t)
	a := w.lines(2)
	w.start(nil)
	w.isSame(w.next(1), a[:1])
	w.rotate()
	b := w.lines(5)
	name := w.rotate()
	w.look()
	w.pack(name, 0.3)
	w.remove(name)
	w.look()
	c := w.lines(1)
	w.reads(a[1:], b, c)
	w.counted(w.tailer.observer.damages, 0)
}
