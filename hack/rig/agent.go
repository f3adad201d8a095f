package rig

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// Agent is the auditferry binary under test, started and ended as often as the run wants. One goroutine uses it.
type Agent struct {
	Binary    string   // path of the program
	AuditLog  string   // --audit-log-path
	LokiURL   string   // --loki-url
	Dir       string   // holds the positions file and agent.log; kept over restarts
	Node      string   // --node
	ExtraArgs []string // further flags

	// Wrapper is a command that runs the program in its own place, as `env` and `unshare` do: the arguments that follow it are
	// the program and its flags.
	Wrapper []string
	Env     []string             // added to the environment of the test
	Attr    *syscall.SysProcAttr // user, namespaces

	listen string // host:port of /metrics and /readyz, chosen at the first start
	run    *process
	peak   int64
}

// Start runs the agent. Its stderr is appended to LogFile.
func (a *Agent) Start() error {
	if a.listen == "" {
		ports, err := FreePorts(1)
		if err != nil {
			return err
		}
		// An address of its own: connections from 127.0.0.1 can take a free port before the agent does.
		a.listen = fmt.Sprintf("127.%d.%d.%d:%d", 1+rand.IntN(250), rand.IntN(250), 1+rand.IntN(250), ports[0])
	}
	args := append([]string{
		"--audit-log-path=" + a.AuditLog,
		"--loki-url=" + a.LokiURL,
		"--positions-file=" + a.PositionsFile(),
		"--node=" + a.Node,
		"--listen-address=" + a.listen,
	}, a.ExtraArgs...)
	command := append(append(slices.Clone(a.Wrapper), a.Binary), args...)
	run, err := startProcess("auditferry", command, a.LogFile(), a.Attr, a.Env...)
	if err != nil {
		return err
	}
	a.run = run
	return nil
}

// PositionsFile is the path given as --positions-file.
func (a *Agent) PositionsFile() string { return filepath.Join(a.Dir, "positions.json") }

// LatestFiles are the paths of the two files that are overwritten in turn after every acknowledged push.
func (a *Agent) LatestFiles() []string {
	return []string{filepath.Join(a.Dir, "positions.latest.json"), filepath.Join(a.Dir, "positions.latest2.json")}
}

// LogFile is where the stderr of all runs goes.
func (a *Agent) LogFile() string { return filepath.Join(a.Dir, "agent.log") }

// Kill ends the agent by SIGKILL and waits for it. It is an error if it had ended by itself.
func (a *Agent) Kill() error {
	a.peak = max(a.peak, PeakRSS(a.PID()))
	return a.run.kill()
}

// Stop ends the agent by SIGTERM and gives its exit code. If it has not ended after patience, it is killed: an error.
func (a *Agent) Stop(patience time.Duration) (int, error) {
	a.peak = max(a.peak, PeakRSS(a.PID()))
	return a.run.terminate(patience)
}

// Signal sends a signal, such as SIGSTOP.
func (a *Agent) Signal(s os.Signal) error {
	if err := a.run.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("sending %s to auditferry: %w", s, err)
	}
	return nil
}

// PID is the process ID of the present run.
func (a *Agent) PID() int { return a.run.cmd.Process.Pid }

// Running gives nil while the agent runs, else an error with how it ended and where its log is.
func (a *Agent) Running() error {
	if a.run == nil {
		return errors.New("auditferry was not started")
	}
	return a.run.stillRuns()
}

// Ended is closed when the present run has ended.
func (a *Agent) Ended() <-chan struct{} { return a.run.done }

// PeakRSS gives the most memory, in bytes, that any run held up to the moment it was ended, or up to now. 0 where there is
// no /proc.
func (a *Agent) PeakRSS() int64 {
	a.peak = max(a.peak, PeakRSS(a.PID()))
	return a.peak
}

// WaitReady waits until /readyz answers 200.
func (a *Agent) WaitReady(ctx context.Context) error {
	return a.run.waitReady(ctx, http.DefaultClient, "http://"+a.listen+"/readyz", "")
}

// Ready gives nil if /readyz answers 200, else an error with what it says.
func (a *Agent) Ready(ctx context.Context) error {
	return get(ctx, http.DefaultClient, "http://"+a.listen+"/readyz", "")
}

// Metric gives the sum of one counter or gauge on the agent's /metrics, over all series with these values of labels: name, value,
// name, value…
func (a *Agent) Metric(ctx context.Context, name string, labels ...string) (float64, error) {
	families, err := scrape(ctx, "http://"+a.listen+"/metrics")
	if err != nil {
		return 0, fmt.Errorf("reading the agent's metrics: %w", err)
	}
	family, ok := families[name]
	if !ok {
		return 0, fmt.Errorf("the agent has no metric %s, it has %v", name, slices.Sorted(maps.Keys(families)))
	}
	var sum float64
	found := len(labels) == 0
	for _, m := range family.GetMetric() {
		if hasLabels(m, labels) {
			found = true
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
		}
	}
	if !found {
		return 0, fmt.Errorf("the agent has no %s with %v", name, labels)
	}
	return sum, nil
}
