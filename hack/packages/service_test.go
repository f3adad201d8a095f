//go:build e2e && linux

package packages

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

// TestService is the life of an installation, step after step.
func TestService(t *testing.T) {
	audit := newAuditLog(t)
	m := bootMachine(t, audit.dir)
	for _, step := range []struct {
		name string
		do   func(t *testing.T, m *machine, audit *auditLog)
	}{
		{"Install", installDeb}, {"Verify", verify}, {"Configure", configure}, {"Limits", limits}, {"Rights", rights},
		{"Kill", kill}, {"Watchdog", watchdog}, {"Stop", stop}, {"Credentials", credentials}, {"DeadLetters", deadLetters}, {"Upgrade", upgradeDeb},
		{"Remove", removeDeb},
	} {
		ok := t.Run(step.name, func(t *testing.T) {
			of := *m
			of.t = t
			at := *audit
			at.t = t
			step.do(t, &of, &at)
			audit.next = at.next
		})
		if !ok {
			t.FailNow() // what comes after builds on it
		}
	}
}

func installDeb(t *testing.T, m *machine, _ *auditLog) {
	out := m.do("dpkg -i /packages/" + filepath.Base(packageFile(t, "auditferry_*_"+debArch+".deb")))
	if !strings.Contains(out, "does not run yet") || !strings.Contains(out, "systemctl enable --now auditferry") {
		t.Errorf("it does not say what to do next:\n%s", out)
	}
	if enabled, _ := m.try("systemctl is-enabled auditferry"); enabled != "disabled" {
		t.Errorf("it is %s", enabled)
	}
	if state := m.show("ActiveState"); state != "inactive" {
		t.Errorf("it is %s before Loki is known", state)
	}
}

// maxExposure is in tenths.
const maxExposure = "15"

func verify(t *testing.T, m *machine, _ *auditLog) {
	const unit = "/usr/lib/systemd/system/auditferry.service"
	if out := m.do("systemd-analyze verify " + unit); out != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
	out := m.do("systemd-analyze security --no-pager --offline=true --threshold=" + maxExposure + " " + unit)
	_, overall, ok := strings.Cut(out, "Overall exposure level for auditferry.service: ")
	if !ok {
		t.Fatalf("systemd-analyze security does not say how exposed it is:\n%s", out)
	}
	exposure, err := strconv.ParseFloat(strings.Fields(overall)[0], 64)
	if err != nil || exposure > 1.5 || exposure == 0 {
		t.Errorf("exposure %q, want 1.5 at the most (%v)", overall, err)
	}
	t.Logf("exposure level %.1f", exposure)
}

// configure begins with what somebody does who has not read: it must say what is missing, and go on by itself once that is there.
func configure(t *testing.T, m *machine, audit *auditLog) {
	if out, err := m.try("systemctl enable --now auditferry"); err == nil {
		t.Errorf("it starts without a Loki: %s", out)
	}
	m.until("the log saying what is missing", func() bool {
		log, _ := m.try("journalctl --no-pager -u auditferry")
		return strings.Contains(log, "--loki-url is missing")
	})
	ports, err := rig.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	audit.write(300)
	m.do(fmt.Sprintf(`sed -i -e 's|^#loki-url:.*|loki-url: %s|' -e 's|^#listen-address:.*|listen-address: 127.0.0.1:%d|' /etc/auditferry/config.yaml`,
		audit.url, ports[0]))
	m.pid()
	audit.wantAll(m)
	m.until("the status", func() bool { return m.show("StatusText") == "following /var/log/kubernetes/audit/audit.log" })
	if state := m.do("stat -c '%a %U:%G' /var/lib/auditferry /var/lib/auditferry/positions.json"); state != "700 auditferry:auditferry\n600 auditferry:auditferry" {
		t.Errorf("the state is\n%s", state)
	}
}

// limits are looked up where the kernel has them.
func limits(t *testing.T, m *machine, _ *auditLog) {
	for property, want := range map[string]string{
		"Type": "notify", "Restart": "always", "WatchdogUSec": "1min", "MemoryMax": "67108864", "CPUQuotaPerSecUSec": "200ms", "TasksMax": "64",
	} {
		if got := m.show(property); got != want {
			t.Errorf("%s=%s, want %s", property, got, want)
		}
	}
	got := m.do(`cd /sys/fs/cgroup
		cat memory/system.slice/auditferry.service/memory.limit_in_bytes system.slice/auditferry.service/memory.max 2>/dev/null
		cat cpu/system.slice/auditferry.service/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 system.slice/auditferry.service/cpu.max
		cat pids/system.slice/auditferry.service/pids.max system.slice/auditferry.service/pids.max 2>/dev/null || true`)
	if want := "67108864\n20000\n64"; got != want {
		t.Errorf("the kernel has the limits\n%s\nwant\n%s", got, want)
	}
	status := m.do("cat /proc/" + m.pid() + "/status")
	for _, want := range []string{"CapInh:\t0000000000000004", "CapEff:\t0000000000000004", "CapBnd:\t0000000000000004", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(status, want) {
			t.Errorf("the process does not have %s:\n%s", want, status)
		}
	}
	if uid := m.do("stat -c %U /proc/" + m.pid()); uid != "auditferry" {
		t.Errorf("it runs as %s", uid)
	}
}

// rights are tried in the place of the process: as its user, with its capability, in its view of the file system.
func rights(t *testing.T, m *machine, audit *auditLog) {
	if mode := m.do("stat -c '%a %U' /var/log/kubernetes/audit/audit.log"); mode != "600 root" {
		t.Fatalf("the audit log is %s", mode)
	}
	m.do("mkdir -p /etc/kubernetes/pki && echo secret >/etc/kubernetes/pki/ca.key && chmod 600 /etc/kubernetes/pki/ca.key && systemctl restart auditferry")
	in := "nsenter --mount --target=" + m.pid() + " -- "
	as := in + "setpriv --reuid=auditferry --regid=auditferry --clear-groups --no-new-privs --bounding-set=-all,+dac_read_search " +
		"--inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search -- "
	for _, able := range []string{
		as + "head -c1 /var/log/kubernetes/audit/audit.log", as + "touch /var/lib/auditferry/x", as + "rm /var/lib/auditferry/x",
	} {
		m.do(able)
	}
	for _, unable := range []string{
		as + "touch /var/log/kubernetes/audit/x", as + "truncate -s0 /var/log/kubernetes/audit/audit.log",
		as + "rm /var/log/kubernetes/audit/audit.log", as + "touch /etc/auditferry/x", as + "grep -q . /etc/shadow", as + "cat /etc/kubernetes/pki/ca.key",
		in + "touch /var/log/kubernetes/audit/x", in + "truncate -s0 /var/log/kubernetes/audit/audit.log", // not even root, there
		in + "cat /etc/kubernetes/pki/ca.key", in + "touch /usr/bin/x",
	} {
		if out, err := m.try(unable); err == nil {
			t.Errorf("it can %s: %s", unable, out)
		}
	}
	audit.write(100)
	audit.wantAll(m)
}

func kill(t *testing.T, m *machine, audit *auditLog) {
	const kills = 3
	before := restarts(t, m)
	for range kills {
		pid := m.pid()
		audit.write(400)
		m.do("systemctl kill --signal=KILL auditferry")
		audit.write(200)
		m.until("another process", func() bool { return m.show("ActiveState") == "active" && m.show("MainPID") != pid })
	}
	audit.write(100)
	audit.wantAll(m)
	if n := restarts(t, m) - before; n != kills {
		t.Errorf("%d restarts after %d kills", n, kills)
	}
}

func restarts(t *testing.T, m *machine) int {
	t.Helper()
	n, err := strconv.Atoi(m.show("NRestarts"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// watchdog is tried with less patience than the unit has. A Loki that is away for longer than that is no reason for it to bark.
func watchdog(t *testing.T, m *machine, audit *auditLog) {
	const within = 6 * time.Second
	m.do(fmt.Sprintf(`mkdir -p /run/systemd/system/auditferry.service.d
		printf '[Service]\nWatchdogSec=%d\n' >/run/systemd/system/auditferry.service.d/test.conf
		systemctl daemon-reload && systemctl restart auditferry`, int(within.Seconds())))
	pid, before := m.pid(), restarts(t, m)
	audit.loki.Close()
	audit.write(200)
	away := time.Now()
	m.until("the status telling of the outage", func() bool { return strings.Contains(m.show("StatusText"), "does not take pushes") })
	m.until("an outage of thrice what the watchdog waits", func() bool { return time.Since(away) > 3*within })
	if now := m.pid(); now != pid {
		t.Error("it was restarted while Loki was away")
	}
	if _, err := audit.loki.Start(); err != nil {
		t.Fatal(err)
	}
	audit.wantAll(m)
	m.until("the status telling that all is well", func() bool { return strings.HasPrefix(m.show("StatusText"), "following") })
	if n := restarts(t, m) - before; n != 0 {
		t.Errorf("%d restarts", n)
	}

	m.do("systemctl kill --signal=STOP auditferry")
	audit.write(200)
	m.until("another process", func() bool { return m.show("ActiveState") == "active" && m.show("MainPID") != pid })
	if log := m.do("journalctl --no-pager -u auditferry"); !strings.Contains(log, "Watchdog timeout") {
		t.Errorf("it was not the watchdog:\n%s", log)
	}
	audit.wantAll(m)
	m.do("rm -r /run/systemd/system/auditferry.service.d && systemctl daemon-reload && systemctl restart auditferry")
}

// credentials are given as README.md says: in http.yaml, and as a token of its own.
func credentials(t *testing.T, m *machine, audit *auditLog) {
	var shown atomic.Value
	audit.loki.Answer(func(r lokitest.Request) lokitest.Reply {
		shown.Store(r.Header.Get("Authorization"))
		return lokitest.OK()
	})
	defer audit.loki.Answer(nil)
	for _, step := range []struct{ do, want string }{
		{`umask 077; printf 'authorization:\n  credentials: first\n' >/etc/auditferry/http.yaml`, "Bearer first"},
		{`umask 077; printf 'authorization:\n  credentials: second\n' >/etc/auditferry/http.yaml`, "Bearer second"},
		{`umask 077; printf 'authorization:\n  credentials_file: token\n' >/etc/auditferry/http.yaml; mkdir -p /etc/systemd/system/auditferry.service.d
			printf 'third' >/etc/auditferry/token; printf '[Service]\nLoadCredential=token:/etc/auditferry/token\n' >/etc/systemd/system/auditferry.service.d/token.conf
			systemctl daemon-reload`, "Bearer third"},
		{`rm -r /etc/auditferry/token /etc/auditferry/http.yaml /etc/systemd/system/auditferry.service.d; systemctl daemon-reload`, ""},
	} {
		m.do(step.do)
		m.do("systemctl restart auditferry")
		audit.write(20)
		audit.wantAll(m)
		if got := shown.Load(); got != step.want {
			t.Errorf("after %s Loki was shown %q, want %q", step.do, got, step.want)
		}
	}
	// Read where it lies, a token is read again when it has changed.
	m.do(`cp /etc/auditferry/config.yaml /root && sed -i 's|^loki-http-config:.*|loki-http-config: /etc/auditferry/http.yaml|' /etc/auditferry/config.yaml
		umask 077; printf 'authorization:\n  credentials_file: token\n' >/etc/auditferry/http.yaml; printf fourth >/etc/auditferry/token
		systemctl restart auditferry`)
	for _, token := range []string{"fourth", "fifth"} {
		m.do("printf " + token + " >/etc/auditferry/token")
		m.until("Loki being shown "+token, func() bool {
			audit.write(1)
			audit.wantAll(m)
			return shown.Load() == "Bearer "+token
		})
	}
	m.do("mv /root/config.yaml /etc/auditferry && rm /etc/auditferry/http.yaml /etc/auditferry/token && systemctl restart auditferry")
}

// stop takes longer than the unit allows, as the settings allow more.
func stop(t *testing.T, m *machine, audit *auditLog) {
	m.do(`mkdir -p /run/systemd/system/auditferry.service.d
		printf '[Service]\nTimeoutStopSec=2\nWatchdogSec=6\n' >/run/systemd/system/auditferry.service.d/test.conf
		cp /etc/auditferry/config.yaml /root && echo 'shutdown-timeout: 8s' >>/etc/auditferry/config.yaml
		systemctl daemon-reload && systemctl restart auditferry`)
	audit.loki.Close()
	audit.write(100)
	m.until("the status telling of the outage", func() bool { return strings.Contains(m.show("StatusText"), "does not take pushes") })
	begin := time.Now()
	m.do("systemctl stop auditferry")
	if took, result := time.Since(begin), m.show("Result"); took < 7*time.Second || result != "success" {
		t.Errorf("it stopped within %s, with the result %s", took, result)
	}
	if _, err := audit.loki.Start(); err != nil {
		t.Fatal(err)
	}
	m.do("rm -r /run/systemd/system/auditferry.service.d && mv /root/config.yaml /etc/auditferry && systemctl daemon-reload && systemctl start auditferry")
	audit.wantAll(m)
}

// deadLetters are pushed again by the user that they belong to, beside the running agent, with its settings.
func deadLetters(_ *testing.T, m *machine, audit *auditLog) {
	const letters = "/var/lib/auditferry/dead-letters.jsonl"
	audit.loki.Answer(func(r lokitest.Request) lokitest.Reply {
		return lokitest.Refusing(r, func(lokitest.Entry) string { return "entry is not wanted today" })
	})
	audit.write(3)
	m.until("three dead letters", func() bool {
		lines, _ := m.try("wc -l <" + letters)
		return lines == "3"
	})
	audit.loki.Answer(nil)
	m.do("runuser -u auditferry -- auditferry replay --config=/etc/auditferry/config.yaml " + letters)
	audit.wantAll(m)
	audit.write(3)
	audit.wantAll(m)
}

// newer is later than any version of `git describe`.
const newer = "99.0.0"

// upgradeDeb keeps settings and position, and starts the new version.
func upgradeDeb(t *testing.T, m *machine, audit *auditLog) {
	pid, config := m.pid(), m.do("cat /etc/auditferry/config.yaml")
	repeats := audit.loki.Arrivals() - len(audit.loki.Entries())
	m.install("deb", newer)
	m.do("dpkg -i /root/newer.deb </dev/null")
	if m.pid() == pid {
		t.Error("the old version runs on")
	}
	if now := m.do("cat /etc/auditferry/config.yaml"); now != config {
		t.Errorf("the settings are now\n%s", now)
	}
	if enabled := m.do("systemctl is-enabled auditferry"); enabled != "enabled" {
		t.Errorf("it is %s", enabled)
	}
	audit.write(100)
	audit.wantAll(m)
	if now := audit.loki.Arrivals() - len(audit.loki.Entries()); now != repeats {
		t.Errorf("the upgrade sent %d events again", now-repeats)
	}
	m.do("systemctl stop auditferry && dpkg -i /root/newer.deb")
	if state := m.show("ActiveState"); state != "inactive" {
		t.Errorf("an upgrade has started what was stopped: it is %s", state)
	}
	m.do("systemctl start auditferry")
}

// install leaves a package of another version as /root/newer.FORMAT.
func (m *machine) install(format, version string) {
	m.t.Helper()
	file := filepath.Join(m.t.TempDir(), "newer."+format)
	makePackage(m.t, format, version, file)
	if out, err := exec.Command("docker", "cp", file, m.name+":/root/newer."+format).CombinedOutput(); err != nil {
		m.t.Fatalf("copying %s: %v: %s", file, err, out)
	}
}

func removeDeb(t *testing.T, m *machine, _ *auditLog) {
	pid := m.pid()
	m.do("dpkg -r auditferry")
	gone(t, m, pid)
	m.do("test -s /var/lib/auditferry/positions.json && test -s /etc/auditferry/config.yaml")
	m.do("dpkg -P auditferry")
	m.do("test ! -e /var/lib/auditferry && test ! -e /etc/auditferry")
}

// gone fails the test unless the service is, with its process.
func gone(t *testing.T, m *machine, pid string) {
	t.Helper()
	if _, err := m.try("test -e /proc/" + pid); err == nil {
		t.Error("the agent outlives its package")
	}
	if state := m.show("LoadState"); state != "not-found" {
		t.Errorf("the unit is %s", state)
	}
	if left, _ := m.try("find /etc/systemd /usr/lib/systemd -name 'auditferry*'"); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

// TestRPMScripts installs the .rpm where Debian's rpm is, which knows of no systemd package: the scripts and the files are what counts.
func TestRPMScripts(t *testing.T) {
	audit := newAuditLog(t)
	m := bootMachine(t, audit.dir)
	const rpm = "rpm --nodeps --force-debian "
	out := m.do(rpm + "-i /packages/" + filepath.Base(packageFile(t, "auditferry-*."+rpmArch+".rpm")))
	if !strings.Contains(out, "does not run yet") {
		t.Errorf("it does not say what to do next:\n%s", out)
	}
	m.do(fmt.Sprintf(`printf 'audit-log-path: /var/log/kubernetes/audit/audit.log\nloki-url: %s\nlisten-address: ""\n' >/etc/auditferry/config.yaml
		systemctl enable --now auditferry`, audit.url))
	audit.write(200)
	audit.wantAll(m)
	pid, config := m.pid(), m.do("cat /etc/auditferry/config.yaml")
	m.install("rpm", newer)
	if out := m.do(rpm + "-U /root/newer.rpm"); strings.Contains(out, "does not run yet") {
		t.Errorf("an upgrade is told as a first installation:\n%s", out)
	}
	if m.pid() == pid || m.do("cat /etc/auditferry/config.yaml") != config || m.do("systemctl is-enabled auditferry") != "enabled" {
		t.Error("an upgrade must restart it and keep its settings")
	}
	audit.write(200)
	audit.wantAll(m)
	pid = m.pid()
	m.do(rpm + "-e auditferry")
	gone(t, m, pid)
	m.do("test -s /var/lib/auditferry/positions.json")
}
