//go:build e2e && linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

// landlockAs has the kernel answer to the agent's questions of its Landlock, as strace's inject takes it.
func (c *confined) landlockAs(answer string) {
	c.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		c.Skip("there is no strace, which changes what the kernel says of its Landlock")
	}
	c.agent.Wrapper = []string{"strace", "-D", "-f", "-qq", "-e", "trace=landlock_create_ruleset",
		"-e", "inject=landlock_create_ruleset:" + answer, "-e", "signal=none", "-o", filepath.Join(c.dir, "strace.log"), "--"}
}

// refusesToStart starts the agent with --landlock=require, which must end with these words.
func (c *confined) refusesToStart(words string) {
	c.Helper()
	c.agent.ExtraArgs = append(c.agent.ExtraArgs, "--landlock=require")
	c.must(c.agent.Start())
	<-c.agent.Ended()
	if code, _ := c.agent.Stop(0); code != failure || !c.logged("auditferry: --landlock=require: "+words) {
		c.Errorf("with --landlock=require it ended with code %d; its log is %s", code, c.agent.LogFile())
	}
}

// TestSandboxIsNotToBeHad runs the agent on a kernel without Landlock: it says so, and with --landlock=require it does not start.
func TestSandboxIsNotToBeHad(t *testing.T) {
	c := newConfined(t)
	c.landlockAs("error=EOPNOTSUPP")
	c.must(c.agent.Start())
	c.delivered()
	if !c.logged("level=WARN", "not confined by Landlock", "Linux 5.13") {
		t.Error("it does not say that it is not confined")
	}
	stopAgent(t, c.agent)
	c.refusesToStart("the kernel has no Landlock")
}

// startAs runs the agent until it has shipped what there is, with the answers of landlockAs, as many as are given to its questions.
// strace counts them by thread, and Go moves a goroutine to another thread now and then: then it is started again.
func (c *confined) startAs() {
	c.Helper()
	answers := filepath.Join(c.dir, "strace.log")
	for range 20 {
		c.must(c.agent.Start())
		wrong, applied := false, false
		c.must(rig.Poll(c.ctx, func() (bool, error) {
			text, _ := os.ReadFile(answers) // it may not be there yet
			for line := range strings.Lines(string(text)) {
				if strings.Contains(line, "landlock_create_ruleset({") && strings.HasSuffix(line, "\n") {
					applied, wrong = true, strings.Contains(line, "INJECTED")
				}
			}
			return applied, nil
		}))
		if !wrong {
			c.delivered()
			return
		}
		_, _ = c.agent.Stop(10 * time.Second) // it may have ended by itself
		c.must(os.Remove(answers))
	}
	c.Fatal("strace does not answer as it should")
}

// TestSandboxOfAnOlderKernel has the kernel say that its Landlock is that of Linux 5.19, twice: to the agent, and to the library. What
// that has is applied.
func TestSandboxOfAnOlderKernel(t *testing.T) {
	c := newConfined(t)
	c.landlockAs("retval=2:when=1..2")
	c.startAs()
	if !c.logged("level=WARN", "confined by Landlock in part", "abi=2", "truncation is not refused") {
		t.Error("it does not say what its sandbox lacks")
	}
	c.must(os.Rename(filepath.Dir(c.auditLog), c.dir+"/away"))
	subDir(t, c.dir, "audit")
	c.write(1)
	older := c.agent.Wrapper
	c.agent.Wrapper = nil
	c.ends("was replaced by another directory") // so it is confined
	c.delivered()
	stopAgent(t, c.agent)
	c.agent.Wrapper = older
	c.refusesToStart("the kernel's Landlock has ABI 2: truncation is not refused")
}
