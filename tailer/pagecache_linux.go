package tailer

import (
	"os"

	"golang.org/x/sys/unix"
)

// Errors are ignored: this is a hint, which some file systems do not take, and the file is read all the same.

// expectSequential has the kernel read further ahead.
func expectSequential(f *os.File) { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_SEQUENTIAL) }

func dropPages(f *os.File, from, to int64) {
	_ = unix.Fadvise(int(f.Fd()), from, to-from, unix.FADV_DONTNEED)
}
