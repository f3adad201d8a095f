//go:build e2e && linux

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

// second gives the agent another destination, which is down.
func (c *confined) second() *lokitest.Server {
	c.Helper()
	server, url := startEndpoint(c.T)
	server.Answer(down)
	c.agent.ExtraArgs = append(c.agent.ExtraArgs, "--loki-url="+url)
	return server
}

func down(lokitest.Request) lokitest.Reply { return lokitest.Refused(503, "away") }

// notified has the agent tell how it is, as under systemd with a watchdog, and gives a channel that is closed once it says that it stops.
func (c *confined) notified() (stopping <-chan struct{}) {
	c.Helper()
	dir, err := os.MkdirTemp("", "notify") // the name of a socket must be short
	c.must(err)
	c.Cleanup(func() { _ = os.RemoveAll(dir) })
	address := &net.UnixAddr{Name: filepath.Join(dir, "socket"), Net: "unixgram"}
	conn, err := net.ListenUnixgram("unixgram", address)
	c.must(err)
	c.Cleanup(func() { _ = conn.Close() })
	c.agent.Env = append(c.agent.Env, "NOTIFY_SOCKET="+address.Name, "WATCHDOG_USEC=900000")
	c.agent.ExtraArgs = append(c.agent.ExtraArgs, "--poll-interval=50ms")
	told := make(chan struct{})
	go func() {
		message := make([]byte, 4096)
		for said := false; ; {
			n, err := conn.Read(message)
			if err != nil {
				return // the test is over
			}
			if !said && strings.Contains(string(message[:n]), "STOPPING=1") {
				said = true
				close(told)
			}
		}
	}()
	return told
}

// rotated renames the audit log to a backup and gives its name. An apiserver rotates to make room for an event, so what is written next
// is not later than the name says.
func (c *confined) rotated() string {
	c.Helper()
	backup := strings.TrimSuffix(c.auditLog, ".log") + time.Now().UTC().Add(time.Minute).Format("-2006-01-02T15-04-05.000.log")
	c.must(os.Rename(c.auditLog, backup))
	return backup
}

// replaceLogs puts another directory in the place of that of the audit log, which is deleted.
func (c *confined) replaceLogs() {
	c.Helper()
	dir := filepath.Dir(c.auditLog)
	c.must(os.Rename(dir, dir+".away"))
	c.must(os.RemoveAll(dir + ".away"))
	c.must(os.Mkdir(dir, 0o700))
}

// waits waits until the agent says that its end would lose something to these, in its log and on /readyz; and it goes on then for more
// than two looks.
func (c *confined) waits(words ...string) {
	c.Helper()
	words = append(words, "was replaced", "waiting for")
	c.eventually("the agent says what it waits for", func() bool { return c.logged(words...) })
	if err := c.agent.Ready(c.ctx); err == nil || !strings.Contains(err.Error(), "waiting for") {
		c.Errorf("/readyz: %v", err)
	}
	select {
	case <-c.agent.Ended():
		c.Fatalf("the agent has ended; its log is %s", c.agent.LogFile())
	case <-time.After(2500 * time.Millisecond):
	}
}

// complete waits until a Loki has all that was written, and wants nothing else to be there.
func (c *confined) complete(server *lokitest.Server) {
	c.Helper()
	waitForEntries(c.T, c.ctx, c.agent, server, c.written)
	found := make(map[string]bool)
	for _, e := range server.Entries() {
		if e.Labels["event"] == "gap" {
			c.Errorf("a gap is told: %s", e.Line)
		}
		for i := range c.written {
			if id := fmt.Sprintf(`"id-%d"`, i+1); strings.Contains(e.Line, id) {
				found[id] = true
			}
		}
	}
	if len(found) != c.written {
		c.Errorf("%d of %d events have arrived", len(found), c.written)
	}
}

// TestSandboxLeavesNothingBehind replaces what the sandbox is about while a destination is down that has not got all of what is deleted
// by then. The agent ends when it has.
func TestSandboxLeavesNothingBehind(t *testing.T) {
	t.Run("of the directory that was replaced", func(t *testing.T) {
		t.Parallel()
		c := newConfined(t)
		_ = c.notified()
		other := c.second()
		c.start()
		c.write(5)
		c.delivered()
		c.replaceLogs()
		c.write(5)
		c.waits(c.auditLog + " to ")
		if c.logged("a loop stands still") {
			t.Error("the watchdog takes a loop for dead")
		}
		other.Answer(nil)
		c.ends("was replaced by another directory")
		c.must(c.agent.WaitReady(c.ctx))
		c.complete(other)
		c.complete(c.server)
		stopAgent(t, c.agent)
	})
	t.Run("of another path", func(t *testing.T) {
		t.Parallel()
		c := newConfined(t)
		other := c.second()
		other.Answer(nil)
		replaced := c.auditLog
		beside := filepath.Join(subDir(t, c.dir, "beside"), "audit.log")
		c.agent.ExtraArgs = append(c.agent.ExtraArgs, "--audit-log-path="+beside)
		c.start()
		waitForEntries(t, c.ctx, c.agent, other, c.written)
		c.auditLog = beside
		c.write(2)
		c.delivered()
		waitForEntries(t, c.ctx, c.agent, other, c.written)
		other.Answer(down)
		c.write(2)
		c.delivered()
		backup := c.rotated()
		c.write(2)
		c.delivered() // the one that is up has gone on to the new file, so the other one holds the old one
		c.must(os.Remove(backup))
		c.auditLog = replaced
		c.replaceLogs()
		c.write(1) // until then, who writes may write on to the old one
		c.waits(beside + " to ")
		other.Answer(nil)
		c.ends("was replaced by another directory")
		c.must(c.agent.WaitReady(c.ctx))
		c.complete(other)
		c.complete(c.server)
		stopAgent(t, c.agent)
	})
	t.Run("though another one has a token that was replaced", func(t *testing.T) {
		t.Parallel()
		dir := workDir(t)
		token, httpConfig := filepath.Join(subDir(t, dir, "secrets"), "token"), filepath.Join(subDir(t, dir, "conf"), "http.yaml")
		c := newConfined(t)
		c.put(httpConfig, "bearer_token_file: "+token+"\n")
		c.put(token, "one")
		c.passwords("one")
		other := c.second()
		c.put(filepath.Join(dir, "none.yaml"), "{}\n")
		c.agent.ExtraArgs = append(c.agent.ExtraArgs, "--loki-http-config="+httpConfig, "--loki-http-config="+filepath.Join(dir, "none.yaml"))
		c.start()
		c.write(2)
		c.delivered()
		backup := c.rotated()
		c.write(2)
		c.delivered()
		c.must(os.Remove(backup))
		c.put(token, "two")
		c.passwords("two")
		c.write(1)
		c.waits(token)
		other.Answer(nil)
		c.ends(token + " was replaced")
		c.must(c.agent.WaitReady(c.ctx))
		c.complete(other)
		c.complete(c.server)
		stopAgent(t, c.agent)
	})
}

// TestSandboxDoesNotWaitInVain replaces a token while a deleted backup is held: nothing can be shipped before the agent is started again.
func TestSandboxDoesNotWaitInVain(t *testing.T) {
	dir := workDir(t)
	token, httpConfig := filepath.Join(subDir(t, dir, "secrets"), "token"), filepath.Join(subDir(t, dir, "conf"), "http.yaml")
	c := newConfined(t, "--loki-http-config="+httpConfig)
	c.put(httpConfig, "bearer_token_file: "+token+"\n")
	c.put(token, "one")
	c.start()
	c.server.Answer(down)
	c.write(2)
	backup := c.rotated()
	c.write(2)
	c.eventually("Loki is away", func() bool { v, err := c.agent.Metric(c.ctx, "auditferry_loki_up"); return err == nil && v == 0 })
	c.must(os.Remove(backup))
	c.put(token, "two")
	c.passwords("two")
	c.ends(token + " was replaced")
	waitForEntries(t, c.ctx, c.agent, c.server, 4) // the first, that of the gap, and the last two
	stopAgent(t, c.agent)
}

// TestSandboxIsStoppedWhileItLeaves ends the agent by SIGTERM while it waits for Loki to take what was in the directory that was
// replaced. Loki takes it just in time, and at the next start nothing is missing.
func TestSandboxIsStoppedWhileItLeaves(t *testing.T) {
	c := newConfined(t, "--shutdown-timeout=60s")
	stopping := c.notified()
	c.start()
	c.server.Answer(down)
	c.write(2)
	c.replaceLogs()
	c.write(2)
	c.eventually("the new directory is refused", func() bool { return c.logged("permission denied") })
	c.eventually("Loki is away", func() bool { v, err := c.agent.Metric(c.ctx, "auditferry_loki_up"); return err == nil && v == 0 })
	c.must(c.agent.Signal(os.Interrupt))
	select {
	case <-stopping:
	case <-c.ctx.Done():
		t.Fatal("it does not stop")
	}
	c.server.Answer(nil)
	select {
	case <-c.agent.Ended():
	case <-c.ctx.Done():
		t.Fatal("the agent goes on")
	}
	if code, _ := c.agent.Stop(0); code != 0 {
		t.Fatalf("code %d; its log is %s", code, c.agent.LogFile())
	}
	c.must(c.agent.Start())
	c.must(c.agent.WaitReady(c.ctx))
	c.complete(c.server)
	stopAgent(t, c.agent)
}
