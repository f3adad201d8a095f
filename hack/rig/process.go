package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// pollInterval is the time between two looks at a condition that another process brings about.
const pollInterval = 50 * time.Millisecond

// process is one run of a child process whose output goes to a file. A goroutine waits for it; done is closed after.
type process struct {
	name string
	log  string // path of the file that holds stdout and stderr
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; valid once done is closed
}

// startProcess runs a command, its output appended to the file log. The environment is the caller's plus env.
func startProcess(name string, command []string, log string, attr *syscall.SysProcAttr, env ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer out.Close()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.SysProcAttr = attr
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), env...)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p := &process{name: name, log: log, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// kill sends SIGKILL and waits for the end. A process that ended before by itself is an error: nobody asked it to.
func (p *process) kill() error {
	if err := p.stillRuns(); err != nil {
		return err
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing %s: %w", p.name, err)
	}
	<-p.done
	return nil
}

// terminate sends SIGTERM and waits for the end, at most for patience; after that it kills and gives an error. It gives the
// exit code, -1 if a signal ended it.
func (p *process) terminate(patience time.Duration) (int, error) {
	if err := p.stillRuns(); err != nil {
		return p.cmd.ProcessState.ExitCode(), err
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return -1, fmt.Errorf("stopping %s: %w", p.name, err)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-timer.C:
		return -1, errors.Join(fmt.Errorf("%s did not stop within %s after SIGTERM, its log is %s", p.name, patience, p.log), p.kill())
	}
}

// stillRuns gives an error that names the exit and the log if the process has ended.
func (p *process) stillRuns() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended by itself (%s), its log is %s", p.name, p.cmd.ProcessState, p.log)
	default:
		return nil
	}
}

// PeakRSS gives the most bytes of memory that a running process has held so far, from /proc; 0 where there is no /proc. Not
// rusage's maxrss: at exec Linux carries the parent's peak into it (fs/exec.c, exec_mmap), and the parent is a test that
// holds whole corpora.
func PeakRSS(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}

// waitReady polls url with client until it answers 200, the process ends, or ctx does.
func (p *process) waitReady(ctx context.Context, client *http.Client, url, bearer string) error {
	var last error
	err := Poll(ctx, func() (bool, error) {
		if err := p.stillRuns(); err != nil {
			return false, err
		}
		last = get(ctx, client, url, bearer)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for %s to be ready, its log is %s: %w", p.name, p.log, errors.Join(err, last))
	}
	return nil
}

// get gives nil if url answers 200.
func get(ctx context.Context, client *http.Client, url, bearer string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 512))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", res.Status, strings.TrimSpace(string(body)))
	}
	return nil
}

// Poll calls check every 50 ms until it gives true or an error, or ctx ends.
func Poll(ctx context.Context, check func() (bool, error)) error {
	return pollEvery(ctx, pollInterval, check)
}

func pollEvery(ctx context.Context, interval time.Duration, check func() (bool, error)) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		ok, err := check()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}
