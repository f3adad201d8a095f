package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// giveBack gives back what is not needed any more: garbage, and pages of the program itself, which the kernel maps again, from its
// cache, where they are needed. At a start, and after a backlog, that is megabytes. Both are hints, so an error is none.
func giveBack(program []mapping) {
	debug.FreeOSMemory()
	pages, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return
	}
	defer pages.Close()
	for _, m := range program {
		if isOfFile(pages, m) {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED)
		}
	}
}

// mappedProgram gives where this program is mapped and cannot be written to.
func mappedProgram() []mapping {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil
	}
	defer maps.Close()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil
	}
	return readOnly(maps, program)
}

// readOnly gives, from a text as of /proc/self/maps (proc_pid_maps(5)), where a file is mapped and cannot be written to.
func readOnly(maps io.Reader, file string) (found []mapping) {
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		line := lines.Text()
		if !strings.HasSuffix(line, " "+file) {
			continue
		}
		var m mapping
		var access string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &m.start, &m.end, &access); n == 3 && !strings.Contains(access, "w") {
			found = append(found, m)
		}
	}
	return found
}

// What /proc/pid/pagemap tells of each page in 8 bytes (proc_pid_pagemap(5)).
const (
	pagePresent = 1 << 63
	pageSwapped = 1 << 62
	pageOfFile  = 1 << 61
)

// isOfFile reports whether no page of a mapping differs from its file: one that does would be lost. Debuggers and tracers
// (uprobes) put their breakpoints into copies of pages that the program itself cannot write to.
func isOfFile(pagemap io.ReaderAt, m mapping) bool {
	size := uintptr(os.Getpagesize())
	var entries [512]byte
	for at := m.start; at < m.end; {
		part := entries[:min(uintptr(len(entries)), (m.end-at)/size*8)]
		if _, err := pagemap.ReadAt(part, int64(at/size*8)); err != nil || len(part) == 0 {
			return false
		}
		for ; len(part) > 0; part = part[8:] {
			page := binary.NativeEndian.Uint64(part)
			if page&pageSwapped != 0 || page&pagePresent != 0 && page&pageOfFile == 0 {
				return false
			}
			at += size
		}
	}
	return true
}
