package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// dropStart gives back what only the start has needed: garbage, and pages of the program itself, which the kernel maps again,
// from its cache, where they are needed. These were 3 of the 12 MB of the program that were in memory. Both are hints, so an
// error is none.
func dropStart() {
	debug.FreeOSMemory()
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer smaps.Close()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for _, m := range unchanged(smaps, program) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED)
	}
}

// mapping is a range of addresses.
type mapping struct{ start, end uintptr }

// unchanged gives, from a text as of /proc/self/smaps (proc_pid_smaps(5)), where a file is mapped so that no page can differ
// from the file, in memory or swapped out: a page that does would be lost.
func unchanged(smaps io.Reader, file string) (found []mapping) {
	var now mapping
	candidate := false // no page differs, as far as was read
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		line := lines.Text()
		var m mapping
		var access string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &m.start, &m.end, &access); n == 3 {
			now = m
			candidate = !strings.Contains(access, "w") && strings.HasSuffix(line, " "+file)
			continue
		}
		var changed int
		if n, _ := fmt.Sscanf(line, "Anonymous: %d kB", &changed); n == 1 {
			candidate = candidate && changed == 0
		}
		if n, _ := fmt.Sscanf(line, "Swap: %d kB", &changed); n == 1 && candidate && changed == 0 {
			found = append(found, now)
		}
	}
	return found
}
