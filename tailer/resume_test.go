package tailer

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/auditferry/auditferry/positions"
)

// For every line of a script of files, a start from its End gives exactly what comes after it, whatever form the files
// have taken meanwhile.
func TestResumeAfterEveryLine(t *testing.T) {
	big := strings.Repeat("long ", 1000)
	tests := map[string]func(w *world, backups []string){
		"as it was":       func(*world, []string) {},
		"all packed":      func(w *world, b []string) { w.gzip(b[0]); w.gzip(b[1]); w.gzip(b[2]) },
		"mixed":           func(w *world, b []string) { w.gzip(b[0]); w.gzip(b[1]) },
		"empty pack":      func(w *world, b []string) { w.gzip(b[0]); w.pack(b[1], 0) },
		"partial pack":    func(w *world, b []string) { w.gzip(b[0]); w.pack(b[1], 0.6) },
		"both forms":      func(w *world, b []string) { w.pack(b[0], 1); w.pack(b[1], 1); w.pack(b[2], 1) },
		"renamed to .N":   func(w *world, b []string) { renumber(w, b, false) },
		"renamed, packed": func(w *world, b []string) { renumber(w, b, true) },
		"moved inodes":    moveInodes,
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			var want, backups []string
			for range 3 {
				want = append(want, w.lines(3)...)
				w.raw(big + "\n")
				want = append(want, big)
				want = append(want, w.lines(2)...)
				backups = append(backups, w.rotate())
			}
			want = append(want, w.lines(3)...)
			w.start(nil)
			begin := w.tailer.Start()
			w.isSame(w.drain(), want)
			ends := append([]positions.Position{begin}, w.ends...)
			change(w, backups)
			for k, end := range ends {
				w.start(&end)
				w.isSame(w.drain(), want[k:])
				w.gapsAre()
				if k < len(want) && w.ends[len(w.ends)-1].LSN != ends[len(ends)-1].LSN {
					t.Fatalf("from line %d: lsn %d at the end, want %d", k, w.ends[len(w.ends)-1].LSN, ends[len(ends)-1].LSN)
				}
			}
		})
	}
}

func renumber(w *world, backups []string, pack bool) {
	for i, name := range backups {
		to := "audit.log." + string(rune('0'+len(backups)-i))
		w.ok(os.Rename(w.file(name), w.file(to)))
		if pack {
			w.gzip(to)
		}
	}
}

// moveInodes gives every file a new inode, as a backup and restore would.
func moveInodes(w *world, backups []string) {
	for _, name := range append(slices.Clone(backups), "audit.log") {
		content, err := os.ReadFile(w.file(name))
		w.ok(err)
		w.ok(os.WriteFile(w.file("new"), content, 0o600))
		w.ok(os.Rename(w.file("new"), w.file(name)))
	}
}

func TestResumeWhileFilesMove(t *testing.T) {
	w := newWorld(t)
	a := w.lines(4)
	w.start(nil)
	w.isSame(w.next(2), a[:2])
	w.rotate()
	b := w.lines(2)
	w.restart()
	w.isSame(w.next(1), a[2:3])
	w.look()
	w.isSame(w.drain(), slices.Concat(a[3:], b))
}

func TestStart(t *testing.T) {
	w := newWorld(t)
	a := w.lines(2)
	first := w.rotate()
	b := w.lines(2)
	at := w.clock.Add(time.Second)
	w.rotate()
	c := w.lines(2)
	w.raw(`{"torn`)
	tests := []struct {
		name  string
		start Start
		from  *positions.Position
		want  []string
	}{
		{"beginning", Start{}, nil, slices.Concat(a, b, c)},
		{"since", Start{Since: at}, nil, slices.Concat(b, c)},
		{"since all", Start{Since: at.Add(time.Hour)}, nil, c},
		{"end", Start{End: true}, nil, nil},
		{"unidentified", Start{}, &positions.Position{LSN: 7}, slices.Concat(a, b, c)},
		{"unidentified, end", Start{End: true}, &positions.Position{}, slices.Concat(a, b, c)},
	}
	for _, packs := range []bool{false, true} {
		if packs {
			w.gzip(first)
		}
		for _, tt := range tests {
			w.cfg.Start = tt.start
			w.start(tt.from)
			begin := w.tailer.Start()
			w.isSame(w.drain(), tt.want)
			w.cfg.Start = Start{}
			if tt.start.Since.IsZero() {
				w.start(&begin) // the position is good for a restart
				w.isSame(w.drain(), tt.want)
			}
		}
	}
	w.cfg.Start = Start{End: true}
	w.start(nil)
	w.raw("\"}\n")
	w.reads([]string{`{"torn"}`})
	if begin := w.tailer.Start(); begin.LSN == 0 {
		t.Fatal("no lsn")
	}
}

func TestStartAtEndOfNothing(t *testing.T) {
	w := newWorld(t)
	w.cfg.Start = Start{End: true}
	w.start(nil)
	begin := w.tailer.Start()
	a := w.lines(2)
	w.reads(a)
	w.start(&begin)
	w.isSame(w.drain(), a)

	w = newWorld(t)
	w.cfg.Start = Start{End: true}
	w.lines(3)
	w.gzip(w.rotate())
	w.start(nil)
	b := w.lines(1)
	w.reads(b)
}

func TestGap(t *testing.T) {
	w := newWorld(t)
	w.lines(2)
	w.start(nil)
	w.drain()
	from := w.ends[1]
	read := w.rotate() // read, and only in the way
	b := w.lines(2)
	w.rotate()
	c := w.lines(2)
	w.kill()
	w.remove(read)
	w.start(&from)
	w.isSame(w.drain(), slices.Concat(b, c))
	gone := positions.Gap{Reason: reasonPositionFile}
	w.gapsAre(gone)
	if got := w.ends[0].LSN; got != from.LSN+int64(len(b[0])+1) {
		t.Fatalf("lsn %d does not go on from %d", got, from.LSN)
	}

	// What has not been read is read, whatever the times say.
	from.EventTime = w.clock.Add(2 * time.Minute)
	w.start(&from)
	w.isSame(w.drain(), slices.Concat(b, c))

	// Where a position does not know the others, the times decide. In the log and in the names they are not of one clock:
	// what was rotated about then may be new.
	from.Others = nil
	from.EventTime = w.clock
	w.start(&from)
	w.isSame(w.drain(), slices.Concat(b, c))

	// What was rotated well before the last event had been read.
	from.EventTime = w.clock.Add(2 * time.Minute)
	w.start(&from)
	w.isSame(w.drain(), c)
	w.gapsAre(gone)
	w.restart()
	w.gapsAre()
}

// After a power failure the end of the file is gone, at a newline or in a line, and the apiserver may have written on
// before the agent is there: nothing of that may be skipped, so the file is read again.
func TestPowerLoss(t *testing.T) {
	tests := []struct {
		name  string
		lost  int64 // bytes at the end
		again int   // lines that are left whole
		since int   // lines written before the agent starts
		glued bool
	}{
		{"a line", 28, 4, 0, false},
		{"half a line", 10, 4, 1, true},
		{"two lines, little since", 28 + 29, 3, 1, false},
		{"some, much since", 3, 4, 9, true},
		{"all but the first line", 28 + 29 + 30 + 31, 1, 1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			var a []string
			for i := range 5 {
				a = append(a, strings.Repeat(string(rune('a'+i)), 31-i))
				w.raw(a[i] + "\n")
			}
			w.start(nil)
			w.isSame(w.drain(), a)
			from := w.ends[4]
			w.kill()
			w.closeOut()
			w.ok(os.Truncate(w.path, from.Offset-tt.lost))
			want := slices.Clone(a[:tt.again])
			b := w.lines(tt.since)
			if tt.glued {
				b[0] = a[tt.again][:28-tt.lost] + b[0]
			}
			w.start(&from)
			w.isSame(w.drain(), append(want, b...))
			w.gapsAre()
			c := w.lines(1)
			w.reads(c)
			if w.ends[0].LSN <= from.LSN {
				t.Fatal("the lsn fell")
			}
		})
	}
}

func TestRewrittenFileIsReadAnew(t *testing.T) {
	for _, pack := range []bool{false, true} {
		w := newWorld(t)
		a := w.lines(3)
		w.start(nil)
		w.drain()
		from := w.ends[1]
		w.kill()
		w.closeOut()
		w.ok(os.WriteFile(w.path, []byte(a[0]+"\n"+strings.Repeat("other ", 30)+"\n"), 0o600))
		if pack {
			name := w.rotate()
			w.gzip(name)
		}
		w.start(&from)
		w.isSame(w.drain(), []string{a[0], strings.Repeat("other ", 30)})
		if w.ends[0].LSN <= from.LSN {
			t.Fatal("the lsn fell")
		}
	}
}

// Of two files with one first line, the inode decides, then the name, then the age.
func TestEqualFirstLines(t *testing.T) {
	w := newWorld(t)
	w.raw("same\na1\na2\n")
	first := w.rotate()
	w.raw("same\nb1\nb2\n")
	w.start(nil)
	w.isSame(w.drain(), []string{"same", "a1", "a2", "same", "b1", "b2"})
	inA, inB := w.ends[1], w.ends[4]
	w.start(&inA)
	w.isSame(w.drain(), []string{"a2", "same", "b1", "b2"})
	w.start(&inB)
	w.isSame(w.drain(), []string{"b2"})

	second := w.rotate()
	w.raw("same\nc1\n")
	w.start(&inB) // another name, the same inode
	w.isSame(w.drain(), []string{"b2", "same", "c1"})
	inB = w.ends[0]
	w.gzip(second)
	w.start(&inB) // another inode, the same name
	w.isSame(w.drain(), []string{"same", "c1"})
	w.gzip(first)
	unknown := inA
	unknown.Name, unknown.Inode = "?", 0
	w.start(&unknown)
	w.isSame(w.drain(), []string{"a2", "same", "b1", "b2", "same", "c1"})

	// The same while it happens: a backup is never taken for a copy.
	w.raw("c2\n")
	w.rotate()
	w.raw("same\nd1\n")
	w.rotate()
	w.raw("same\ne1\n")
	w.reads([]string{"c2", "same", "d1", "same", "e1"})
}

// A line says whether it may have been handed over before at another position.
func TestAgain(t *testing.T) {
	w := newWorld(t)
	w.ok(os.WriteFile(w.path, []byte("{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n"), 0o600))
	follow, err := open(w.cfg, nil)
	w.ok(err)
	now, cancel := context.WithCancel(t.Context())
	cancel()
	next := func() *Line {
		line, err := follow.Next(now)
		w.ok(err)
		return line
	}
	var end positions.Position
	for range 3 {
		line := next()
		if end = line.End; line.Again {
			t.Error("a line that is new is said to come again")
		}
	}
	follow.Close()
	w.ok(os.WriteFile(w.path, []byte("{\"a\":1}\n{\"a\":2}"), 0o600)) // what a loss of power leaves
	follow, err = open(w.cfg, &end)
	w.ok(err)
	defer follow.Close()
	if line := next(); !line.Again || line.End.LSN <= end.LSN {
		t.Errorf("the first line of a file that was cut: %+v", line)
	}
}
