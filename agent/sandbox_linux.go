package main

import (
	"fmt"
	"os"
	"time"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsyscall "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// wholeABI of Landlock, that of Linux 6.2, refuses all that is to be refused: the ones before do not keep files from being truncated.
const wholeABI = 3

// What may be done with files in a directory. None may be executed, and no directory, link or socket be made.
const (
	readFiles = llsyscall.AccessFSReadFile
	readDirs  = readFiles | llsyscall.AccessFSReadDir
	writeDirs = readDirs | llsyscall.AccessFSWriteFile | llsyscall.AccessFSTruncate | llsyscall.AccessFSMakeReg | llsyscall.AccessFSRemoveFile
)

// enforce applies the rules of a view to all threads, for good, and says what the kernel's Landlock lacks, "" if nothing. With whole,
// what lacks something is an error, and nothing is applied.
//
// Only files are restricted. Ports of TCP are known at the start, those of names that Loki redirects to are not; and of the
// versions that restrict signals, some deny them between the threads of a process, which Go's scheduler needs.
func (s *sandbox) enforce(v *view, whole bool) (abi int, lacks string, err error) {
	abi, err = llsyscall.LandlockGetABIVersion()
	if err != nil {
		return 0, "", fmt.Errorf("the kernel has no Landlock (Linux 5.13 and later have it, if it is among their LSMs): %w", err)
	}
	if abi < wholeABI {
		lacks = fmt.Sprintf("truncation is not refused: that takes Landlock ABI %d, of Linux 6.2", wholeABI)
	}
	if whole && lacks != "" {
		return abi, lacks, fmt.Errorf("the kernel's Landlock has ABI %d: %s", abi, lacks)
	}
	_ = time.Now().String() // reads /etc/localtime, once
	s.pin("/proc/self", "/proc/stat")
	rules := []landlock.Rule{
		landlock.PathAccess(readDirs, "/proc/self").IgnoreIfMissing(), // for metrics, and giveBack
		landlock.PathAccess(readFiles, "/proc/stat").IgnoreIfMissing(),
		landlock.PathAccess(readDirs, distinct(v.audit)...),
		landlock.PathAccess(readDirs, distinct(v.dirs)...).IgnoreIfMissing(), // who refreshes them makes them anew
		landlock.PathAccess(readFiles, distinct(v.auditFiles, v.files)...).IgnoreIfMissing(),
		landlock.PathAccess(writeDirs, distinct(v.write)...),
	}
	if err := landlock.V8.BestEffort().RestrictPaths(rules...); err != nil {
		return abi, lacks, fmt.Errorf("confining the agent: %w", err)
	}
	return abi, lacks, nil
}

// pin holds files of /proc open, where there is one.
func (s *sandbox) pin(paths ...string) {
	for _, path := range paths {
		if f, err := os.Open(path); err == nil {
			s.pinned = append(s.pinned, f)
		}
	}
}
