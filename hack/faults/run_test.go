//go:build e2e

package faults

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

const node = "node-1"

// patience is how long what must happen may take to happen on a loaded machine.
const patience = time.Minute

// run is one scenario as it is played. Its methods fail the scenario on any error; those that start or end the agent are for the
// scenario's own goroutine.
type run struct {
	*testing.T
	scenario scenario
	ctx      context.Context
	dir      string // of its own; kept if the scenario fails
	auditLog string // alone in its directory with its backups
	ledger   *ledger
	events   *events
	server   *lokitest.Server
	url      string
	agent    *rig.Agent // does not run yet
	lives    int        // how often it was started

	mu      sync.Mutex
	replies map[string]int // counted by answer
}

func newRun(t *testing.T, ctx context.Context, s scenario) *run {
	t.Helper()
	r := &run{T: t, scenario: s, ctx: ctx, ledger: newLedger(), events: newEvents(t, s.ordered), replies: map[string]int{}}
	r.dir = workDir(t)
	r.auditLog = filepath.Join(r.makeDir("audit"), "audit.log")
	r.server = lokitest.New()
	var err error
	if r.url, err = r.server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.server.Close)
	binary, err := rig.Binary("auditferry")
	if err != nil {
		t.Fatal(err)
	}
	r.agent = &rig.Agent{Binary: binary, AuditLog: r.auditLog, LokiURL: r.url, Dir: r.makeDir("agent"), Node: node}
	t.Cleanup(func() {
		if r.agent.Running() != nil {
			return
		}
		if err := r.agent.Kill(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// workDir gives a directory of its own, which is kept if the test fails.
func workDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "auditferry-faults-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("kept: %s", dir)
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		// lumberjack's goroutine, which nothing waits for, may still be compressing a backup.
		if err := rig.Poll(ctx, func() (bool, error) { return os.RemoveAll(dir) == nil, nil }); err != nil {
			t.Errorf("removing the directory of the run: %v", err)
		}
	})
	return dir
}

// makeDir makes a directory in that of the run.
func (r *run) makeDir(name string) string {
	r.Helper()
	dir := filepath.Join(r.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		r.Fatal(err)
	}
	return dir
}

// must fails the scenario on err.
func (r *run) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// everyRun are flags that save time: pauses of seconds would make no scenario truer. Streams are not paced. Lines of any length are
// sent whole, so that they can be told by their hash, and recorded logs whenever they were recorded.
var everyRun = []string{"--backoff-min=50ms", "--backoff-max=500ms", "--batch-wait=200ms", "--batch-size=256KiB", "--loki-stream-rate=0",
	"--max-line-size=0", "--loki-reject-old=0"}

// start runs the agent, with the flags of the suite, then those of the scenario, then args.
func (r *run) start(args ...string) {
	r.Helper()
	r.agent.ExtraArgs = append(append(append([]string{}, everyRun...), r.scenario.flags...), args...)
	r.must(r.agent.Start())
	r.lives++
}

// kill ends the agent by SIGKILL, and looks at what it has left.
func (r *run) kill() {
	r.Helper()
	r.must(r.agent.Kill())
	r.checkPosition()
}

// stop ends the agent by SIGTERM, which must be a clean stop, and looks at what it has left.
func (r *run) stop() {
	r.Helper()
	if code, err := r.agent.Stop(30 * time.Second); err != nil || code != 0 {
		r.Fatalf("the agent stopped with code %d, want 0 (%v); its log is %s", code, err, r.agent.LogFile())
	}
	r.checkPosition()
}

// eventually waits until check holds, while the agent runs.
func (r *run) eventually(what string, check func() bool) {
	r.Helper()
	r.within(patience, what, check)
}

// within is eventually with another patience.
func (r *run) within(limit time.Duration, what string, check func() bool) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, limit)
	defer cancel()
	if err := rig.Poll(ctx, func() (bool, error) { return check(), r.agent.Running() }); err != nil {
		r.Fatalf("waiting until %s: %v", what, err)
	}
}

// pass lets time go by: a fault that lasts.
func (r *run) pass(d time.Duration) {
	r.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.ctx.Done():
		r.Fatal(r.ctx.Err())
	}
}

// metric gives a counter or gauge of the agent, summed over its series. An agent that was started a moment ago does not listen
// yet.
func (r *run) metric(name string) (value float64) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	err := rig.Poll(ctx, func() (bool, error) {
		var err error
		if value, err = r.agent.Metric(ctx, name); errors.Is(err, syscall.ECONNREFUSED) {
			return false, r.agent.Running()
		}
		return err == nil, err
	})
	r.must(err)
	return value
}

// saysAway waits until the agent's metrics say that Loki takes no pushes.
func (r *run) saysAway() {
	r.Helper()
	r.eventually("auditferry_loki_up is 0", func() bool { return r.metric("auditferry_loki_up") == 0 })
}

// answer sets what Loki does, and counts under kind how often it did.
func (r *run) answer(kind string, script func(lokitest.Request) lokitest.Reply) {
	r.server.Answer(func(request lokitest.Request) lokitest.Reply {
		reply := script(request)
		r.happened(kind)
		return reply
	})
}

// happened counts one case of a fault; times gives the count.
func (r *run) happened(kind string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.replies[kind]++
}

func (r *run) times(kind string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.replies[kind]
}

// always is a script of one reply.
func always(reply lokitest.Reply) func(lokitest.Request) lokitest.Reply {
	return func(lokitest.Request) lokitest.Reply { return reply }
}
