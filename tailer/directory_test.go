package tailer

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestOtherFilesAreIgnored(t *testing.T) {
	for _, base := range []string{"audit.log", "audit.json", "audit"} {
		t.Run(base, func(t *testing.T) {
			w := newWorldAt(t, filepath.Join(t.TempDir(), base))
			for _, name := range []string{
				"termination.log", "lock.log", "audit-policy.log", "audit-foo.log.gz", "audit-2026-11-23.log", "audit.log.gz",
				"audit.log.bak", "audit.log.-1", "kube-audit-2026-11-23T20-33-23.092.log", "audit-policy-2026-11-23T20-33-23.092.log",
				"audit-2026-11-23T20-33-23.092.txt",
			} {
				w.ok(os.WriteFile(w.file(name), []byte("not ours\n"), 0o600))
			}
			w.ok(os.Mkdir(w.file("audit-2026-11-23T20-33-23.092.log"), 0o700))
			a := w.lines(2)
			w.rotate()
			a = append(a, w.lines(2)...)
			w.start(nil)
			w.isSame(w.drain(), a)
			name := w.rotate()
			b := w.lines(1)
			w.gzip(name)
			w.reads(b)
			w.restart()
			w.reads()
		})
	}
}

func TestDirectory(t *testing.T) {
	w := newWorldAt(t, filepath.Join(t.TempDir(), "not", "yet", "audit.log"))
	w.start(nil)
	w.reads()
	w.ok(os.MkdirAll(w.dir, 0o700))
	w.reads()
	a := w.lines(2)
	w.rotate()
	a = append(a, w.lines(2)...)
	w.reads(a)

	b := w.lines(1)
	w.rotate()
	b = append(b, w.lines(1)...)
	w.look()
	w.closeOut()
	w.ok(os.RemoveAll(w.dir))
	w.look()
	w.ok(os.MkdirAll(w.dir, 0o700))
	c := w.lines(2)
	w.reads(b, c)

	// A directory that is away for a while comes back as it was, with backups that were read.
	w.rotate()
	w.reads()
	w.reads(w.lines(1))
	w.ok(os.Rename(w.dir, w.dir+".away"))
	d := w.lines(1)
	w.reads(d)
	w.ok(os.Rename(w.dir+".away", w.dir))
	e := w.lines(1)
	w.reads(e)
	w.rotate()
	w.reads(w.lines(1)) // and not the backups again
	w.gapsAre()
}

// A file that cannot be opened is waited for, what comes after it too, and held files stay held.
func TestCannotOpen(t *testing.T) {
	w := newWorld(t)
	w.start(nil)
	a := w.lines(2)
	w.reads(a)
	b := w.lines(1)
	name := w.rotate()
	c := w.lines(1)
	w.ok(os.Chmod(w.path, 0))
	denied := os.Geteuid() != 0
	if !denied {
		// root may open everything; a name that is too long to open serves as well.
		w.tailer.chain.dir = filepath.Join(w.dir, name) // a file: ENOTDIR
	}
	w.look()
	w.counted(w.tailer.observer.unreadable, 1)
	if w.tailer.Trouble() == nil {
		t.Error("Trouble says nothing")
	}
	w.isSame(w.drain(), b)
	w.ok(os.Chmod(w.path, 0o600))
	w.tailer.chain.dir = w.dir
	w.reads(c)
	w.counted(w.tailer.observer.unreadable, 0)
	if err := w.tailer.Trouble(); err != nil {
		t.Errorf("Trouble is over and still says %v", err)
	}

	// The same when it is the reader who has to open the file, and the directory does not change any more.
	w.tailer.chain.maxOpen = 1
	d := w.lines(1)
	w.rotate()
	e := w.lines(1)
	w.rotate()
	f := w.lines(1)
	old := time.Now().Add(-time.Hour)
	w.ok(os.Chtimes(w.dir, old, old))
	w.look()
	w.tailer.chain.dir = filepath.Join(w.dir, name)
	w.isSame(w.drain(), d)
	w.tailer.chain.dir = w.dir
	w.reads(e, f)

	w.cfg.Path = filepath.Join(w.path, "audit.log")
	if tl, err := New(w.cfg, nil); err == nil {
		tl.Close()
		t.Fatal("New found no fault with a directory that is a file")
	}
}

// A look at a directory that has not changed is one stat, and does not miss what changed within a tick of the clock.
func TestUnchangedDirectory(t *testing.T) {
	w := newWorld(t)
	a := w.lines(1)
	w.start(nil)
	w.reads(a)
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	w.ok(os.Chtimes(w.dir, old, old))
	w.look()
	links := w.tailer.chain.links
	links[0].stem = "marked"
	w.look()
	if links[0].stem != "marked" {
		t.Fatal("the directory was listed though its time is the same as an hour ago")
	}
	now := time.Now()
	w.ok(os.Chtimes(w.dir, now, now))
	w.look()
	w.rotate()
	b := w.lines(1)
	w.ok(os.Chtimes(w.dir, now, now)) // as a coarse clock would show it
	w.reads(b)
}

// An inode that is not held open can be given again: it tells a file that was done with only together with its size and
// the time of its last change.
func TestInodeAloneIsNoFile(t *testing.T) {
	w := newWorld(t)
	entryOf := func() *entry {
		chain, _, err := newNamer(w.path).list(w.dir)
		w.ok(err)
		return &chain[0]
	}
	w.raw("")
	now := time.Now()
	done := &link{entry: *entryOf()}
	if !done.is(entryOf()) {
		t.Fatal("not recognised")
	}
	w.ok(os.Chtimes(w.path, now, now.Add(time.Second)))
	if done.is(entryOf()) {
		t.Fatal("recognised though changed later")
	}
	done = &link{entry: *entryOf()}
	w.lines(1)
	w.ok(os.Chtimes(w.path, now, now.Add(time.Second)))
	if done.is(entryOf()) {
		t.Fatal("recognised though longer")
	}
}
