//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// kubeadmPatch is how kubeadm names the patches of a component: part of a pod, and nothing that a server could take.
var kubeadmPatch = regexp.MustCompile(`^[a-z-]+[0-9]*\+(strategic|merge|json)\.(yaml|json)$`)

// notForServers are the directories of manifests/ whose YAML is not for a kube-apiserver to take.
var notForServers = []string{
	"helm",     // templates; what comes out of them is in chartGolden
	"policy",   // read by kube-apiserver and kubeadm from files
	"systemd",  // settings of the agent
	"packages", // settings of nfpm
}

// chartGolden is what the Helm chart gives for various values.
const chartGolden = "hack/chart/testdata/*.golden.yaml"

// manifests are what is in manifests/, and what the chart gives. All paths are absolute.
type manifests struct {
	root       string   // of the repository
	apart      []string // directories that kustomize builds by themselves
	overlays   []string // those of them that a component can be added to
	components []string
	plain      []string // files for kubectl apply -f
}

// findManifests walks manifests/. Every YAML file there must be of a kind that something here or elsewhere judges.
func findManifests(t *testing.T, root string) *manifests {
	t.Helper()
	m := &manifests{root: root}
	top := filepath.Join(root, "manifests")
	used := make(map[string]bool)
	var inputs []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) {
			return err
		}
		place, _ := filepath.Rel(top, path)
		area, _, _ := strings.Cut(place, string(filepath.Separator))
		switch {
		case slices.Contains(notForServers, area), area == "sidecar" && kubeadmPatch.MatchString(d.Name()):
		case area == "sidecar":
			m.plain = append(m.plain, path)
		case area == "kustomize" && d.Name() == "kustomization.yaml":
			return m.addKustomization(path, used)
		case area == "kustomize":
			inputs = append(inputs, path)
		default:
			return fmt.Errorf("nothing judges %s: see hack/e2e/manifests_tree_test.go", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, input := range inputs {
		if !used[input] {
			t.Errorf("no kustomization names %s", input)
		}
	}
	golden, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(chartGolden)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(top, "helm")); err == nil && len(golden) == 0 {
		t.Errorf("there is a chart, and no %s of it", chartGolden)
	}
	m.plain = append(m.plain, golden...)
	return m
}

// addKustomization reads a kustomization, and notes the files that it uses.
func (m *manifests) addKustomization(path string, used map[string]bool) error {
	type generator struct{ Files []string }
	var k struct {
		Kind               string
		Resources          []string
		ConfigMapGenerator []generator `yaml:"configMapGenerator"`
		SecretGenerator    []generator `yaml:"secretGenerator"`
		Patches            []struct{ Path string }
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(text, &k); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	dir := filepath.Dir(path)
	switch {
	case k.Kind == "Component":
		m.components = append(m.components, dir)
	case filepath.Base(filepath.Dir(dir)) == "overlays":
		m.overlays = append(m.overlays, dir)
		fallthrough
	default:
		m.apart = append(m.apart, dir)
	}
	files := k.Resources
	for _, g := range append(k.ConfigMapGenerator, k.SecretGenerator...) {
		files = append(files, g.Files...)
	}
	for _, p := range k.Patches {
		files = append(files, p.Path)
	}
	for _, file := range files {
		_, name, renamed := strings.Cut(file, "=")
		if !renamed {
			name = file
		}
		used[filepath.Join(dir, name)] = true
	}
	return nil
}

// rendered is one document for `kubectl apply`, of many objects.
type rendered struct{ name, text string }

// render gives all that there is to judge: each kustomization by itself, each overlay with each component, what a user makes of them,
// and all plain files.
func (m *manifests) render(t *testing.T, ctx context.Context, k *kubectl, dir string) []rendered {
	t.Helper()
	var all []rendered
	build := func(name, dir string) {
		all = append(all, rendered{name, k.must(t, ctx, "", "kustomize", dir)})
	}
	for _, overlay := range m.apart {
		build(m.name(overlay), overlay)
	}
	for _, overlay := range m.overlays {
		for _, component := range m.components {
			name := m.name(overlay) + "+" + filepath.Base(component)
			build(name, writeKustomization(t, subDir(t, dir, name), overlay, component))
		}
	}
	for _, file := range m.plain {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rendered{m.name(file), string(text)})
	}
	return all
}

func (m *manifests) name(path string) string {
	name, _ := filepath.Rel(m.root, path)
	return strings.TrimPrefix(filepath.ToSlash(name), "manifests/")
}

// writeKustomization makes one in dir that adds a component to an overlay.
func writeKustomization(t *testing.T, dir, overlay, component string) string {
	t.Helper()
	var relative [2]string
	for i, path := range []string{overlay, component} {
		var err error
		if relative[i], err = filepath.Rel(dir, path); err != nil {
			t.Fatal(err)
		}
	}
	text := fmt.Sprintf("resources: [%q]\ncomponents: [%q]\n", relative[0], relative[1])
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
