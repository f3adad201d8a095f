//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

// usage is what a wrong use of the agent must come to: an exit code, and one line on stderr that holds words, so that it says
// what is wrong and what to do.
type usage struct {
	name  string
	args  func(t *testing.T, w *workplace) []string
	code  int
	words []string
}

const (
	failure  = 1
	badUsage = 2
)

var usages = []usage{
	{"no flags", func(*testing.T, *workplace) []string {
		return nil
	}, badUsage, []string{"--audit-log-path is missing", "give", "--help"}},
	{"wrong flag", func(_ *testing.T, w *workplace) []string {
		return append(w.good(), "--audit-log-pth=x")
	}, badUsage, []string{"--audit-log-pth", "did you mean", "--audit-log-path", "--help"}},
	{"wrong value of a flag", func(_ *testing.T, w *workplace) []string {
		return append(w.good(), "--batch-size=lots")
	}, badUsage, []string{"--batch-size", "lots", "1MiB"}},
	{"typo in the configuration file", func(t *testing.T, w *workplace) []string {
		return append(w.good(), "--config="+w.file(t, "config.yaml", "batch-wait: 1s\nloki-ur: http://loki:3100\n"))
	}, badUsage, []string{"config.yaml:2", "loki-ur", "name of a flag"}},
	{"configuration file that is no YAML", func(t *testing.T, w *workplace) []string {
		return append(w.good(), "--config="+w.file(t, "config.yaml", "batch-wait: [1s\n"))
	}, badUsage, []string{"config.yaml", "yaml"}},
	{"configuration file that is missing", func(_ *testing.T, w *workplace) []string {
		return append(w.good(), "--config="+filepath.Join(w.dir, "absent.yaml"))
	}, badUsage, []string{"--config", "absent.yaml", "no such file"}},
	{"Loki URL without a scheme", func(_ *testing.T, w *workplace) []string {
		return append(w.good(), "--loki-url=loki:3100")
	}, badUsage, []string{"--loki-url", "http://", "give the server"}},
	{"Loki URL that is none", func(_ *testing.T, w *workplace) []string {
		return append(w.good(), "--loki-url=http://[::1")
	}, badUsage, []string{"--loki-url is not a URL", "give the server"}},
	{"audit log that may not be read", func(t *testing.T, w *workplace) []string {
		w.forbid(t, filepath.Join(w.dir, "audit.log"), 0)
		return w.good()
	}, failure, []string{"audit.log", "permission denied", "CAP_DAC_READ_SEARCH"}},
	{"backup that may not be read", func(t *testing.T, w *workplace) []string {
		w.forbid(t, w.file(t, "audit-2026-11-23T20-33-23.092.log", "{}\n"), 0)
		return w.good()
	}, failure, []string{"audit-2026-11-23T20-33-23.092.log", "permission denied", "CAP_DAC_READ_SEARCH"}},
	{"audit log in a directory that may not be entered", func(t *testing.T, w *workplace) []string {
		w.forbid(t, w.sub(t, "audit"), 0)
		return append(w.good(), "--audit-log-path="+filepath.Join(w.dir, "audit", "other.log"))
	}, failure, []string{"audit", "permission denied", "CAP_DAC_READ_SEARCH"}},
	{"audit log that is a directory", func(t *testing.T, w *workplace) []string {
		return append(w.good(), "--audit-log-path="+w.sub(t, "audit"))
	}, badUsage, []string{"is a directory", "name the file"}},
	{"positions file in a missing directory", func(_ *testing.T, w *workplace) []string {
		return append(w.good(), "--positions-file="+filepath.Join(w.dir, "absent", "positions.json"),
			"--dead-letter-file="+filepath.Join(w.dir, "state", "dead.jsonl"))
	}, failure, []string{"absent", "does not exist", "create it", "--positions-file"}},
	{"state in a missing directory", func(_ *testing.T, w *workplace) []string {
		return append(w.good(), "--positions-file="+filepath.Join(w.dir, "absent", "positions.json"))
	}, failure, []string{"absent", "--positions-file"}},
	{"state in a directory that may not be written", func(t *testing.T, w *workplace) []string {
		w.forbid(t, filepath.Join(w.dir, "state"), 0o555)
		return w.good()
	}, failure, []string{"state", "permission denied", "--positions-file"}},
	{"positions file of another agent", func(t *testing.T, w *workplace) []string {
		w.startOther(t)
		return w.good()
	}, failure, []string{"positions.json", "in use by another auditferry (pid ", "--positions-file"}},
	{"listen address in use", func(t *testing.T, w *workplace) []string {
		return append(w.good(), "--listen-address="+w.listen(t))
	}, failure, []string{"--listen-address", "address already in use", "give another"}},
}

// TestUsage uses the agent wrongly.
func TestUsage(t *testing.T) {
	for _, u := range usages {
		t.Run(u.name, func(t *testing.T) {
			w := newWorkplace(t)
			code, stdout, stderr := w.run(t, u.args(t, w))
			if code != u.code {
				t.Errorf("exit code %d, want %d", code, u.code)
			}
			if stdout != "" {
				t.Errorf("stdout: %s", stdout)
			}
			if strings.Count(stderr, "\n") != 1 || !strings.HasSuffix(stderr, "\n") {
				t.Errorf("want one line on stderr")
			}
			for _, word := range u.words {
				if !strings.Contains(stderr, word) {
					t.Errorf("stderr does not say %q", word)
				}
			}
			if t.Failed() {
				t.Logf("stderr:\n%s", stderr)
			} else {
				t.Logf("exit code %d: %s", code, strings.TrimSpace(stderr))
			}
		})
	}
}

// workplace is a directory in which the agent runs as a user who may not do everything: nobody if the test runs as root.
type workplace struct {
	dir    string
	binary string
	user   *syscall.SysProcAttr
}

const nobody = 65534

func newWorkplace(t *testing.T) *workplace {
	t.Helper()
	built, err := rig.Binary("auditferry")
	if err != nil {
		t.Fatal(err)
	}
	w := &workplace{dir: workDir(t)}
	w.binary = filepath.Join(w.dir, "auditferry")
	// A copy, because the directories above the original may be closed to others.
	if err := copyProgram(built, w.binary); err != nil {
		t.Fatal(err)
	}
	w.file(t, "audit.log", "")
	w.sub(t, "state")
	if os.Geteuid() != 0 {
		return w
	}
	w.user = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	for _, path := range []string{w.dir, filepath.Join(w.dir, "audit.log"), filepath.Join(w.dir, "state")} {
		if err := os.Chown(path, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// good gives flags with which the agent runs; a flag that follows them counts instead.
func (w *workplace) good() []string {
	return []string{
		"--audit-log-path=" + filepath.Join(w.dir, "audit.log"), "--loki-url=http://127.0.0.1:1",
		"--positions-file=" + w.positions(), "--listen-address=", "--shutdown-timeout=0s",
	}
}

func (w *workplace) positions() string { return filepath.Join(w.dir, "state", "positions.json") }

func (w *workplace) file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func (w *workplace) sub(t *testing.T, name string) string {
	t.Helper()
	return subDir(t, w.dir, name)
}

// forbid takes the agent's user the right to path, until the test ends.
func (w *workplace) forbid(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Chmod(path, 0o700); err != nil {
			t.Error(err)
		}
	})
}

// listen gives an address at which somebody listens until the test ends.
func (w *workplace) listen(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func (w *workplace) command(ctx context.Context, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, w.binary, args...)
	cmd.Dir, cmd.SysProcAttr = w.dir, w.user
	return cmd
}

// run runs the agent to its end; one that goes on for 10 s is killed.
func (w *workplace) run(t *testing.T, args []string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := w.command(ctx, args)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// startOther starts an agent with the positions file, which runs until the test ends.
func (w *workplace) startOther(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	cmd := w.command(ctx, w.good())
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed
	})
	err := rig.Poll(ctx, func() (bool, error) {
		_, err := os.Stat(w.positions())
		return err == nil, nil
	})
	if err != nil {
		t.Fatalf("waiting for the other agent: %v", err)
	}
}
