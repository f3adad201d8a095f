package positions

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// inUseError says that another agent holds the lock. The pid is what that agent wrote there, in its own pid namespace;
// 0 if it is not known.
type inUseError struct{ pid int }

func (e *inUseError) Error() string {
	if e.pid == 0 {
		return "in use by another auditferry"
	}
	return fmt.Sprintf("in use by another auditferry (pid %d)", e.pid)
}

// Lock takes a flock, which the kernel drops when the process ends, however it ends. The file stays: to remove it would
// let two agents hold two files of that name.
func (disk) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = &inUseError{pid: readPID(f)}
	} else if err != nil {
		err = &os.PathError{Op: "flock", Path: name, Err: err}
	}
	if err != nil {
		return nil, also(err, f.Close())
	}
	writePID(f)
	return f, nil
}

// writePID leaves the pid for the message of a second agent. It is a hint, so a full disk must not stop the agent here.
func writePID(f *os.File) {
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
}

func readPID(f *os.File) int {
	var buf [24]byte
	n, _ := f.ReadAt(buf[:], 0) // io.EOF: the file is shorter
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		return 0
	}
	return pid
}
