package tailer

import (
	"testing"
	"time"
)

// aged is a log with backups, and what is in each file; the active one is the last.
func aged(t *testing.T, backups int) (w *world, names []string, lines [][]string, rotated []time.Time) {
	w = newWorld(t)
	for range backups {
		lines = append(lines, w.lines(3))
		names = append(names, w.rotate())
		rotated = append(rotated, w.clock)
	}
	return w, names, append(lines, w.lines(3)), rotated
}

func size(lines ...[]string) (n int64) {
	for _, file := range lines {
		for _, l := range file {
			n += int64(len(l)) + 1
		}
	}
	return n
}

func (w *world) isOld(want Old) {
	w.Helper()
	if got := w.tailer.Old(); got != want {
		w.Fatalf("old: %+v, want %+v", got, want)
	}
}

// A backup is left out if the one after it was rotated too long ago, and is not read later either.
func TestOldBackupsAreNotRead(t *testing.T) {
	for _, packed := range []bool{false, true} {
		w, names, lines, rotated := aged(t, 5)
		want := Old{Files: 2, Bytes: size(lines[:2]...), Until: rotated[1]}
		if packed {
			w.pack(names[0], 0.9) // cut off: reading on would find it damaged
			w.remove(names[0])
			w.gzip(names[1])
			want.Bytes = w.size(names[0]+".gz") + w.size(names[1]+".gz")
		}
		w.cfg.Oldest = rotated[2].Add(1)
		w.start(nil)
		w.isOld(want)
		begin := w.tailer.Start()
		if begin.LSN != 0 || begin.Offset != 0 || begin.Name != names[2] {
			t.Errorf("it begins at %+v", begin)
		}
		if got, want := w.tailer.Unread(), size(lines[2:]...); got != want {
			t.Errorf("%d bytes are to be read, want %d", got, want)
		}
		w.reads(lines[2:]...)
		w.gapsAre()
		ends := w.ends
		for _, oldest := range []time.Time{w.cfg.Oldest, {}} {
			w.cfg.Oldest = oldest
			w.start(&begin)
			w.isOld(Old{})
			w.reads(lines[2:]...)
			w.start(&ends[len(ends)-1])
			w.reads()
			w.gapsAre()
		}
	}
}

// After a position, the rest of its file and the files after it are left out; the position moves, and its lsn does not.
func TestResumeLeavesOutOldBackups(t *testing.T) {
	for read := range 7 {
		w, _, lines, rotated := aged(t, 4)
		w.start(nil)
		w.look()
		w.next(read)
		from := w.tailer.Start()
		if read > 0 {
			from = w.ends[read-1]
		}
		w.cfg.Oldest = rotated[2].Add(1)
		w.start(&from)
		want := Old{Files: 2, Bytes: size(lines[:2]...) - from.LSN, Until: rotated[1]}
		if read >= 3 {
			want.Files--
		}
		if read == 6 {
			want = Old{}
		}
		w.isOld(want)
		if at := w.tailer.Start(); at.LSN != from.LSN || !at.EventTime.Equal(from.EventTime) {
			t.Errorf("after %d lines: it begins at %+v", read, at)
		}
		w.cfg.Oldest = time.Time{}
		again := w.tailer.Start() // if it is kept, it knows what was left out
		w.start(&again)
		if read == 6 {
			continue
		}
		w.reads(lines[2:]...)
		w.gapsAre()
		w.restart()
		w.isOld(Old{})
		w.reads()
	}
}

// The newest backups are read whatever their names say: events may be younger.
func TestBackupBeforeTheLogIsRead(t *testing.T) {
	w, _, lines, rotated := aged(t, 2)
	w.cfg.Oldest = rotated[1].Add(time.Hour)
	w.start(nil)
	w.isOld(Old{Files: 1, Bytes: size(lines[0]), Until: rotated[0]})
	w.reads(lines[1:]...)
}

// Numbers tell no time.
func TestLogrotateBackupsAreRead(t *testing.T) {
	w := newWorld(t)
	var lines []string
	for range 3 {
		lines = append(lines, w.lines(2)...)
		w.logrotate(false)
	}
	w.cfg.Oldest = time.Now().Add(time.Hour)
	w.start(nil)
	w.isOld(Old{})
	w.reads(lines)
}

// After the clock has stepped back, the file that comes next tells nothing of the one in hand.
func TestBackupBeforeAStepIsRead(t *testing.T) {
	w := newWorld(t)
	a := w.lines(3)
	w.start(nil)
	w.look()
	w.isSame(w.next(1), a[:1])
	end := w.ends[0]
	w.rotate()
	w.clock = w.clock.Add(-time.Hour)
	b := w.lines(2)
	w.rotate()
	w.cfg.Oldest = w.clock.Add(time.Minute)
	c := w.lines(1)
	w.start(&end)
	w.isOld(Old{})
	w.reads(a[1:], b, c)
}

func (w *world) size(name string) int64 {
	w.Helper()
	f, err := (&entry{stem: name}).open(w.dir)
	w.ok(err)
	defer f.close()
	return f.stored()
}
