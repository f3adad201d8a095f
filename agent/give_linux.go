package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// give gives a file in a directory to another user, unless it is not a regular one, or has a name elsewhere too. It gives the very
// file that it has looked at, whatever has its name by then.
func give(dir *os.File, name string, to owner) (given bool, err error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written through it
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return false, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG || stat.Nlink > 1 {
		return false, nil
	}
	if err := unix.Fchownat(fd, "", to.uid, to.gid, unix.AT_EMPTY_PATH); err != nil {
		return false, &os.PathError{Op: "chown", Path: name, Err: err}
	}
	return true, nil
}
