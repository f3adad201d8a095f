//go:build e2e

package chart

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/auditferry/auditferry/hack/rig"
)

var update = flag.Bool("update", false, "write golden files and the table of the README anew")

// The release that is rendered, and the version of Kubernetes that it is rendered for: Helm knows none by itself.
const (
	release     = "auditferry"
	namespace   = "auditferry"
	kubeVersion = "1.37.0"
)

// distributions are those that the chart knows, each with an overlay of kustomize.
var distributions = []string{"kubeadm", "k3s", "rke2", "openshift", "talos", "kubespray"}

// repo gives a path in the repository.
func repo(t *testing.T, path ...string) string {
	t.Helper()
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(append([]string{root}, path...)...)
}

func chartDir(t *testing.T) string {
	t.Helper()
	return repo(t, "manifests", "helm", "auditferry")
}

// cases are the names of the values files in testdata.
func cases(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.values.yaml")
	if err != nil || len(files) < len(distributions) {
		t.Fatalf("testdata holds %v: %v", files, err)
	}
	for i := range files {
		files[i] = strings.TrimSuffix(filepath.Base(files[i]), ".values.yaml")
	}
	return files
}

// run runs a built program and gives its standard output; the error holds its standard error. It sees nothing of the user's own
// configuration.
func run(t *testing.T, program string, args ...string) (string, error) {
	t.Helper()
	binary, err := rig.Binary(program)
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "KUBECONFIG=" + filepath.Join(home, "none")}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, args[0], err, stderr.String())
	}
	return stdout.String(), nil
}

func mustRun(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := run(t, program, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// render gives what the chart in a directory, or an archive, makes of values.
func render(t *testing.T, chart string, args ...string) (string, error) {
	t.Helper()
	return run(t, "helm", append([]string{"template", release, chart, "--namespace", namespace, "--kube-version", kubeVersion}, args...)...)
}

func mustRender(t *testing.T, chart string, args ...string) string {
	t.Helper()
	out, err := render(t, chart, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// golden compares with a file, or writes it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is not what it was (`make chart UPDATE=1` writes it anew): -was +is\n%s", file, diff)
	}
}
