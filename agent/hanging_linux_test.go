package main

import (
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Who looks is in a read of /proc whenever it looks. Were that a call that hangs, no loop would be found dead at the first look.
func TestTheThreadThatLooksDoesNotCount(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self := strconv.Itoa(unix.Gettid()) + " "
	for call := range hangingCalls() {
		if strings.HasPrefix(call, self) {
			t.Errorf("it takes itself for one that hangs: %s", call)
		}
	}
}

// A FIFO that nobody writes to is a file system that hangs: open(2) does not come back.
func TestAThreadThatHangsInASystemCallIsSeen(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		f, err := os.Open(fifo)
		if err == nil {
			err = f.Close()
		}
		opened <- err
	}()
	n := &node{t: t}
	first := hangingCalls()
	n.until("a thread that is where it was", func() bool {
		now := hangingCalls()
		maps.DeleteFunc(now, func(call string, _ bool) bool { return !first[call] })
		if len(now) > 0 {
			return true
		}
		first = hangingCalls()
		return false
	})
	f, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	n.until("it being gone", func() bool {
		now := hangingCalls()
		maps.DeleteFunc(now, func(call string, _ bool) bool { return !first[call] })
		return len(now) == 0
	})
}
