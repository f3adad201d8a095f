//go:build e2e && linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

// image is what `make image` builds.
const image = "auditferry:latest"

// container is the agent in a container, which Docker runs in the foreground: what the agent is told, it is told through `docker run`.
type container struct {
	*rig.Agent
	name   string
	pid    int // of the agent, not of `docker run`
	begin  time.Time
	cgroup cgroup
}

// limits are those of the container. There is no swap, which would hide a lack of memory.
type limits struct {
	memory int64   // bytes
	cpus   float64 // 0: all
}

// spent is what a container has taken since its start.
type spent struct {
	wall, cpu          time.Duration
	periods, throttled int64
	resident           int64 // bytes, of the process, at the most
	memory             int64 // bytes, with the page cache, at the most
	oomKills           int64
}

// startContainer runs the agent with the rights that README.md gives it. It follows the audit logs, which are in dir/audit, and
// shares the network of this machine. It is gone when the test ends.
func startContainer(t *testing.T, ctx context.Context, dir string, of limits, url string, auditLogs []string, args ...string) *container {
	t.Helper()
	if _, err := docker(ctx, "image", "inspect", image); err != nil {
		t.Fatalf("Docker must answer, and `make image` have built %s: %v", image, err)
	}
	c := &container{name: fmt.Sprintf("auditferry-caps-%d", rand.Uint32())}
	state := subDir(t, dir, "agent")
	run := []string{
		"docker", "run", "--name=" + c.name, "--network=host", fmt.Sprintf("--user=%d:%d", os.Getuid(), os.Getgid()),
		"--read-only", "--cap-drop=ALL", "--cap-add=DAC_READ_SEARCH", "--security-opt=no-new-privileges",
		fmt.Sprintf("--memory=%d", of.memory), fmt.Sprintf("--memory-swap=%d", of.memory),
		"--volume=" + filepath.Join(dir, "audit") + ":" + filepath.Join(dir, "audit") + ":ro", "--volume=" + state + ":" + state,
	}
	if of.cpus > 0 {
		run = append(run, fmt.Sprintf("--cpus=%g", of.cpus))
	}
	for _, log := range auditLogs[1:] {
		args = append(args, "--audit-log-path="+log)
	}
	c.Agent = &rig.Agent{
		Wrapper: run, Binary: image, AuditLog: auditLogs[0], LokiURL: url, Dir: state, Node: node,
		ExtraArgs: args,
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.remove(t) })
	var started string
	err := rig.Poll(ctx, func() (bool, error) {
		var err error
		started, err = docker(ctx, "inspect", "--format={{.State.Pid}} {{.State.StartedAt}}", c.name)
		return err == nil && !strings.HasPrefix(started, "0 "), c.Running()
	})
	if err != nil {
		t.Fatalf("starting a container: %v", err)
	}
	pid, at, _ := strings.Cut(started, " ")
	if c.pid, err = strconv.Atoi(pid); err != nil {
		t.Fatal(err)
	}
	if c.begin, err = time.Parse(time.RFC3339Nano, at); err != nil {
		t.Fatal(err)
	}
	c.cgroup = findCgroup(t, c.pid)
	return c
}

// remove ends the container, whatever it does, and prints the agent's log if the test has failed.
func (c *container) remove(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	if _, err := docker(ctx, "rm", "--force", "--volumes", c.name); err != nil {
		t.Error(err)
	}
	select {
	case <-c.Ended():
	case <-ctx.Done():
		t.Errorf("`docker run` outlives its container %s", c.name)
	}
	if !t.Failed() {
		return
	}
	log, err := os.ReadFile(c.LogFile())
	t.Logf("the agent's log (%v):\n%s", err, log[max(0, len(log)-8<<10):])
}

// docker runs a command of Docker and gives what it prints.
func docker(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "docker", args...).Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("docker %s: %w", args[0], err)
	}
	return strings.TrimSpace(string(out)), nil
}

// spent gives what the container has taken so far.
func (c *container) spent(t *testing.T) spent {
	t.Helper()
	return spent{
		wall: time.Since(c.begin), cpu: time.Duration(c.cgroup.cpu.read(t)) * c.cgroup.cpuUnit,
		periods: c.cgroup.periods.read(t), throttled: c.cgroup.throttled.read(t),
		resident: rig.PeakRSS(c.pid), memory: c.cgroup.memory.read(t), oomKills: c.cgroup.oomKills.read(t),
	}
}

// mustRun fails the test unless the container runs as it was started, and Docker knows of no lack of memory.
func (c *container) mustRun(t *testing.T, ctx context.Context) {
	t.Helper()
	got, err := docker(ctx, "inspect", "--format=running {{.State.Running}}, out of memory {{.State.OOMKilled}}, restarts {{.RestartCount}}, PID {{.State.Pid}}", c.name)
	if want := fmt.Sprintf("running true, out of memory false, restarts 0, PID %d", c.pid); err != nil || got != want {
		t.Errorf("the container: %s, want %s (%v)", got, want, err)
	}
}

// mustBeWell fails the test unless the container runs, and nothing in it was killed for want of memory.
func (c *container) mustBeWell(t *testing.T, ctx context.Context, used spent) {
	t.Helper()
	c.mustRun(t, ctx)
	if used.oomKills != 0 {
		t.Errorf("%d processes of the container were killed for want of memory", used.oomKills)
	}
	if used.resident == 0 || used.cpu == 0 {
		t.Error("the kernel did not tell what the agent has taken")
	}
}

// share is how much of its processor time the container has taken.
func (s spent) share(of limits) float64 { return s.cpu.Seconds() / s.wall.Seconds() / of.cpus }

// of tells it beside the limits.
func (s spent) of(of limits) string {
	cpu := fmt.Sprintf("%.3f CPU", s.cpu.Seconds()/s.wall.Seconds())
	if of.cpus > 0 {
		cpu += fmt.Sprintf(" (%.0f %% of %g, all of it in %d of %d periods)", 100*s.share(of), of.cpus, s.throttled, s.periods)
	}
	return fmt.Sprintf("%s, memory at the most %.1f MB resident, %.1f MB with page cache, of %.1f MB, %d OOM kills",
		cpu, float64(s.resident)/1e6, float64(s.memory)/1e6, float64(of.memory)/1e6, s.oomKills)
}
