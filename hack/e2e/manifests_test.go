//go:build e2e

package e2e

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/auditferry/auditferry/hack/rig"
)

// TestManifests lets a real kube-apiserver judge every object of manifests/, and the real agent its settings. A warning of the server
// is a failure.
func TestManifests(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := workDir(t)
	all := findManifests(t, root)
	cluster := &rig.Cluster{Dir: subDir(t, dir, "cluster"), ServiceAccounts: true}
	startCluster(t, ctx, cluster)
	k := newKubectl(t, dir, cluster)
	installCustomResources(t, ctx, k, root)

	documents := all.render(t, ctx, k, subDir(t, dir, "combined"))
	kustomize := filepath.Join(root, "manifests", "kustomize")
	documents = append(documents, renderUsers(t, ctx, k, subDir(t, dir, "users"), kustomize)...)
	makeNamespaces(t, ctx, k, documents)
	for _, document := range documents {
		t.Run(document.name, func(t *testing.T) {
			k.must(t, ctx, document.text, "apply", "--dry-run=server", "--filename=-")
			if strings.HasPrefix(document.name, "kustomize/") && document.name != "kustomize/base" {
				judge(t, ctx, subDir(t, dir, "judge/"+document.name), document)
			}
		})
	}
	t.Run("twice", func(t *testing.T) { applyTwice(t, ctx, k, all.overlays) })
	t.Run("PodSecurity", func(t *testing.T) { podSecurity(t, ctx, k, all.overlays) })
}

// makeNamespaces makes for real what namespaced objects need even in a dry run: the namespaces, and the service account of pods that
// name none.
func makeNamespaces(t *testing.T, ctx context.Context, k *kubectl, documents []rendered) {
	t.Helper()
	made := map[string]bool{"": true, "default": true, "kube-system": true}
	for _, document := range documents {
		for _, o := range objects(t, document.text) {
			if o.Kind == "Namespace" && !made[o.Metadata.Name] {
				made[o.Metadata.Name] = true
				k.must(t, ctx, o.text(t), "apply", "--filename=-")
			}
		}
	}
	for _, document := range documents {
		for _, o := range objects(t, document.text) {
			if namespace := o.Metadata.Namespace; !made[namespace] {
				made[namespace] = true
				k.must(t, ctx, "", "create", "namespace", namespace)
			}
		}
	}
	for namespace := range made {
		if namespace != "" {
			k.must(t, ctx, "", "create", "serviceaccount", "default", "--namespace="+namespace)
		}
	}
}

// renderUsers gives what comes of kustomizations of a user's own: the one that the README shows, whose overlay is in a git repository,
// and copies of the example elsewhere and in another namespace.
func renderUsers(t *testing.T, ctx context.Context, k *kubectl, dir, kustomize string) []rendered {
	t.Helper()
	repository := gitRepository(t, ctx, subDir(t, dir, "git"), kustomize)
	readme, err := os.ReadFile(filepath.Join(kustomize, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(readme), "```yaml\n")
	shown, _, _ = strings.Cut(shown, "```")
	const origin = "https://github.com/auditferry/auditferry//"
	if strings.Count(shown, origin) != 2 {
		t.Fatalf("the README shows no kustomization with an overlay and a component of %s", origin)
	}
	example := filepath.Join(kustomize, "example")
	text, err := os.ReadFile(filepath.Join(example, "kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var all []rendered
	for _, of := range []struct{ name, kustomization, old, new string }{
		{"kustomize/README, remote", shown, origin, "file://" + repository + "//"},
		{"kustomize/example, copied", string(text), "\n\n", "\n\n"},
		{"kustomize/example, namespace", string(text), "\nnamespace: auditferry\n", "\nnamespace: audit\n"},
	} {
		to := subDir(t, dir, of.name)
		if err := os.CopyFS(to, os.DirFS(example)); err != nil {
			t.Fatal(err)
		}
		near, err := filepath.Rel(to, kustomize)
		if err != nil {
			t.Fatal(err)
		}
		edited := strings.ReplaceAll(of.kustomization, of.old, of.new)
		edited = strings.NewReplacer(" ../overlays/", " "+near+"/overlays/", " ../components/", " "+near+"/components/").Replace(edited)
		if err := os.WriteFile(filepath.Join(to, "kustomization.yaml"), []byte(edited), 0o600); err != nil {
			t.Fatal(err)
		}
		all = append(all, rendered{of.name, k.must(t, ctx, "", "kustomize", to)})
	}
	return all
}

// gitRepository makes one that holds the kustomizations as they are now, with the tag v0.1.0, and gives its path.
func gitRepository(t *testing.T, ctx context.Context, dir, kustomize string) string {
	t.Helper()
	if err := os.CopyFS(filepath.Join(dir, "manifests", "kustomize"), os.DirFS(kustomize)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"init", "--quiet"}, {"add", "."}, {"-c", "user.name=e2e", "-c", "user.email=e2e@example.com", "commit", "--quiet", "--message=all"},
		{"tag", "v0.1.0"},
	} {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v: %s", args[0], err, out)
		}
	}
	return dir
}

// applyTwice applies each overlay for real, as its user does. A second time there is nothing to do.
func applyTwice(t *testing.T, ctx context.Context, k *kubectl, overlays []string) {
	for _, overlay := range overlays {
		k.must(t, ctx, "", "apply", "--kustomize="+overlay)
		out := k.must(t, ctx, "", "apply", "--kustomize="+overlay)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		changed := slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return strings.HasSuffix(line, " unchanged") })
		if len(lines) < 6 || len(changed) > 0 {
			t.Errorf("applied again, %s changes %q, of %d objects", filepath.Base(overlay), changed, len(lines))
		}
	}
}

// podSecurity makes pods of the DaemonSets. Their namespace takes them; one of level baseline does not, for which it says why.
func podSecurity(t *testing.T, ctx context.Context, k *kubectl, overlays []string) {
	const baseline = "baseline"
	k.must(t, ctx, "", "create", "namespace", baseline)
	k.must(t, ctx, "", "label", "namespace", baseline, "pod-security.kubernetes.io/enforce=baseline")
	k.must(t, ctx, "", "create", "serviceaccount", "auditferry", "--namespace="+baseline)
	for _, overlay := range overlays {
		daemonSet := one(t, objects(t, k.must(t, ctx, "", "kustomize", overlay)), "DaemonSet")
		pod := daemonSet.pod(t)
		k.must(t, ctx, pod, "apply", "--dry-run=server", "--namespace=auditferry", "--filename=-")
		_, err := k.run(ctx, pod, "apply", "--dry-run=server", "--namespace="+baseline, "--filename=-")
		if err == nil || !strings.Contains(err.Error(), `violates PodSecurity "baseline`) || !strings.Contains(err.Error(), "hostPath") {
			t.Errorf("a namespace of level baseline took the pod of %s, or refused it for something else: %v", filepath.Base(overlay), err)
		}
	}
	// A warning is an error indeed.
	k.must(t, ctx, "", "label", "namespace", baseline, "pod-security.kubernetes.io/warn=baseline")
	daemonSet := one(t, objects(t, k.must(t, ctx, "", "kustomize", overlays[0])), "DaemonSet")
	daemonSet.all["metadata"].(map[string]any)["namespace"] = baseline
	if _, err := k.run(ctx, daemonSet.text(t), "apply", "--dry-run=server", "--filename=-"); err == nil || !strings.Contains(err.Error(), "1 warning received") {
		t.Errorf("a DaemonSet whose pods will be refused gave no warning, or another error: %v", err)
	}
}

// object is any object of Kubernetes.
type object struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	all      map[string]any
}

// objects reads the objects of a document.
func objects(t *testing.T, document string) (all []object) {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(document))
	for {
		var node yaml.Node
		if err := decoder.Decode(&node); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		var o object
		if err := errors.Join(node.Decode(&o), node.Decode(&o.all)); err != nil {
			t.Fatal(err)
		}
		if o.Kind != "" {
			all = append(all, o)
		}
	}
}

// text gives it as YAML.
func (o object) text(t *testing.T) string {
	t.Helper()
	text, err := yaml.Marshal(o.all)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// pod gives a pod of its template, which must not name a namespace, as YAML.
func (o object) pod(t *testing.T) string {
	t.Helper()
	pod := maps.Clone(at(t, o.all, "spec", "template"))
	pod["apiVersion"], pod["kind"] = "v1", "Pod"
	at(t, pod, "metadata")["name"] = "auditferry-xxxxx"
	return object{all: pod}.text(t)
}
