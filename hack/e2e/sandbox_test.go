//go:build e2e && linux

package e2e

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

// confined is an agent in its sandbox, whose audit log grows as the test wants.
type confined struct {
	*testing.T
	ctx      context.Context
	dir      string
	auditLog string
	server   *lokitest.Server
	agent    *rig.Agent
	written  int
}

// newConfined gives one that does not run yet. Without Landlock in the kernel there is nothing to test.
func newConfined(t *testing.T, args ...string) *confined {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	c := &confined{T: t, ctx: ctx, dir: workDir(t)}
	var url string
	c.server, url = startEndpoint(t)
	c.auditLog = filepath.Join(subDir(t, c.dir, "audit"), "audit.log")
	c.agent = newAgent(t, c.dir, c.auditLog, url,
		append([]string{"--batch-wait=50ms", "--backoff-min=50ms", "--backoff-max=200ms", "--shutdown-timeout=0s"}, args...)...)
	c.write(1)
	return c
}

// start runs the agent until it has shipped what there is.
func (c *confined) start() {
	c.Helper()
	c.must(c.agent.Start())
	c.delivered()
	if c.logged("not confined by Landlock") {
		c.Skip("this kernel has no Landlock that serves")
	}
	if !c.logged("confined by Landlock") {
		c.Fatal("the agent does not say whether it is confined")
	}
}

func (c *confined) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// write appends events, each of another user, and so of another stream.
func (c *confined) write(n int) {
	c.Helper()
	c.writeOf(n, func() string { return fmt.Sprint("user-", c.written) })
}

// writeOf appends events of users.
func (c *confined) writeOf(n int, user func() string) {
	c.Helper()
	var lines [][]byte
	for range n {
		c.written++
		at := time.Now().UTC().Format("2006-01-02T15:04:05.000000Z07:00")
		lines = append(lines, fmt.Appendf(nil, `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"id-%d",`+
			`"stage":"ResponseComplete","requestURI":"/api","verb":"get","user":{"username":"%[3]s"},"sourceIPs":["10.0.0.1"],`+
			`"responseStatus":{"code":200},"requestReceivedTimestamp":"%[2]s","stageTimestamp":"%[2]s"}`, c.written, at, user()))
	}
	appendLines(c.T, c.auditLog, lines)
}

// delivered waits for all that was written.
func (c *confined) delivered() {
	c.Helper()
	waitForEntries(c.T, c.ctx, c.agent, c.server, c.written)
}

// eventually waits for what the running agent does.
func (c *confined) eventually(what string, happened func() bool) {
	c.Helper()
	if err := rig.Poll(c.ctx, func() (bool, error) { return happened(), c.agent.Running() }); err != nil {
		c.Fatalf("waiting until %s: %v", what, err)
	}
}

// logged reports whether a line of the agent's log has all the words.
func (c *confined) logged(words ...string) bool {
	c.Helper()
	text, err := os.ReadFile(c.agent.LogFile())
	c.must(err)
	for line := range strings.Lines(string(text)) {
		if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
			return true
		}
	}
	return false
}

// ends waits until the agent has ended by itself, with exit code 1 and these words, and starts it again.
func (c *confined) ends(words ...string) {
	c.Helper()
	select {
	case <-c.agent.Ended():
	case <-c.ctx.Done():
		c.Fatalf("the agent goes on; its log is %s", c.agent.LogFile())
	}
	if code, _ := c.agent.Stop(0); code != failure || !c.logged(append(words, "starts it again")...) {
		c.Fatalf("the agent has ended with code %d; its log is %s", code, c.agent.LogFile())
	}
	c.must(c.agent.Start())
}

// put writes a file, in the place of another by a rename.
func (c *confined) put(path, text string) {
	c.Helper()
	c.must(os.WriteFile(path+".new", []byte(text), 0o600))
	c.must(os.Rename(path+".new", path))
}

// link makes a link, in the place of another by a rename, as the kubelet does.
func (c *confined) link(to, path string) {
	c.Helper()
	c.must(os.Symlink(to, path+".new"))
	c.must(os.Rename(path+".new", path))
}

// passwords lets Loki take pushes with one password only, and tells which others came.
func (c *confined) passwords(right string) {
	c.server.Answer(func(r lokitest.Request) lokitest.Reply {
		if r.Header.Get("Authorization") == "Bearer "+right {
			return lokitest.OK()
		}
		return lokitest.Refused(401, "the token is "+r.Header.Get("Authorization"))
	})
}

// TestSandboxReadsSecretsAsTheyChange has a token in a volume as the kubelet mounts Secrets, which is replaced while the agent runs;
// and then is a link that leads out of the volume.
func TestSandboxReadsSecretsAsTheyChange(t *testing.T) {
	dir := workDir(t)
	volume, httpConfig := subDir(t, dir, "volume"), filepath.Join(dir, "http.yaml")
	c := newConfined(t, "--loki-http-config="+httpConfig)
	c.put(httpConfig, "bearer_token_file: "+volume+"/token\n")
	c.put(filepath.Join(subDir(t, volume, "..1"), "token"), "one")
	c.link("..1", filepath.Join(volume, "..data"))
	c.link("..data/token", filepath.Join(volume, "token"))
	secret := filepath.Join(dir, "secret")
	c.put(secret, "of others")
	c.passwords("one")
	c.start()

	c.put(filepath.Join(subDir(t, volume, "..2"), "token"), "two")
	c.link("..2", filepath.Join(volume, "..data"))
	c.must(os.RemoveAll(filepath.Join(volume, "..1")))
	c.passwords("two")
	c.write(1)
	c.delivered()

	c.put(filepath.Join(volume, "token"), "three")
	c.passwords("three")
	c.write(1)
	c.delivered()

	c.link(secret, filepath.Join(volume, "token"))
	c.write(1)
	c.eventually("the agent says that it may not read the secret", func() bool { return c.logged("Loki does not take pushes", "permission denied") })
	if c.logged("of others") {
		t.Error("the secret came out")
	}
	c.put(filepath.Join(volume, "token"), "three")
	c.delivered()
	stopAgent(t, c.agent)
}

// TestSandboxReadsNothingBesideAFile has a token in a directory with others, which is replaced while the agent runs: it is started again
// and has the new one.
func TestSandboxReadsNothingBesideAFile(t *testing.T) {
	dir := workDir(t)
	secrets, httpConfig := subDir(t, dir, "secrets"), filepath.Join(subDir(t, dir, "conf"), "http.yaml")
	token := filepath.Join(secrets, "token")
	c := newConfined(t, "--loki-http-config="+httpConfig)
	c.put(httpConfig, "bearer_token_file: "+token+"\n")
	c.put(token, "one")
	c.passwords("one")
	c.start()

	c.must(os.WriteFile(token, []byte("two"), 0o600)) // in place
	c.passwords("two")
	c.write(1)
	c.delivered()

	c.put(token, "three")
	c.passwords("three")
	c.write(1)
	c.ends(token + " was replaced")
	c.delivered()
	stopAgent(t, c.agent)
}

// TestSandboxTrustsTheRootsOfTheSystem has a Loki whose certificate the system's own file of roots vouches for. Go reads that only
// once it needs it.
func TestSandboxTrustsTheRootsOfTheSystem(t *testing.T) {
	c := newConfined(t)
	front := httptest.NewUnstartedServer(c.server)
	front.Config.ErrorLog = log.New(io.Discard, "", 0)
	front.StartTLS()
	t.Cleanup(front.Close)
	roots := filepath.Join(subDir(t, c.dir, "roots"), "ca.pem")
	c.put(roots, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})))
	c.agent.LokiURL = front.URL
	c.agent.Env = append(c.agent.Env, "SSL_CERT_FILE="+roots, "SSL_CERT_DIR="+c.dir+"/none")
	c.start()
	stopAgent(t, c.agent)
}

// TestSandboxRotatesFilesOfItsOwn lets the agent's log and its dead letters reach the size at which they are renamed.
func TestSandboxRotatesFilesOfItsOwn(t *testing.T) {
	dir := workDir(t)
	logFile := filepath.Join(subDir(t, dir, "log"), "agent.log")
	c := newConfined(t, "--log-file="+logFile, "--dead-letter-max-size=64MiB")
	// The 10 MB, less what fits into it at the start.
	c.must(os.WriteFile(logFile, bytes.Repeat([]byte("old log\n"), (10<<20-4<<10)/8), 0o600))
	c.must(c.agent.Start())
	c.delivered()
	letters := func() int { return len(letterFiles(t, c.agent)) }
	c.server.Answer(func(r lokitest.Request) lokitest.Reply {
		return lokitest.Refusing(r, func(lokitest.Entry) string { return "entry too far behind: " + strings.Repeat("x", 3<<10) })
	})
	for letters() < 2 { // a file of 8 MiB of letters of 4 KiB
		before := lettersIn(t, c.agent)
		c.write(200)
		c.written -= 200
		c.eventually("more letters are written", func() bool { return lettersIn(t, c.agent) > before })
	}
	logs := func() int {
		names, err := filepath.Glob(filepath.Join(dir, "log", "*"))
		c.must(err)
		return len(names)
	}
	for logs() < 2 {
		answer := lokitest.Refused(503, strings.Repeat("away ", 200))
		c.server.Answer(func(lokitest.Request) lokitest.Reply { return answer })
		c.write(1)
		c.eventually("trouble is logged", func() bool { v, err := c.agent.Metric(c.ctx, "auditferry_loki_up"); return err == nil && v == 0 })
		c.server.Answer(nil)
		c.eventually("Loki takes pushes again", func() bool { v, err := c.agent.Metric(c.ctx, "auditferry_loki_up"); return err == nil && v == 1 })
	}
	stopAgent(t, c.agent)
}

// TestSandboxHoldsAllThreads looks at every thread, and, where it may drop the caches of the whole machine, at what the agent measures of itself after the kernel has dropped its caches,
// and with them what its rules know of /proc.
func TestSandboxHoldsAllThreads(t *testing.T) {
	mustBeRoot(t)
	c := newConfined(t)
	c.start()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", c.agent.PID()))
	c.must(err)
	if len(threads) < 3 {
		t.Errorf("%d threads", len(threads))
	}
	for _, status := range threads {
		text, err := os.ReadFile(status)
		if errors.Is(err, os.ErrNotExist) {
			continue // ended meanwhile
		}
		if err != nil || !bytes.Contains(text, []byte("NoNewPrivs:\t1\n")) {
			t.Errorf("%s is not confined (%v)", status, err)
		}
	}
	err = os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0)
	if errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission) {
		c.Skipf("what the agent measures of itself after the kernel has dropped its caches was not tried: %v", err)
	}
	c.must(err)
	for _, name := range []string{"process_start_time_seconds", "process_open_fds", "process_network_receive_bytes_total"} {
		if value, err := c.agent.Metric(c.ctx, name); err != nil || value == 0 {
			t.Errorf("%s is %v (%v)", name, value, err)
		}
	}
	stopAgent(t, c.agent)
}

// TestSandboxEndsWhenWhatItNeedsIsReplaced replaces what the rules are about, by a rename, and wants the agent to end, once that is
// what holds it up, and to go on when it is started again.
func TestSandboxEndsWhenWhatItNeedsIsReplaced(t *testing.T) {
	for name, user := range map[string]string{"state directory": "new", "state directory and no new stream": "user-1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newConfined(t)
			c.start()
			state := c.agent.Dir
			c.must(os.Rename(state, state+".away"))
			c.must(os.Mkdir(state, 0o700))
			c.must(os.Rename(filepath.Join(state+".away", "agent.log"), c.agent.LogFile()))
			c.writeOf(1, func() string { return user }) // a new stream is to be noted before it is shipped
			c.ends(state + " was replaced")
			c.must(c.agent.WaitReady(c.ctx))
			c.delivered()
			stopAgent(t, c.agent)
		})
	}
	t.Run("hosts file", func(t *testing.T) {
		t.Parallel()
		mustBeRoot(t)
		if out, err := exec.Command("unshare", "--mount", "true").CombinedOutput(); err != nil {
			t.Skipf("a hosts file that is replaced was not tried: it takes a mount namespace (CAP_SYS_ADMIN): %v: %s", err, out)
		}
		c := newConfined(t)
		etc := subDir(t, c.dir, "etc")
		hosts := filepath.Join(etc, "hosts")
		c.put(hosts, "127.0.0.1 loki.test\n")
		c.put(filepath.Join(etc, "resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
		c.agent.LokiURL = strings.Replace(c.agent.LokiURL, "127.0.0.1", "loki.test", 1)
		c.agent.Wrapper = []string{"unshare", "--mount", "sh", "-c", `mount --bind "` + etc + `" /etc && exec "$@"`, "sh"}
		c.start()
		c.put(hosts, "127.0.0.2 loki.other\n127.0.0.1 loki.test\n")
		c.server.Answer(func(lokitest.Request) lokitest.Reply { return lokitest.Cut() }) // so that it looks the name up again
		c.write(1)
		c.ends("/etc/hosts was replaced")
		c.server.Answer(nil)
		c.delivered()
		stopAgent(t, c.agent)
	})
}

// TestSandboxCanBeTurnedOff has the agent read what Landlock would refuse.
func TestSandboxCanBeTurnedOff(t *testing.T) {
	c := newConfined(t, "--landlock=off")
	c.must(c.agent.Start())
	c.delivered()
	c.must(os.Rename(filepath.Dir(c.auditLog), c.dir+"/away"))
	subDir(t, c.dir, "audit")
	c.write(1)
	c.delivered()
	if c.logged("Landlock") {
		t.Error("it speaks of Landlock")
	}
	stopAgent(t, c.agent)
}
