//go:build e2e

package faults

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// failingDisk is strace, which makes system calls of the agent fail on certain files.
type failingDisk struct {
	r      *run
	trace  string
	strace *exec.Cmd
	stderr bytes.Buffer
	done   chan struct{}
	mended bool
}

// failing makes the disk fail as f says, from now on, for the agent that runs.
func (r *run) failing(f diskFault) *failingDisk {
	r.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		r.Fatal("this scenario needs strace: apt-get install strace")
	}
	d := &failingDisk{r: r, trace: filepath.Join(r.dir, "strace.out"), done: make(chan struct{})}
	args := []string{"-f", "-qq", "-o", d.trace, "-e", "trace=" + f.call, "-e", "inject=" + f.call + ":error=" + f.errs}
	for _, path := range f.path(r) {
		args = append(args, "-P", path)
	}
	d.strace = exec.Command("strace", append(args, "-p", strconv.Itoa(r.agent.PID()))...)
	d.strace.Stderr = &d.stderr
	r.must(d.strace.Start())
	go func() {
		_ = d.strace.Wait() // ended by mend, or by the end of the agent
		close(d.done)
	}()
	r.Cleanup(d.mend)
	r.eventually("strace has all threads of the agent", d.attached)
	return d
}

// attached says whether strace holds every thread of the agent.
func (d *failingDisk) attached() bool {
	select {
	case <-d.done:
		d.r.Fatalf("strace cannot trace the agent: %s", d.stderr.String())
	default:
	}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", d.r.agent.PID()))
	d.r.must(err)
	tracer := fmt.Sprintf("TracerPid:\t%d\n", d.strace.Process.Pid)
	for _, file := range files {
		status, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // a thread that has ended
		}
		d.r.must(err)
		if !strings.Contains(string(status), tracer) {
			return false
		}
	}
	return true
}

// failures counts the calls that were made to fail.
func (d *failingDisk) failures() int {
	d.r.Helper()
	text, err := os.ReadFile(d.trace)
	d.r.must(err)
	return bytes.Count(text, []byte("(INJECTED)"))
}

// mend lets go of the agent.
func (d *failingDisk) mend() {
	if d.mended {
		return
	}
	d.mended = true
	if err := d.strace.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.r.Error(err)
	}
	<-d.done
}
