//go:build e2e && linux

package packages

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

// patience is how long anything may take that takes seconds on an idle machine.
const patience = 2 * time.Minute

// rootImage is what the machines boot from, imported once, by its ID: without a name it is nobody else's.
var rootImage = sync.OnceValues(func() (string, error) {
	root, err := rig.RepoRoot()
	if err != nil {
		return "", err
	}
	var stderr strings.Builder
	cmd := exec.Command("docker", "import", filepath.Join(root, ".cache", "systemd.tar"))
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("Docker must answer, and `make units` have built .cache/systemd.tar: %w: %s", err, stderr.String())
	}
	imported = strings.TrimSpace(string(out))
	return imported, nil
})

// imported is the ID of rootImage once there is one.
var imported string

// TestMain removes the image, of 255 MB, with the last machine.
func TestMain(m *testing.M) {
	code := m.Run()
	if imported != "" {
		if out, err := exec.Command("docker", "rmi", imported).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "removing the image %s: %v: %s", imported, err, out)
			code = 1
		}
	}
	os.Exit(code)
}

// boot makes what the container may write of the cgroups writable, and becomes systemd. Docker mounts them read-only, unless it is told
// to give up all isolation. Credentials are mounts that must come out of the namespace in which they are made.
const boot = `mount --make-rshared /
for m in /sys/fs/cgroup /sys/fs/cgroup/*; do
	if mountpoint -q $m; then mount -o remount,bind,rw $m; fi
done
exec /lib/systemd/systemd --log-target=journal`

// machine is a Debian whose systemd runs.
type machine struct {
	t    *testing.T
	name string
}

// bootMachine starts one; audit is the directory that it sees as /var/log/kubernetes/audit, and the packages are in /packages.
func bootMachine(t *testing.T, audit string) *machine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("root must run this: the audit logs are root's")
	}
	image, err := rootImage()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, name: fmt.Sprintf("auditferry-systemd-%d", rand.Uint32())}
	out, err := exec.Command("docker", "run", "--detach", "--name="+m.name, "--network=host", "--cgroupns=private",
		"--cap-add=SYS_ADMIN", "--cap-add=DAC_READ_SEARCH", "--cap-add=SYS_PTRACE", "--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined",
		"--tmpfs=/run", "--tmpfs=/run/lock", "--tmpfs=/tmp", "--env=container=docker",
		"--volume="+audit+":/var/log/kubernetes/audit", "--volume="+packageDir(t)+":/packages:ro",
		image, "/bin/sh", "-c", boot).CombinedOutput()
	if err != nil {
		t.Fatalf("booting systemd in a container: %v: %s", err, out)
	}
	t.Cleanup(m.remove)
	m.until("systemd being up", func() bool {
		state, _ := m.try("systemctl is-system-running")
		return state == "running" || state == "degraded"
	})
	return m
}

// remove ends it, and prints what the agent logged if the test has failed.
func (m *machine) remove() {
	if m.t.Failed() {
		log, err := m.try("systemctl status auditferry; journalctl --no-pager -n 120 -u auditferry -u init.scope")
		m.t.Logf("the journal (%v):\n%s", err, log)
	}
	if out, err := exec.Command("docker", "rm", "--force", "--volumes", m.name).CombinedOutput(); err != nil {
		m.t.Errorf("removing the container %s: %v: %s", m.name, err, out)
	}
}

// try runs a script of the shell as root, and gives what it prints.
func (m *machine) try(script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", "exec", m.name, "/bin/sh", "-c", script).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// do runs a script that must succeed.
func (m *machine) do(script string) string {
	m.t.Helper()
	out, err := m.try(script)
	if err != nil {
		m.t.Fatalf("%s: %v: %s", script, err, out)
	}
	return out
}

// show gives a property of the service.
func (m *machine) show(property string) string {
	m.t.Helper()
	return m.do("systemctl show --value --property=" + property + " auditferry.service")
}

// pid gives the process of the agent, which must be running, by its number in the machine.
func (m *machine) pid() string {
	m.t.Helper()
	m.until("the service being active", func() bool { return m.show("ActiveState") == "active" })
	return m.show("MainPID")
}

// until polls for what happens by itself.
func (m *machine) until(what string, happened func() bool) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	if err := rig.Poll(ctx, func() (bool, error) { return happened(), nil }); err != nil {
		m.t.Fatalf("waited in vain for %s", what)
	}
}
