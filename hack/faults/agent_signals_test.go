//go:build e2e

package faults

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

func init() {
	register(
		scenario{side: "agent", name: "SIGSTOP for 60 s, rotations", play: stopped},
		scenario{side: "agent", name: "SIGKILL every 2 s", play: killedOften},
		scenario{side: "agent", name: "SIGTERM while Loki hangs", play: terminatedInHang, flags: []string{"--shutdown-timeout=1s"}},
		scenario{side: "agent", name: "a second agent on the positions file", play: secondAgent},
	)
}

// answersLate stores at once and answers after d, so that pushes are under way at any moment.
func answersLate(d time.Duration) func(lokitest.Request) lokitest.Reply {
	return func(lokitest.Request) lokitest.Reply {
		released := make(chan struct{})
		time.AfterFunc(d, func() { close(released) })
		return lokitest.After(released, lokitest.OK())
	}
}

// killedOften never lets the agent live for longer than two seconds.
func killedOften(r *run) {
	const kills = 15
	r.answer("push", answersLate(50*time.Millisecond))
	stop := r.keepWriting(rig.WriterConfig{MaxSize: 1, PerSecond: 200, Compress: true})
	for range kills {
		before := r.times("push")
		r.start()
		r.pass(2 * time.Second)
		if r.times("push") == before {
			r.Error("a life passed without a push")
		}
		r.kill()
	}
	r.start()
	stop()
	r.mustHaveRepeated()
	if r.backups() < 3 {
		r.Errorf("%d rotations, want 3", r.backups())
	}
}

// terminatedInHang asks the agent to stop when it cannot finish.
func terminatedInHang(r *run) {
	w := r.rotating()
	r.start()
	r.write(w, 700)
	r.delivered(700)
	r.answer("hang", always(lokitest.Hang()))
	for life := range 3 {
		before := r.times("hang")
		r.write(w, 500)
		r.eventually("Loki hangs", func() bool { return r.times("hang") > before })
		begin := time.Now()
		r.stop()
		if took := time.Since(begin); took > 5*time.Second {
			r.Errorf("it took %s to stop in life %d, with --shutdown-timeout=1s", took, life)
		}
		r.start()
	}
	if n := len(r.server.Entries()); n != 700 {
		r.Errorf("%d entries are in Loki, which took 700", n)
	}
	r.server.Answer(nil)
}

// stopped freezes the agent while the audit log goes on; all backups are kept.
func stopped(r *run) {
	r.start()
	stop := r.keepWriting(rig.WriterConfig{MaxSize: 1, PerSecond: 80, Compress: true})
	r.delivered(100)
	r.must(r.agent.Signal(syscall.SIGSTOP))
	entries, rotated := len(r.server.Entries()), r.backups()
	r.pass(time.Minute)
	if n := r.backups() - rotated; n < 3 {
		r.Errorf("%d rotations while the agent was stopped, want 3", n)
	}
	// What was in the kernel's hands when the signal came may still have arrived.
	if n := len(r.server.Entries()) - entries; n > 1000 {
		r.Errorf("%d entries arrived from an agent that was stopped", n)
	}
	r.must(r.agent.Signal(syscall.SIGCONT))
	stop()
}

// secondAgent starts another agent with the positions file of the one that runs.
func secondAgent(r *run) {
	r.start()
	stop := r.keepWriting(rig.WriterConfig{MaxSize: 1, PerSecond: 200})
	r.delivered(100)
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	for range 3 {
		var stderr bytes.Buffer
		second := exec.CommandContext(ctx, r.agent.Binary, "--audit-log-path="+r.auditLog, "--loki-url="+r.url,
			"--positions-file="+r.agent.PositionsFile(), "--node="+node, "--listen-address=")
		second.Stderr = &stderr
		var exit *exec.ExitError
		if err := second.Run(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
			r.Errorf("the second agent: %v, want exit code 1", err)
		}
		said := stderr.String()
		want := "in use by another auditferry (pid " + strconv.Itoa(r.agent.PID()) + ")"
		if strings.Count(said, "\n") != 1 || !strings.Contains(said, want) || !strings.Contains(said, r.agent.PositionsFile()) {
			r.Errorf("the second agent says %q, want one line with %q", said, want)
		}
	}
	now := len(r.server.Entries())
	r.delivered(now + 200)
	stop()
	r.waitDelivered()
	if again := r.server.Arrivals() - len(r.server.Entries()); again != 0 {
		r.Errorf("%d entries were pushed twice", again)
	}
	if _, err := os.Stat(r.agent.PositionsFile()); err != nil {
		r.Error(err)
	}
}
