//go:build e2e && linux

package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/auditferry/auditferry/hack/rig"
)

// TestPrepare runs the command prepare as an init container does, as uid 0 without any capability but CAP_CHOWN, and then the
// agent's --check-config as the user that it was for.
func TestPrepare(t *testing.T) {
	mustBeRoot(t)
	for _, tt := range []struct {
		name  string
		found func(t *testing.T, dir string) // what is there before
		files string                         // of the agent, that must have been given away
	}{
		{"no directory yet", func(*testing.T, string) {}, "0"},
		{"an empty one of root's, as the kubelet makes it", func(t *testing.T, dir string) {
			makeOwned(t, dir, 0, 0o755)
		}, "0"},
		{"state of an agent that ran as root", func(t *testing.T, dir string) {
			makeOwned(t, dir, 0, 0o700)
			writeOwned(t, filepath.Join(dir, "positions.json"), 0)
			writeOwned(t, filepath.Join(dir, "positions.json.lock"), 0)
			writeOwned(t, filepath.Join(dir, "dead-letters.loki_3100.jsonl"), 0)
		}, "3"},
		{"a closed one of that user's, with a file that an agent has left that ran as root", func(t *testing.T, dir string) {
			makeOwned(t, dir, nobody, 0o700)
			writeOwned(t, filepath.Join(dir, "positions.json"), nobody)
			writeOwned(t, filepath.Join(dir, "positions.admissions"), 0)
		}, "2"},
		{"a closed one of a third user's", func(t *testing.T, dir string) {
			makeOwned(t, dir, 1234, 0o700)
			writeOwned(t, filepath.Join(dir, "positions.json"), 1234)
		}, "1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newHost(t)
			dir := filepath.Join(w.dir, "prepared")
			tt.found(t, dir)
			for range 2 { // at every start of the pod
				stdout, err := prepareWith(t, w, "chown", dir)
				if err != nil || !strings.HasSuffix(stdout, "files of the agent in it: "+tt.files+"\n") {
					t.Fatalf("%v: %s", err, stdout)
				}
			}
			check := append(w.good(), "--positions-file="+filepath.Join(dir, "positions.json"), "--check-config")
			if code, stdout, stderr := w.run(t, check); code != 0 {
				t.Errorf("the agent as %d: code %d, %s%s", nobody, code, stdout, stderr)
			}
			names, err := filepath.Glob(filepath.Join(dir, "*"))
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range append(names, dir) {
				if uid := ownerOf(t, name); uid != nobody {
					t.Errorf("%s belongs to %d", name, uid)
				}
			}
		})
	}
}

// TestPrepareGivesNothingElseAway has links in the directory that lead out of it, and files that are not the agent's.
func TestPrepareGivesNothingElseAway(t *testing.T) {
	mustBeRoot(t)
	w := newHost(t)
	dir := filepath.Join(w.dir, "prepared")
	makeOwned(t, dir, nobody, 0o755)
	outside := filepath.Join(w.dir, "outside")
	writeOwned(t, outside, 0)
	foreign := filepath.Join(dir, "positionsnotes.txt")
	writeOwned(t, foreign, 0)
	within := filepath.Join(dir, "positions.d")
	makeOwned(t, within, 0, 0o755)
	link, hard := filepath.Join(dir, "positions.json"), filepath.Join(dir, "positions.latest.json")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(outside, hard); err != nil {
		t.Fatal(err)
	}
	if stdout, err := prepareWith(t, w, "chown", dir); err != nil || !strings.HasSuffix(stdout, ": 0\n") {
		t.Fatalf("%v: %s", err, stdout)
	}
	for _, name := range []string{outside, foreign, within, link, hard} {
		if uid := ownerOf(t, name); uid != 0 {
			t.Errorf("%s was given to %d", name, uid)
		}
	}
}

func TestPrepareNeedsTheCapability(t *testing.T) {
	mustBeRoot(t)
	w := newHost(t)
	stdout, err := prepareWith(t, w, "", filepath.Join(w.dir, "prepared"))
	if err == nil || !strings.Contains(stdout, "operation not permitted") || !strings.Contains(stdout, "CAP_CHOWN") {
		t.Errorf("%v: %s", err, stdout)
	}
}

// newHost is a workplace in a directory of root's, as that is in which the state of a node lies.
func newHost(t *testing.T) *workplace {
	t.Helper()
	w := newWorkplace(t)
	if err := errors.Join(os.Chown(w.dir, 0, 0), os.Chmod(w.dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return w
}

func mustBeRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
}

// prepareWith runs prepare as uid 0 with no capability but one, or none, which it cannot get back; it gives all that it says.
func prepareWith(t *testing.T, w *workplace, capability, dir string) (output string, err error) {
	t.Helper()
	binary, err := rig.Binary("auditferry")
	if err != nil {
		t.Fatal(err)
	}
	keep := "-all"
	if capability != "" {
		keep += ",+" + capability
	}
	cmd := exec.Command("setpriv", "--bounding-set="+keep, "--inh-caps=-all", "--no-new-privs", binary, "prepare",
		"--owner=65534:65534", "--positions-file="+filepath.Join(dir, "positions.json"))
	cmd.Dir = w.dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func makeOwned(t *testing.T, dir string, uid int, mode os.FileMode) {
	t.Helper()
	if err := os.Mkdir(dir, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, uid, uid); err != nil {
		t.Fatal(err)
	}
}

func writeOwned(t *testing.T, path string, uid int) {
	t.Helper()
	if err := os.WriteFile(path, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, uid, uid); err != nil {
		t.Fatal(err)
	}
}

// ownerOf gives the owner of a file, or of a link itself.
func ownerOf(t *testing.T, path string) int {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Sys().(*syscall.Stat_t).Uid)
}
