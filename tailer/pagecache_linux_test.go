package tailer

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const mib = 1 << 20

// extent is a part of a file, in MiB.
type extent struct{ from, to int }

// cacheWorld is a world of clean pages: the kernel keeps dirty ones whatever it is advised.
type cacheWorld struct{ *world }

// mibs makes lines of 1 KiB.
func (w cacheWorld) mibs(n int) []byte {
	var b bytes.Buffer
	for range n << 10 {
		w.count++
		fmt.Fprintf(&b, `{"auditID":"%06d","pad":"%s"}`+"\n", w.count, strings.Repeat("x", 1024-30))
	}
	if b.Len() != n*mib {
		w.Fatalf("%d bytes are not %d MiB", b.Len(), n)
	}
	return b.Bytes()
}

// backup writes one that was rotated so long ago, and gives its name.
func (w cacheWorld) backup(age time.Duration, ext string, content []byte) string {
	w.Helper()
	w.clock = w.clock.Add(time.Second)
	name := w.file("audit-" + w.clock.Format(backupTime) + ".log" + ext)
	w.ok(os.WriteFile(name, content, 0o600))
	w.clean(name)
	w.age(name, age)
	return name
}

// append writes to the log.
func (w cacheWorld) append(content []byte) {
	w.Helper()
	w.raw(string(content))
	w.ok(w.out.Sync())
}

func (w cacheWorld) age(name string, age time.Duration) {
	w.Helper()
	then := time.Now().Add(-age)
	w.ok(os.Chtimes(name, then, then))
}

func (w cacheWorld) clean(name string) {
	w.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	w.ok(err)
	w.ok(f.Sync())
	w.ok(f.Close())
}

// stored packs without making it smaller.
func (w cacheWorld) stored(content []byte) []byte {
	w.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.NoCompression)
	w.ok(err)
	_, err = z.Write(content)
	w.ok(err)
	w.ok(z.Close())
	return b.Bytes()
}

// resident tells of each page of a file whether the page cache has it.
func (w cacheWorld) resident(name string) []byte {
	w.Helper()
	f, err := os.Open(name)
	w.ok(err)
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	w.ok(err)
	mapped, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	w.ok(err)
	defer func() { _ = unix.Munmap(mapped) }()
	pages := make([]byte, (len(mapped)+os.Getpagesize()-1)/os.Getpagesize())
	_, _, errno := unix.Syscall(unix.SYS_MINCORE,
		uintptr(unsafe.Pointer(&mapped[0])), uintptr(len(mapped)), uintptr(unsafe.Pointer(&pages[0])))
	if errno != 0 {
		w.Fatalf("mincore of %s: %v", name, errno)
	}
	for i := range pages {
		pages[i] &= 1
	}
	return pages
}

// share is how much of an extent the page cache has.
func (w cacheWorld) share(name string, e extent) float64 {
	w.Helper()
	perMiB := mib / os.Getpagesize()
	pages := w.resident(name)[e.from*perMiB : e.to*perMiB]
	return float64(bytes.Count(pages, []byte{1})) / float64(len(pages))
}

// needDroppable skips the test on a file system whose pages have no other place.
func (w cacheWorld) needDroppable() {
	w.Helper()
	name := filepath.Join(w.TempDir(), "probe")
	w.ok(os.WriteFile(name, make([]byte, mib), 0o600))
	w.clean(name)
	f, err := os.Open(name)
	w.ok(err)
	defer func() { _ = f.Close() }()
	w.ok(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	if share := w.share(name, extent{0, 1}); share > 0 {
		w.Skipf("the file system of %s keeps %.0f %% of a file's pages in memory whatever it is advised (a tmpfs does): "+
			"set TMPDIR to a directory on a disk", name, 100*share)
	}
}

func TestPageCache(t *testing.T) {
	const old = time.Hour
	for _, c := range []struct {
		name          string
		play          func(w cacheWorld) (file string)
		dropped, kept extent
	}{
		{"an old backup", func(w cacheWorld) string {
			name := w.backup(old, "", w.mibs(17))
			w.append(w.mibs(1))
			w.start(nil)
			w.drain()
			return name
		}, extent{0, 17}, extent{}},
		{"an old backup, behind the reader", func(w cacheWorld) string {
			name := w.backup(old, "", w.mibs(17))
			w.start(nil)
			w.next(9 << 10)
			return name
		}, extent{0, 8}, extent{10, 17}},
		{"an old backup that is read from the middle on", func(w cacheWorld) string {
			name := w.backup(old, "", w.mibs(17))
			w.append(w.mibs(1))
			w.start(nil)
			w.next(9 << 10)
			w.restart()
			w.drain()
			return name
		}, extent{0, 17}, extent{}},
		{"an old backup when the agent stops", func(w cacheWorld) string {
			name := w.backup(old, "", w.mibs(4))
			w.start(nil)
			w.next(3 << 10)
			w.kill()
			return name
		}, extent{0, 2}, extent{}}, // the page cache may hold the next 2 MiB as one piece
		{"a young backup", func(w cacheWorld) string {
			name := w.backup(0, "", w.mibs(17))
			w.append(w.mibs(1))
			w.start(nil)
			w.drain()
			w.kill()
			return name
		}, extent{}, extent{0, 17}},
		{"the live file, of which half was there", func(w cacheWorld) string {
			w.append(w.mibs(9))
			w.start(nil)
			w.append(w.mibs(10))
			w.drain()
			w.kill()
			return w.path
		}, extent{0, 8}, extent{10, 19}},
		{"the live file, all of which was written since", func(w cacheWorld) string {
			w.lines(1)
			w.start(nil)
			w.append(w.mibs(17))
			w.drain()
			return w.path
		}, extent{}, extent{0, 17}},
		{"the live file, truncated and written anew", func(w cacheWorld) string {
			w.append(w.mibs(9))
			w.start(nil)
			w.drain()
			w.truncate()
			w.look()
			w.drain()
			w.append(w.mibs(9))
			w.drain()
			return w.path
		}, extent{}, extent{0, 9}},
		{"the live file when it was not written to for long", func(w cacheWorld) string {
			w.lines(1)
			w.start(nil)
			w.append(w.mibs(17))
			w.age(w.path, old)
			w.drain()
			return w.path
		}, extent{0, 16}, extent{}},
		{"a file that was followed while it was written", func(w cacheWorld) string {
			w.lines(1)
			w.start(nil)
			w.append(w.mibs(17))
			w.drain()
			name := w.rename()
			w.append(w.mibs(1))
			w.look()
			w.drain()
			return w.file(name)
		}, extent{}, extent{0, 17}},
		{"a file that was followed, and has become old", func(w cacheWorld) string {
			w.lines(1)
			w.start(nil)
			w.append(w.mibs(17))
			w.drain()
			name := w.file(w.rename())
			w.age(name, old)
			w.append(w.mibs(1))
			w.look()
			w.drain()
			return name
		}, extent{0, 17}, extent{}},
		{"a file that has become old after it was left", func(w cacheWorld) string {
			w.lines(1)
			w.start(nil)
			w.append(w.mibs(17))
			w.drain()
			name := w.file(w.rename())
			w.append(w.mibs(1))
			w.look()
			w.drain()
			w.age(name, old)
			for range keepLeft {
				w.rename()
				w.lines(1)
				w.look()
				w.drain()
			}
			return name
		}, extent{0, 17}, extent{}},
		{"an old .gz", func(w cacheWorld) string {
			name := w.backup(old, ".gz", w.stored(w.mibs(17)))
			w.append(w.mibs(1))
			w.start(nil)
			w.drain()
			return name
		}, extent{0, 17}, extent{}},
		{"an old .gz, up to the position", func(w cacheWorld) string {
			name := w.backup(old, ".gz", w.stored(w.mibs(17)))
			w.start(nil)
			w.next(9 << 10)
			w.restart()
			return name
		}, extent{0, 8}, extent{}},
		{"an old .gz whose end was looked for", func(w cacheWorld) string {
			name := w.backup(old, ".gz", w.stored(w.mibs(17)))
			w.cfg.Start.End = true
			w.start(nil) // reads it twice
			return name
		}, extent{0, 16}, extent{}},
		{"a young .gz", func(w cacheWorld) string {
			name := w.backup(0, ".gz", w.stored(w.mibs(17)))
			w.append(w.mibs(1))
			w.start(nil)
			w.drain()
			w.kill()
			return name
		}, extent{}, extent{0, 17}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := cacheWorld{newWorld(t)}
			w.needDroppable()
			name := c.play(w)
			if c.dropped.to > 0 {
				if share := w.share(name, c.dropped); share > 0.02 {
					t.Errorf("the page cache has %.1f %% of MiB %v, want none of a backlog", 100*share, c.dropped)
				}
			}
			if c.kept.to > 0 {
				if share := w.share(name, c.kept); share < 0.98 {
					t.Errorf("the page cache has %.1f %% of MiB %v, want all that is young or not read", 100*share, c.kept)
				}
			}
		})
	}
}
