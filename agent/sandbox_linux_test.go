package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	llsyscall "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// The agents of these tests run in this process, which must be able to go on when they have ended.
func TestMain(m *testing.M) {
	if input := os.Getenv(confineHelper); input != "" {
		if err := tryConfined(input); err != nil {
			fmt.Println(err)
		}
		return
	}
	if err := os.Setenv("AUDITFERRY_LANDLOCK", landlockOff); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// An attempt is something that a confined process tries.
type attempt struct {
	Do, Path string
	Allowed  bool
}

// doings are what can be tried with a path. What may not be done must be refused, and not fail for another reason.
var doings = map[string]func(path string) error{
	"read": func(path string) error { _, err := os.ReadFile(path); return err },
	"list": func(path string) error { _, err := os.ReadDir(path); return err },
	"write": func(path string) error {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err == nil {
			err = f.Close()
		}
		return err
	},
	"empty":    func(path string) error { return os.Truncate(path, 0) },
	"remove":   os.Remove,
	"rename":   func(path string) error { return os.Rename(path, path+".renamed") },
	"hardlink": func(path string) error { return os.Link(path, path+".hard") },
	"symlink":  func(path string) error { return os.Symlink(path, path+".soft") },
	"mkdir":    func(path string) error { return os.Mkdir(path, 0o700) },
	"run":      func(path string) error { return exec.Command(path).Run() },
	"send": func(path string) error { // as to systemd's notify socket
		c, err := net.Dial("unixgram", path)
		if err != nil {
			return err
		}
		_, err = c.Write([]byte("READY=1"))
		return errors.Join(err, c.Close())
	},
}

// confineHelper is the environment that makes this test program a process that confines itself and reports its attempts.
const confineHelper = "AUDITFERRY_TEST_CONFINE"

type confined struct {
	Args     []string // of the agent
	Gone     string   // is in the view, and is not there any more
	Attempts []attempt
}

// tryConfined is the other process. It writes a line for each attempt that did not go as it should.
func tryConfined(input string) error {
	var c confined
	if err := json.Unmarshal([]byte(input), &c); err != nil {
		return err
	}
	_, cfg, err := parse(c.Args, io.Discard)
	if err != nil {
		return err
	}
	targets, err := cfg.targets()
	if err != nil {
		return err
	}
	v, err := cfg.view(targets)
	if err != nil {
		return err
	}
	if c.Gone != "" {
		v.dirs = append(v.dirs, c.Gone)
	}
	if _, _, err := new(sandbox).enforce(v, true); err != nil {
		return err
	}
	for _, a := range c.Attempts {
		err := doings[a.Do](a.Path)
		if a.Allowed != (err == nil) || !a.Allowed && !errors.Is(err, fs.ErrPermission) {
			fmt.Printf("%s %s: %v\n", a.Do, a.Path, err)
		}
	}
	return nil
}

func TestConfinedProcessOpensNothingElse(t *testing.T) {
	if abi, err := llsyscall.LandlockGetABIVersion(); err != nil || abi < wholeABI {
		t.Skipf("the kernel has Landlock ABI %d (%v)", abi, err)
	}
	dir := t.TempDir()
	file := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := func(to, name string) {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }

	auditLog, backup := file("audit/audit.log"), file("audit/audit-2026-11-27T13-00-00.000.log.gz")
	linked, besideLinked := file("linked/log"), file("linked/other")
	link(linked, "audit/linked.log")
	farBackup, besideFar := file("far/backup"), file("far/other")
	link(farBackup, "audit/audit-2026-11-26T13-00-00.000.log")
	secret, password := file("elsewhere/secret"), file("volume/..1/password")
	link("..1", "volume/..data")
	link("..data/password", "volume/password")
	caFile, caKey := file("pki/ca.crt"), file("pki/ca.key")
	httpConfig := file("conf/http.yaml")
	if err := os.WriteFile(httpConfig, []byte("basic_auth: {username: a, password_file: ../volume/password}\ntls_config: {ca_file: ../pki/ca.crt}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	positions, logFile := file("state/positions.json"), file("log/agent.log")
	letters := file("letters/dead.jsonl")

	notify, err := net.ListenPacket("unixgram", at("elsewhere/notify"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = notify.Close() }()

	yes, no := true, false
	attempts := []attempt{
		{"list", at("audit"), yes}, {"read", auditLog, yes}, {"read", backup, yes},
		{"read", at("audit/linked.log"), yes}, {"read", besideLinked, yes}, {"read", farBackup, yes}, {"read", besideFar, no},
		{"write", auditLog, no}, {"write", at("audit/new"), no}, {"empty", auditLog, no}, {"remove", auditLog, no},
		{"rename", auditLog, no}, {"hardlink", auditLog, no}, {"symlink", auditLog, no}, {"mkdir", at("audit/d"), no},
		{"write", linked, no}, {"write", farBackup, no}, {"remove", farBackup, no},
		{"list", at("state"), yes}, {"read", positions, yes}, {"write", positions, yes}, {"empty", positions, yes},
		{"write", at("state/new"), yes}, {"rename", at("state/new"), yes}, {"remove", at("state/new.renamed"), yes},
		{"mkdir", at("state/d"), no}, {"symlink", positions, no}, {"hardlink", positions, yes}, {"run", positions, no},
		{"write", letters, yes}, {"rename", letters, yes}, {"write", letters, yes}, {"write", logFile, yes},
		{"read", at("volume/password"), yes}, {"read", password, yes}, {"write", password, no},
		{"read", caFile, yes}, {"write", caFile, no}, {"read", caKey, no}, {"list", at("pki"), no},
		{"read", secret, no}, {"read", httpConfig, no}, {"list", dir, no}, {"write", at("new"), no},
		{"read", "/etc/hosts", yes}, {"write", "/etc/hosts", no}, {"read", "/etc/passwd", no}, {"read", "/etc/shadow", no},
		{"send", at("elsewhere/notify"), yes}, {"list", "/etc", no}, {"list", "/", no}, {"run", "/bin/true", no},
		{"read", "/proc/self/smaps", yes}, {"read", "/proc/stat", yes}, {"list", "/proc/self/fd", yes},
		{"read", fmt.Sprintf("/proc/%d/environ", os.Getpid()), no}, {"read", "/proc/self/root" + secret, no},
	}
	wrong := confinedTries(t, confined{Attempts: attempts, Args: []string{
		"--audit-log-path=" + auditLog, "--audit-log-path=" + at("audit/linked.log"), "--loki-url=http://loki", "--loki-http-config=" + httpConfig,
		"--positions-file=" + positions, "--dead-letter-file=" + letters, "--log-file=" + logFile,
	}})
	if wrong != "" {
		t.Errorf("not as it should be:\n%s", wrong)
	}
}

// confinedTries runs the other process and gives what it says: nothing if all went as it should.
func confinedTries(t *testing.T, c confined) string {
	t.Helper()
	input, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), confineHelper+"="+string(input))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	wrong, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s%s", err, wrong, stderr.String())
	}
	return string(wrong)
}

// What does not exist yet will be made in what there is; what is everybody's is not opened for one file's sake.
func TestViewIsAsNarrowAsItCanBe(t *testing.T) {
	dir := t.TempDir()
	v := new(view)
	v.addAudit(filepath.Join(dir, "not", "yet", "audit.log"))
	if !slices.Equal(v.audit, []string{dir}) || !slices.Equal(v.missing, []string{dir}) {
		t.Errorf("%+v", v)
	}
	loop := filepath.Join(dir, "loop.log")
	if err := os.Symlink("loop.log", loop); err != nil {
		t.Fatal(err)
	}
	v.addAudit(loop)
	v.addWrite(filepath.Join(dir, "positions.json"))
	if got := v.exposed(); !slices.Equal(got, []string{dir}) {
		t.Errorf("exposed: %v", got)
	}
}

// Others' keys lie beside a certificate; only what was made for the agent is opened as a whole.
func TestViewOfAFileIsThatFile(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"pki/ca.crt", "pki/ca.key", "volume/..1/ca.crt", "volume/..1/sub/key", "cred/token", "dots/..data/key",
		"conf/http.yaml", "conf/token", "conf/sub/ca.crt"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(at(name)), 0o755), os.WriteFile(at(name), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{
		"volume/..data": "..1", "volume/ca.crt": "..data/ca.crt", "volume/sub": "..data/sub", "pki/linked": "../volume/ca.crt", "etc": "pki",
	} {
		if err := os.Symlink(to, at(name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("CREDENTIALS_DIRECTORY", at("cred"))
	for name, want := range map[string]string{
		"pki/ca.crt": "", "etc/ca.crt": "", "pki/absent": "", "volume/ca.crt": "volume", "volume/..data/ca.crt": "volume", "volume/sub/key": "volume",
		"pki/linked": "volume", "cred/token": "cred", "conf/token": "conf", "conf/sub/ca.crt": "conf",
	} {
		v := new(view)
		v.addFile(at(name), at("conf/http.yaml"))
		wanted := &view{files: []string{at(name)}}
		if want != "" {
			wanted = &view{dirs: []string{at(want)}}
		}
		if !slices.Equal(v.dirs, wanted.dirs) || !slices.Equal(v.files, wanted.files) {
			t.Errorf("%s: dirs %v, files %v", name, v.dirs, v.files)
		}
	}
}

// A name of the state's directory that goes through a link is that directory all the same.
func TestExposedLogsAreFoundThroughLinks(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "state", "audit"), 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("state", link); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, tt := range []struct {
		audit, state string
		exposed      bool
	}{
		{filepath.Join(dir, "state", "audit"), link, true},
		{filepath.Join(link, "audit"), filepath.Join(dir, "state"), true},
		{filepath.Join(dir, "state", "audit"), "state", true},
		{"state/audit", filepath.Join(dir, "state"), true},
		{dir, link, false},
	} {
		v := &view{audit: []string{tt.audit}, write: []string{tt.state}}
		if got := len(v.exposed()) > 0; got != tt.exposed {
			t.Errorf("audit logs in %s, state in %s: exposed %v", tt.audit, tt.state, got)
		}
	}
}

// The directory of a volume can be made anew between the look at it and the rules.
func TestADirectoryThatIsGoneByThenIsNoFailure(t *testing.T) {
	if abi, err := llsyscall.LandlockGetABIVersion(); err != nil || abi < wholeABI {
		t.Skipf("the kernel has Landlock ABI %d (%v)", abi, err)
	}
	args := append(slices.Clone(least), "--positions-file="+filepath.Join(t.TempDir(), "positions.json"))
	said := confinedTries(t, confined{Args: args, Gone: filepath.Join(t.TempDir(), "..2026"), Attempts: []attempt{{"read", "/etc/shadow", false}}})
	if said != "" {
		t.Error(said)
	}
}

func TestLandlockThatIsRequiredIsSaidByName(t *testing.T) {
	var out bytes.Buffer
	if code := run(t.Context(), append(slices.Clone(least), "--landlock=perhaps"), &out, &out); code != exitUsage ||
		!strings.Contains(out.String(), "--landlock") || !strings.Contains(out.String(), "best-effort") {
		t.Errorf("exit code %d: %s", code, out.String())
	}
}
