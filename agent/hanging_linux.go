package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// idleCalls are the system calls in which the Go runtime lets threads rest.
var idleCalls = map[int]bool{unix.SYS_FUTEX: true, unix.SYS_EPOLL_PWAIT: true, unix.SYS_NANOSLEEP: true}

// hangingCalls gives the system calls, with their threads and arguments, in which other threads of this process are at the moment: one that
// is there twice does not come back, as from a file system that is away (proc_pid_syscall(5)). A kernel that does not tell gives
// one that is always there, so that nothing is taken for dead that may be waiting for a disk.
func hangingCalls() map[string]bool {
	runtime.LockOSThread() // so that the thread that looks is one and the same: the read with which it looks does not count
	defer runtime.UnlockOSThread()
	self := strconv.Itoa(unix.Gettid())
	files, _ := filepath.Glob("/proc/self/task/*/syscall") // the pattern is a good one
	calls, told := make(map[string]bool), false
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		told = true
		thread := filepath.Base(filepath.Dir(file))
		if thread == self {
			continue
		}
		number, _, _ := strings.Cut(string(text), " ")
		if n, err := strconv.Atoi(strings.TrimSpace(number)); err == nil && n >= 0 && !idleCalls[n] {
			calls[thread+" "+string(text)] = true
		}
	}
	if !told {
		calls["not known"] = true
	}
	return calls
}
