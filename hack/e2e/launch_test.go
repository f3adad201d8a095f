//go:build e2e

package e2e

import (
	"context"
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

// newAgent gives an agent that does not run yet; if it runs when the test ends, it is killed. It sends lines of any length whole, so
// that they are compared byte for byte, unless args say otherwise.
func newAgent(t *testing.T, dir, auditLog, lokiURL string, args ...string) *rig.Agent {
	t.Helper()
	binary, err := rig.Binary("auditferry")
	if err != nil {
		t.Fatal(err)
	}
	agent := &rig.Agent{
		Binary: binary, AuditLog: auditLog, LokiURL: lokiURL, Dir: subDir(t, dir, "agent"), Node: node,
		ExtraArgs: append([]string{"--max-line-size=0"}, args...),
	}
	t.Cleanup(func() {
		if agent.Running() != nil {
			return
		}
		if err := agent.Kill(); err != nil {
			t.Error(err)
		}
	})
	return agent
}

// startEndpoint gives a Loki endpoint in this process, which ends with the test, and its URL.
func startEndpoint(t *testing.T, options ...lokitest.Option) (*lokitest.Server, string) {
	t.Helper()
	server := lokitest.New(options...)
	url, err := server.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return server, url
}

// stopAgent ends the agent by SIGTERM, which must be a clean stop, and gives how long it took.
func stopAgent(t *testing.T, agent *rig.Agent) time.Duration {
	t.Helper()
	begin := time.Now()
	if code, err := agent.Stop(20 * time.Second); err != nil || code != 0 {
		t.Errorf("the agent stopped with code %d, want 0 (%v)", code, err)
	}
	return time.Since(begin)
}

// waitForEntries waits until a log query would show n entries.
func waitForEntries(t *testing.T, ctx context.Context, agent *rig.Agent, server *lokitest.Server, n int) {
	t.Helper()
	err := rig.Poll(ctx, func() (bool, error) { return len(server.Entries()) >= n, agent.Running() })
	if err != nil {
		t.Fatalf("waiting for %d entries: %v; there are %d", n, err, len(server.Entries()))
	}
}

// backlog gives events of all levels, of so many bytes or a few more, that end now.
func backlog(t *testing.T, corpus rig.Corpus, size int64) iter.Seq2[[]byte, error] {
	t.Helper()
	passes, err := corpus.Passes(size, 0, corpus.Mixed())
	if err != nil {
		t.Fatal(err)
	}
	return corpus.Replay(time.Now(), slices.Repeat([]string{corpus.Mixed()}, passes)...)
}

// writeLog writes an audit log and its backups, and gives how many lines and bytes they are.
func writeLog(t *testing.T, ctx context.Context, auditLog string, lines iter.Seq2[[]byte, error]) (count int, bytes int64) {
	t.Helper()
	writer := rig.NewWriter(rig.WriterConfig{Path: auditLog, MaxSize: 100})
	for line, err := range lines {
		if err != nil {
			t.Fatal(err)
		}
		if err := writer.Write(ctx, line); err != nil {
			t.Fatal(err)
		}
		bytes += int64(len(line)) + 1
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return writer.Lines(), bytes
}
