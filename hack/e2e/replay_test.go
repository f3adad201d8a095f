//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

// replayKills is how often a replay is killed in the middle of its work.
const replayKills = 3

// TestReplay lets Loki refuse every tenth event, and then replays them, with an agent that runs on: killed three times,
// with a third refused again, and once more with none. Each must be what the agent pushed at first, label for label.
func TestReplay(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	server, url := startEndpoint(t)
	picky := &pickyLoki{refused: make(map[[32]byte]lokitest.Entry), one: 10}
	server.Answer(picky.answer)
	dir := workDir(t)
	auditLog := filepath.Join(subDir(t, dir, "audit"), "audit.log")
	tally, count := writeSample(t, ctx, auditLog)
	agent := newAgent(t, dir, auditLog, url, "--loki-stream-rate=0")
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	// Loki has what it takes of a push that it refuses, so the agent pushes on for a while when all are there.
	err := rig.Poll(ctx, func() (bool, error) {
		if len(server.Entries())+lettersIn(t, agent) < count {
			return false, agent.Running()
		}
		lag, err := agent.Metric(ctx, "auditferry_lag_bytes")
		return lag == 0, err
	})
	if err != nil {
		t.Fatalf("waiting for %d events in Loki or refused: %v; there are %d and %d", count, err, len(server.Entries()), lettersIn(t, agent))
	}
	pushed := picky.first()
	refused := len(pushed)
	if refused < count/20 || lettersIn(t, agent) != refused {
		t.Fatalf("%d of %d events were refused, %d are dead letters: the test tests nothing", refused, count, lettersIn(t, agent))
	}

	picky.change(0, 20*time.Millisecond)
	for range replayKills {
		killReplay(t, ctx, agent, server)
	}
	if n := lettersIn(t, agent); n != refused {
		t.Errorf("after the kills there are %d dead letters, there were %d", n, refused)
	}
	picky.change(3, 0)
	code, out := replay(t, ctx, agent)
	again := lettersIn(t, agent)
	if want := fmt.Sprintf(": %d taken, %d refused again (too_far_behind %d), kept in ", refused-again, again, again); code != failure || !strings.Contains(out, want) || again < refused/6 {
		t.Errorf("with a third refused again: exit code %d: %s; want %q", code, out, want)
	}
	picky.change(0, 0)
	if code, out = replay(t, ctx, agent); code != 0 || !strings.Contains(out, fmt.Sprintf(": %d taken\n", again)) {
		t.Errorf("with none refused: exit code %d: %s", code, out)
	}
	if files := letterFiles(t, agent); len(files) > 0 {
		t.Errorf("%v are left", files)
	}
	stopAgent(t, agent)
	for _, e := range server.Entries() {
		tally.Found(rig.Entry{Time: e.Time, Line: []byte(e.Line), Labels: e.Labels})
		e.Count, e.Acked = 0, 0
		if first, was := pushed[e.LineHash]; was && !reflect.DeepEqual(e, first) {
			t.Errorf("replayed was %+v, refused %+v", e, first)
		}
	}
	result := tally.Result()
	report(t, result)
	t.Logf("%d events, %d refused, %d of them again; %s", count, refused, again, result)
}

// pickyLoki refuses one event in so many, by the hash of its line.
type pickyLoki struct {
	mu      sync.Mutex
	one     byte // 0: none
	latency time.Duration
	refused map[[32]byte]lokitest.Entry
}

func (p *pickyLoki) change(one byte, latency time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.one, p.latency = one, latency
}

// first gives the events that were refused, as they were pushed first.
func (p *pickyLoki) first() map[[32]byte]lokitest.Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.refused)
}

func (p *pickyLoki) answer(request lokitest.Request) lokitest.Reply {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.one
	refuses := func(e lokitest.Entry) bool { return one > 0 && e.LineHash[0]%one == 0 }
	for _, e := range request.Entries {
		if _, known := p.refused[e.LineHash]; refuses(e) && !known {
			p.refused[e.LineHash] = e
		}
	}
	reply := lokitest.Refusing(request, func(e lokitest.Entry) string { // which is called again when p.mu is free
		if refuses(e) {
			return "entry with timestamp ignored, reason: 'entry too far behind'"
		}
		return ""
	})
	answered := make(chan struct{})
	time.AfterFunc(p.latency, func() { close(answered) })
	return lokitest.After(answered, reply)
}

func letterFiles(t *testing.T, agent *rig.Agent) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(agent.Dir, "dead-letters*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// lettersIn counts the lines of all dead-letter files.
func lettersIn(t *testing.T, agent *rig.Agent) int {
	t.Helper()
	lines := 0
	for _, name := range letterFiles(t, agent) {
		text, err := os.ReadFile(name)
		if err != nil && !os.IsNotExist(err) { // rotated meanwhile
			t.Fatal(err)
		}
		lines += bytes.Count(text, []byte("\n"))
	}
	return lines
}

func replayCommand(t *testing.T, ctx context.Context, agent *rig.Agent, flags ...string) *exec.Cmd {
	t.Helper()
	args := append([]string{"replay", "--loki-url=" + agent.LokiURL, "--batch-size=4KiB"}, flags...)
	return exec.CommandContext(ctx, agent.Binary, append(args, letterFiles(t, agent)...)...)
}

// replay replays all dead letters of an agent, and gives the exit code and what was said.
func replay(t *testing.T, ctx context.Context, agent *rig.Agent, flags ...string) (code int, said string) {
	t.Helper()
	cmd := replayCommand(t, ctx, agent, flags...)
	out, _ := cmd.CombinedOutput() // the exit code tells
	return cmd.ProcessState.ExitCode(), string(out)
}

// killReplay kills a replay by SIGKILL after its fifth push.
func killReplay(t *testing.T, ctx context.Context, agent *rig.Agent, server *lokitest.Server) {
	t.Helper()
	before := server.Requests()
	cmd := replayCommand(t, ctx, agent)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	err := rig.Poll(ctx, func() (bool, error) { return server.Requests() >= before+5, nil })
	if err != nil {
		t.Errorf("waiting for pushes of the replay: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Errorf("the replay ended too early to be killed: %v", err)
	}
	_ = cmd.Wait() // killed
	if code := cmd.ProcessState.ExitCode(); code != -1 {
		t.Errorf("the replay ended too early to be killed, with exit code %d", code)
	}
}
