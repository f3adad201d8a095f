package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a program under measure.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	log   string
	begin time.Time
	ended chan struct{} // closed once cmd.ProcessState is there
}

// cost is what a process has taken from its start to its end.
type cost struct {
	cpu, wall time.Duration // user and system time; start to the arrival of the last entry
	peak      int64         // bytes of resident memory
	wire      int64         // bytes of the pushes' bodies
	requests  int
}

// start runs a command, its output in a file of that name under dir.
func start(dir, name string, command ...string) (*process, error) {
	out, err := os.Create(filepath.Join(dir, name+".out"))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, stdin: stdin, log: out.Name(), begin: time.Now(), ended: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		_ = cmd.Wait() // how it ended is in ProcessState
		close(p.ended)
	}()
	return p, nil
}

// stop ends the process and gives the user and system time that it took in all.
func (p *process) stop() (time.Duration, error) {
	_ = p.stdin.Close() // ends the floor; the signal ends the agent
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return 0, fmt.Errorf("ending %s: %w", p.cmd.Path, err)
	}
	<-p.ended
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime(), nil
}

// running gives an error once the process has ended.
func (p *process) running() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s ended (%v)", p.cmd.Path, p.cmd.ProcessState)
	default:
		return nil
	}
}

// cpu is the time that the threads of the process have run so far, to the nanosecond (Linux, proc_pid_schedstat). Those of a
// Go program do not end.
func (p *process) cpu() (sum time.Duration, err error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	if err != nil || len(tasks) == 0 {
		return 0, fmt.Errorf("reading the processor time of process %d: %w", p.cmd.Process.Pid, errors.Join(err, os.ErrNotExist))
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			return 0, err
		}
		ran, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(ran, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("reading %s: %w", task, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}
