package tailer

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The apiserver and etcd need the page cache of the node more than a log that was read once does. So what was read of a
// backlog is dropped from it, behind the reader. What is young is left alone: lumberjack gzips a backup right after the
// rotation, and to drop a page that is not on disk yet has it written at once, where the kernel would take its time.
//
// A file that is turned back to after it was dropped is read from disk again. Of a file of which only the first line was
// looked at, a few pages stay.
const (
	// dropStep is how much is read from one drop to the next, so that drops cost nothing.
	dropStep = 4 << 20
	// wantedFor is how long after the last write to a file its pages are wanted. The kernel writes dirty ones after half of it.
	wantedFor = time.Minute
)

// pages is what reading a file leaves in the page cache. All offsets are those of the file as it lies on disk.
type pages struct {
	backlog int64 // of the live file: what it had when it was opened, which is dropped though the file is young
	read    int64 // how far it was read
	tried   int64 // where it was last looked whether that can be dropped
	dropped int64 // what is before was
}

// passed notes how far the file was read, and drops what lies behind once in a while.
func (f *file) passed(read int64) {
	f.pages.read = read
	if read-f.pages.tried >= dropStep {
		f.pages.tried = read - read%dropStep
		f.drop()
	}
}

// drop drops what was read and was not dropped yet.
func (f *file) drop() {
	p := &f.pages
	if p.read <= p.dropped {
		return
	}
	end := p.read
	if young(f.f) {
		end = min(end, p.backlog)
	}
	if end > p.dropped {
		dropPages(f.f, p.dropped, end)
		// The kernel may hold up to 2 MiB, aligned, as one piece, and leaves it alone if it is told to drop only a part.
		p.dropped = end - end%dropStep
	}
}

// reread is for a file that is read from its beginning again.
func (p *pages) reread() { p.read, p.tried, p.dropped = 0, 0, 0 }

// young reports whether a file was written to of late. It does without os.File.Stat, which allocates.
func young(f *os.File) bool {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return true
	}
	return time.Since(time.Unix(st.Mtim.Unix())) < wantedFor
}
