package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// As its own user, anybody may prepare. What takes root is tried in hack/e2e.
func TestPrepareMakesTheDirectoryOfThePositionsFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	file := write(t, "positions-file: "+filepath.Join(dir, "positions.json")+"\nloki-url: http://loki:3100\n")
	own := fmt.Sprintf("--owner=%d:%d", os.Geteuid(), os.Getegid())
	for range 2 {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), []string{"prepare", own, "--config=" + file}, &stdout, &stderr); code != exitOK {
			t.Fatalf("exit code %d: %s", code, stderr.String())
		}
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Fatalf("%v, %v", info, err)
		}
		if !strings.Contains(stdout.String(), dir) {
			t.Errorf("stdout: %s", stdout.String())
		}
	}
}

func TestPrepareThatIsCalledWronglySaysSo(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "absent", "state", "positions.json")
	for _, tt := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"no owner", nil, exitUsage, []string{"--owner=UID[:GID]", "prepare --help"}},
		{"a name", []string{"--owner=nobody"}, exitUsage, []string{"--owner", "nobody", "65534:65534"}},
		{"no group", []string{"--owner=1:"}, exitUsage, []string{"--owner", "1:"}},
		{"nobody at all", []string{"--owner=-1"}, exitUsage, []string{"--owner", "-1"}},
		{"a flag of the agent's", []string{"--owner=1", "--dry-run"}, exitUsage, []string{"--dry-run"}},
		{"no place for the directory", []string{"--owner=1", "--positions-file=" + file}, exitFailure,
			[]string{filepath.Join(dir, "absent") + " first", "--positions-file"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), append([]string{"prepare"}, tt.args...), &stdout, &stderr)
			if code != tt.code || strings.Count(stderr.String(), "\n") != 1 || stdout.Len() > 0 {
				t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout.String(), stderr.String())
			}
			for _, word := range tt.want {
				if !strings.Contains(stderr.String(), word) {
					t.Errorf("%q does not say %q", stderr.String(), word)
				}
			}
		})
	}
}

func TestStateIsToldByName(t *testing.T) {
	c := &stateConfig{PositionsFile: "/s/positions.json", DeadLetterFile: "/s/dead-letters.jsonl"}
	for name, ours := range map[string]bool{
		"positions.json": true, "positions.json.lock": true, "positions.json.tmp": true, "positions.latest2.json": true,
		"positions.admissions": true, "positions.json.damaged-20261127T131500.000Z": true, "dead-letters.jsonl": true,
		"dead-letters-2026-11-27T13-15-00.000.jsonl": true, "dead-letters.loki_3100.jsonl": true,
		"positionsx.json": false, "lost+found": false, "audit.log": false, "": false,
	} {
		if c.ownsName(name) != ours {
			t.Errorf("%s: %v", name, !ours)
		}
	}
	c.DeadLetterFile = "/elsewhere/dead-letters.jsonl"
	if c.ownsName("dead-letters.jsonl") {
		t.Error("the dead letters lie elsewhere")
	}
}
