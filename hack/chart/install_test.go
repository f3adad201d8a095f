//go:build e2e

package chart

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/auditferry/auditferry/hack/rig"
)

// TestInstall installs the chart in a real kube-apiserver, where nothing acts on what is there, changes values one at a time, and sees
// what would replace the pods: a DaemonSet does so when its template changes, and only then.
func TestInstall(t *testing.T) {
	running := startCluster(t)
	cluster := []string{"--server", running.URL(), "--certificate-authority", running.CAFile(), "--token", rig.Admin.Token}
	helm := func(t *testing.T, args ...string) string {
		t.Helper()
		return mustRun(t, "helm", append(args, "--namespace", namespace, "--kube-apiserver", running.URL(),
			"--kube-ca-file", running.CAFile(), "--kube-token", rig.Admin.Token)...)
	}
	get := func(t *testing.T, kind, name string) object {
		t.Helper()
		text := mustRun(t, "kubectl", append([]string{"get", kind, name, "--namespace", namespace, "--output=yaml"}, cluster...)...)
		var o object
		if err := yaml.Unmarshal([]byte(text), &o); err != nil {
			t.Fatal(err)
		}
		return o
	}
	template := func(t *testing.T) object {
		t.Helper()
		return part(t, get(t, "daemonset", release), "spec", "template")
	}

	chart := forAnyVersion(t)
	notes, err := os.ReadFile(filepath.Join("testdata", "kubeadm.notes.txt"))
	if err != nil {
		t.Fatal(err)
	}
	out := helm(t, "install", release, chart, "--create-namespace", "--set=distribution=kubeadm")
	if !strings.Contains(out, strings.TrimSpace(string(notes))) {
		t.Errorf("it does not show its notes, but\n%s", out)
	}

	before := template(t)
	for _, step := range []struct {
		name, set string
		changes   string // the annotation of the template that changes; none if empty
	}{
		{"nothing", "distribution=kubeadm", ""},
		{"a label", "cluster=prod", "checksum/config"},
		{"a setting", "config.batch-wait=2s", "checksum/config"},
		{"credentials", "loki.httpConfig.basic_auth.username=auditferry", "checksum/loki"},
		{"what is none of the pods' business", "networkPolicy.lokiNamespace=observability", ""},
	} {
		t.Run(step.name, func(t *testing.T) {
			helm(t, "upgrade", release, chart, "--reuse-values", "--set", step.set)
			after := template(t)
			if changed := !cmp.Equal(before, after); changed != (step.changes != "") {
				t.Errorf("the template changes: %v: %s", changed, cmp.Diff(before, after))
			}
			if step.changes != "" {
				was, is := part(t, before, "metadata", "annotations"), part(t, after, "metadata", "annotations")
				if was[step.changes] == is[step.changes] {
					t.Errorf("%s stays %v", step.changes, is[step.changes])
				}
				was[step.changes] = is[step.changes]
				if diff := cmp.Diff(before, after); diff != "" {
					t.Errorf("more changes than %s: %s", step.changes, diff)
				}
			}
			before = after
		})
	}
	if got := files(t, get(t, "configmap", release))["config.yaml"]; !strings.Contains(got, "cluster: prod\n") || !strings.Contains(got, "batch-wait: 2s\n") {
		t.Errorf("config.yaml is now %s", got)
	}
	if got, want := files(t, get(t, "secret", release+"-loki"))["http.yaml"], "basic_auth:\n  username: auditferry\n"; got != want {
		t.Errorf("http.yaml is now %q, want %q", got, want)
	}
	helm(t, "uninstall", release)
	left := mustRun(t, "kubectl", append([]string{"get", "daemonset,configmap,secret,serviceaccount,networkpolicy", "--namespace", namespace,
		"--selector=app.kubernetes.io/instance=" + release, "--output=name"}, cluster...)...)
	if left != "" {
		t.Errorf("this is still there: %s", left)
	}
}

// forAnyVersion gives a copy of the chart that does not ask which Kubernetes it is for: one that was built by `go build` alone says that
// it is 0.0.0.
func forAnyVersion(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(chartDir(t))); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "Chart.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, after, found := strings.Cut(string(text), "kubeVersion:")
	_, after, ends := strings.Cut(after, "\n")
	if !found || !ends {
		t.Fatalf("Chart.yaml does not say for which Kubernetes it is:\n%s", text)
	}
	if err := os.WriteFile(file, []byte(before+after), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// startCluster starts a cluster that ends with the test.
func startCluster(t *testing.T) *rig.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cluster := &rig.Cluster{Dir: t.TempDir()}
	if err := cluster.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	return cluster
}
