package positions

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// holderFile tells a second run of the test binary to hold that positions file until its standard input ends.
const holderFile = "AUDITFERRY_TEST_HOLD"

func TestMain(m *testing.M) {
	if path := os.Getenv(holderFile); path != "" {
		os.Exit(holdLock(path))
	}
	os.Exit(m.Run())
}

func holdLock(path string) int {
	cfg := testConfig()
	cfg.File = path
	s, err := Open(cfg)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("held")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	_ = s.Close() // not reached when killed; and the store must not be collected, its lock with it
	return 0
}

func realConfig(t *testing.T) Config {
	cfg := testConfig()
	cfg.File = filepath.Join(t.TempDir(), "positions.json")
	return cfg
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q is more than one line", err)
	}
}

func TestSecondAgentInOneProcess(t *testing.T) {
	cfg := realConfig(t)
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(cfg)
	wantError(t, err, "positions file "+cfg.File, fmt.Sprintf("(pid %d)", os.Getpid()), "--positions-file")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(cfg); err != nil {
		t.Fatalf("after Close: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestSecondAgentInAnotherProcess(t *testing.T) {
	cfg := realConfig(t)
	holder := exec.Command(os.Args[0])
	holder.Env = append(os.Environ(), holderFile+"="+cfg.File)
	holder.Stderr = os.Stderr
	stdin, err := holder.StdinPipe() // held open: the holder waits for its end
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "held\n" {
		t.Errorf("the other process: %q, %v", line, err)
	}
	_, err = Open(cfg)
	wantError(t, err, "positions file "+cfg.File, fmt.Sprintf("(pid %d)", holder.Process.Pid))

	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait() // "signal: killed"
	_ = stdin.Close()
	s, err := Open(cfg)
	if err != nil {
		t.Fatalf("after SIGKILL of the other process: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestFilesOfARealDirectory(t *testing.T) {
	cfg := realConfig(t)
	dir := filepath.Dir(cfg.File)
	if err := os.WriteFile(cfg.File, nil, 0o644); err != nil { // damaged
		t.Fatal(err)
	}
	s, err := open(cfg, disk{}, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(pathA, at(pathA, 100)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want := map[string]fs.FileMode{
		"positions.json": 0o600,
		"positions.json.damaged-20261123T203323.092Z": 0o644,
		"positions.json.lock":                         0o600,
		"positions.latest.json":                       0o600,
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		if mode, ok := want[entry.Name()]; !ok || info.Mode() != mode {
			t.Errorf("%s has mode %v, want %v (wanted at all: %t)", entry.Name(), info.Mode(), mode, ok)
		}
		delete(want, entry.Name())
	}
	if len(want) != 0 {
		t.Errorf("missing: %v", want)
	}
}

// The files lie beside the target of a link, so that agents that name it and that name the link meet at one lock.
func TestSymbolicLink(t *testing.T) {
	cfg := realConfig(t)
	link := cfg
	link.File = filepath.Join(t.TempDir(), "link.json")
	if err := os.Symlink(cfg.File, link.File); err != nil {
		t.Fatal(err)
	}
	_, err := Open(link)
	wantError(t, err, link.File, "symbolic link to nothing", "--positions-file")

	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(link)
	wantError(t, err, "in use by another auditferry", cfg.File)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(link); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(pathA, at(pathA, 100)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link.File); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", info, err)
	}
	if s, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	if p, _ := s.Position(pathA); !p.Equal(at(pathA, 100)) {
		t.Errorf("through the target: %v", p)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestOpenSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	locked := filepath.Join(dir, "locked")
	if err := os.Mkdir(locked, 0o500); err != nil {
		t.Fatal(err)
	}
	directory := filepath.Join(dir, "a.json")
	if err := os.Mkdir(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, file string
		want       []string
		asRoot     bool // whether root fails too
	}{
		{"no file", "", []string{"--positions-file"}, true},
		{"missing directory", filepath.Join(dir, "missing", "p.json"),
			[]string{"directory " + filepath.Join(dir, "missing"), "create it", "--positions-file"}, true},
		{"forbidden directory", filepath.Join(locked, "p.json"), []string{locked, "allow it", "--positions-file"}, false},
		{"a directory", directory, []string{directory, "is a directory"}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if !test.asRoot && os.Getuid() == 0 {
				t.Skip("root may write anywhere")
			}
			cfg := testConfig()
			cfg.File = test.file
			_, err := Open(cfg)
			wantError(t, err, test.want...)
		})
	}
}
