package tailer

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/auditferry/auditferry/positions"
)

// newConfined is a world of which two lines are read, and whose Tailer may open no directory but the present one.
func newConfined(t *testing.T) *world {
	t.Helper()
	top := t.TempDir()
	for _, dir := range []string{filepath.Dir(top), top} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorldAt(t, filepath.Join(top, "audit", "audit.log"))
	w.ok(os.Mkdir(w.dir, 0o755))
	w.start(nil)
	w.reads(w.lines(2))
	home, err := os.Stat(w.dir)
	w.ok(err)
	w.tailer.Confine(home)
	return w
}

// replace puts another directory in the place of the one that there is, and gives where that is now.
func (w *world) replace() (away string) {
	w.Helper()
	w.closeOut()
	away = w.dir + ".away"
	w.ok(os.Rename(w.dir, away))
	w.ok(os.Mkdir(w.dir, 0o755))
	return away
}

// lookRefused looks while the directory may not be listed.
func (w *world) lookRefused() {
	w.Helper()
	w.ok(os.Chmod(w.dir, 0o311))
	defer func() { w.ok(os.Chmod(w.dir, 0o755)) }()
	if os.Geteuid() == 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		w.ok(unix.Setfsuid(65534)) // for this thread, and with it go the capabilities that are about files
		defer func() { w.ok(unix.Setfsuid(0)) }()
	}
	w.look()
}

// end gives the ReplacedError that Next gives after these lines, nil if it waits.
func (w *world) end(want ...string) *ReplacedError {
	w.Helper()
	var got []string
	for {
		line, err := w.tailer.Next(ended)
		if err != nil {
			w.isSame(got, want)
			var replaced *ReplacedError
			errors.As(err, &replaced)
			return replaced
		}
		text := string(line.Bytes)
		if line.Fragment {
			text += "…"
		}
		got = append(got, text)
		w.ends = append(w.ends, line.End)
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func TestReplacedDirectoryEndsThePathOnceAllIsRead(t *testing.T) {
	w := newConfined(t)
	away := w.replace()
	w.lookRefused()
	if err := w.end(); err != nil {
		t.Fatalf("%v, though nothing is in the new directory and the writer may go on with the old file", err)
	}
	if w.tailer.Trouble() == nil {
		t.Error("Trouble says nothing")
	}
	appendTo(t, filepath.Join(away, "audit.log"), "{\"a\":1}\n{\"b\"")
	b := w.lines(2)
	w.closeOut()
	w.lookRefused()
	replaced := w.end(`{"a":1}`, `{"b"…`)
	if replaced == nil || replaced.Dir != w.dir {
		t.Fatalf("%v", replaced)
	}
	if again := w.end(); again == nil {
		t.Error("the second time it waits")
	}
	last := w.ends[len(w.ends)-1]
	if replaced.At.Identified() || replaced.At.LSN != last.LSN || replaced.At.Others[last.FirstLine] != last.Offset {
		t.Errorf("goes on at %+v after %+v", replaced.At, last)
	}
	w.start(&replaced.At)
	w.reads(b)
	w.gapsAre()
}

// What a restart would lose is held: what is not read of a deleted file, what is not acknowledged of one, and all of a directory that
// was replaced.
func TestHeldIsWhatARestartWouldLose(t *testing.T) {
	w := newConfined(t)
	held := func(want bool, when string) {
		t.Helper()
		if got := w.tailer.Held(w.ends[len(w.ends)-1]); got != want {
			t.Errorf("%s: held %v", when, got)
		}
	}
	held(false, "all is in place")
	unread := w.lines(1)
	backup := w.rotate()
	next := w.lines(1)
	w.look()
	held(false, "a backup is not read")
	w.ok(os.Remove(filepath.Join(w.dir, backup)))
	w.look()
	held(true, "it is deleted")
	acked := w.ends[len(w.ends)-1]
	w.reads(append(unread, next...))
	held(false, "it is read and acknowledged")
	if !w.tailer.Held(acked) {
		t.Error("it is read and not acknowledged: held false")
	}
	w.replace()
	w.lookRefused()
	held(true, "the directory was replaced")
}

func TestReplacedDirectoryWithFilesNeverOpenedIsAGap(t *testing.T) {
	w := newConfined(t)
	w.tailer.chain.maxOpen = 1
	b := w.lines(1)
	for range 3 {
		w.rotate()
		w.lines(1)
	}
	w.look()
	w.replace()
	w.lines(1)
	w.lookRefused()
	replaced := w.end(b...)
	if replaced == nil || !replaced.At.Identified() {
		t.Fatalf("%+v", replaced)
	}
	w.start(&replaced.At)
	w.look()
	w.drain()
	w.gapsAre(positions.Gap{Reason: reasonPositionFile})
}

func TestWithoutPermissionItIsWaited(t *testing.T) {
	for name, forbid := range map[string]func(w *world) (allow func()){
		"of the directory itself": func(w *world) func() {
			w.lines(1)
			w.rotate() // it changes
			w.lines(1)
			return func() {}
		},
		"of another one, which goes again": func(w *world) func() {
			away := w.replace() // and empty: who writes may write on to the old file
			return func() {
				w.ok(os.Remove(w.dir))
				w.ok(os.Rename(away, w.dir))
			}
		},
		"of another one, without being confined": func(w *world) func() {
			w.tailer.chain.confined = false
			w.replace()
			w.lines(1)
			return func() {}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newConfined(t)
			allow := forbid(w)
			w.lookRefused()
			for {
				line, err := w.tailer.Next(ended)
				if err == nil {
					w.ends = append(w.ends, line.End)
					continue
				}
				var replaced *ReplacedError
				if errors.As(err, &replaced) {
					t.Fatal(err)
				}
				break
			}
			if w.tailer.Trouble() == nil {
				t.Error("Trouble says nothing")
			}
			allow()
			w.look()
			w.drain()
			if err := w.tailer.Trouble(); err != nil {
				t.Error(err)
			}
			w.reads(w.lines(1))
		})
	}
}
