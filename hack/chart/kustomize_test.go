//go:build e2e

package chart

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// TestKustomize compares what the chart renders for a distribution with what its overlay makes. Only this may differ:
//
//   - The chart makes no namespace: its notes say how to label one that Helm has made.
//   - kustomize ends the names of ConfigMap and Secret in a hash, so that a change rolls the pods; the chart has checksums for that.
//   - The chart has Helm's labels, and selects by the release.
//   - The chart says that an image is pulled if it is not there, which for a tag is what Kubernetes does when nothing is said.
//   - kustomize, which does not know SecurityContextConstraints, gives them a namespace, which kube-apiserver takes away.
//   - Comments in files, and how a Secret is encoded.
func TestKustomize(t *testing.T) {
	for _, name := range distributions {
		t.Run(name, func(t *testing.T) {
			overlay := objects(t, mustRun(t, "kubectl", "kustomize", repo(t, "manifests", "kustomize", "overlays", name)))
			checkNotes(t, name, overlay)
			delete(overlay, "Namespace/"+namespace)
			chart := objects(t, mustRender(t, chartDir(t), "--values", filepath.Join("testdata", name+".values.yaml")))
			compare(t, overlay, chart)
		})
	}
	for component, value := range map[string]string{"podmonitor": "podMonitor.enabled=true", "selinux": "seLinuxType=spc_t"} {
		t.Run(component, func(t *testing.T) {
			overlay := objects(t, mustRun(t, "kubectl", "kustomize", overKubeadm(t, component)))
			delete(overlay, "Namespace/"+namespace)
			compare(t, overlay, objects(t, mustRender(t, chartDir(t), "--set=distribution=kubeadm,"+value)))
		})
	}
}

// overKubeadm gives a directory with a kustomization: the overlay of kubeadm and a component.
func overKubeadm(t *testing.T, component string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "kustomize"), os.DirFS(repo(t, "manifests", "kustomize"))); err != nil {
		t.Fatal(err)
	}
	text := "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n" +
		"resources: [kustomize/overlays/kubeadm]\ncomponents: [kustomize/components/" + component + "]\n"
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func compare(t *testing.T, overlay, chart map[string]object) {
	t.Helper()
	overlay, chart = withoutHashes(t, overlay), withoutHelm(t, chart)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(overlay)), slices.Sorted(maps.Keys(chart))); diff != "" {
		t.Errorf("the objects: -kustomize +chart\n%s", diff)
	}
	for key := range overlay {
		if diff := cmp.Diff(legible(t, overlay[key]), legible(t, chart[key])); diff != "" {
			t.Errorf("%s: -kustomize +chart\n%s", key, diff)
		}
	}
}

// withoutHashes gives what an overlay makes with the names that it has without their hashes, and what is so if nothing is said.
func withoutHashes(t *testing.T, all map[string]object) map[string]object {
	t.Helper()
	hash := regexp.MustCompile(`-[a-z0-9]{10}$`)
	names := make(map[string]string)
	for key, o := range all {
		kind, name, _ := strings.Cut(key, "/")
		if kind != "ConfigMap" && kind != "Secret" {
			continue
		}
		if !hash.MatchString(name) {
			t.Errorf("%s has no hash in its name: a change does not roll the pods", key)
		}
		names[name] = hash.ReplaceAllString(name, "")
		part(t, o, "metadata")["labels"] = object{}
	}
	renamed := make(map[string]object)
	for _, o := range all {
		o = replaced(o, names).(object)
		renamed[o["kind"].(string)+"/"+part(t, o, "metadata")["name"].(string)] = o
	}
	if constraints := ofKind(t, renamed, "SecurityContextConstraints"); constraints != nil {
		delete(part(t, constraints, "metadata"), "namespace")
	}
	pod := part(t, ofKind(t, renamed, "DaemonSet"), "spec", "template", "spec")
	for _, list := range []string{"initContainers", "containers"} {
		containers, _ := pod[list].([]any)
		for _, c := range containers {
			c.(object)["imagePullPolicy"] = "IfNotPresent"
		}
	}
	return renamed
}

// replaced gives a value with strings of it exchanged.
func replaced(value any, strings map[string]string) any {
	switch value := value.(type) {
	case string:
		if other, ok := strings[value]; ok {
			return other
		}
	case []any:
		for i := range value {
			value[i] = replaced(value[i], strings)
		}
	case object:
		for key := range value {
			value[key] = replaced(value[key], strings)
		}
	}
	return value
}

// withoutHelm takes away what every object of a chart has for Helm, which must be there, and the checksums.
func withoutHelm(t *testing.T, all map[string]object) map[string]object {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(chartDir(t), "Chart.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var chart struct {
		Version    string `yaml:"version"`
		AppVersion string `yaml:"appVersion"`
	}
	if err := yaml.Unmarshal(text, &chart); err != nil {
		t.Fatal(err)
	}
	for key, o := range all {
		labels := part(t, o, "metadata", "labels")
		for label, value := range map[string]string{
			"app.kubernetes.io/instance": release, "app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/component": "agent",
			"app.kubernetes.io/version": chart.AppVersion, "helm.sh/chart": "auditferry-" + chart.Version,
		} {
			if labels[label] != value {
				t.Errorf("%s: the label %s is %v, want %s", key, label, labels[label], value)
			}
			if label != "app.kubernetes.io/component" || o["kind"] != "DaemonSet" {
				delete(labels, label)
			}
		}
		if o["kind"] == "ConfigMap" || o["kind"] == "Secret" {
			delete(labels, "app.kubernetes.io/name")
		}
	}
	for _, kind := range []string{"NetworkPolicy", "PodMonitor"} {
		if o := ofKind(t, all, kind); o != nil {
			selector := part(t, o, "spec")["selector"]
			if kind == "NetworkPolicy" {
				selector = part(t, o, "spec")["podSelector"]
			}
			withoutInstance(t, selector.(object)["matchLabels"].(object))
		}
	}
	daemonSet := ofKind(t, all, "DaemonSet")
	withoutInstance(t, part(t, daemonSet, "spec", "selector", "matchLabels"))
	withoutInstance(t, part(t, daemonSet, "spec", "template", "metadata", "labels"))
	annotations := part(t, daemonSet, "spec", "template", "metadata", "annotations")
	for _, checksum := range []string{"checksum/config", "checksum/loki"} {
		if annotations[checksum] == nil {
			t.Errorf("there is no %s: a change does not roll the pods", checksum)
		}
		delete(annotations, checksum)
	}
	return all
}

func withoutInstance(t *testing.T, labels object) {
	t.Helper()
	if labels["app.kubernetes.io/instance"] != release {
		t.Errorf("these labels do not name the release: %v", labels)
	}
	delete(labels, "app.kubernetes.io/instance")
}

// legible gives an object as text, with its files read, and with its lists of named things in the order of their names.
func legible(t *testing.T, o object) string {
	t.Helper()
	if o["kind"] == "ConfigMap" || o["kind"] == "Secret" {
		read := make(object)
		for name, text := range files(t, o) {
			var content any
			if err := yaml.Unmarshal([]byte(text), &content); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			read[name] = content
		}
		o = maps.Clone(o)
		delete(o, "stringData")
		o["data"] = read
		if o["type"] == "Opaque" {
			delete(o, "type") // as it is if nothing is said
		}
	}
	sortNamed(o)
	text, err := yaml.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// sortNamed orders lists, in place, whose order says nothing: of volumes and mounts.
func sortNamed(o object) {
	for key, value := range o {
		if inner, ok := value.(object); ok {
			sortNamed(inner)
		}
		list, _ := value.([]any)
		for _, item := range list {
			if inner, ok := item.(object); ok {
				sortNamed(inner)
			}
		}
		if key == "volumes" || key == "volumeMounts" {
			slices.SortFunc(list, func(a, b any) int {
				return strings.Compare(nameOf(a), nameOf(b))
			})
		}
	}
}

// nameOf gives the name of a named thing, or the word that it is.
func nameOf(item any) string {
	if named, ok := item.(object); ok {
		item = named["name"]
	}
	name, _ := item.(string)
	return name
}

// checkNotes looks in the notes for every label and annotation that the namespace of an overlay has.
func checkNotes(t *testing.T, name string, overlay map[string]object) {
	t.Helper()
	notes, err := os.ReadFile(filepath.Join("testdata", name+".notes.txt"))
	if err != nil {
		t.Fatal(err)
	}
	metadata := part(t, ofKind(t, overlay, "Namespace"), "metadata")
	for _, of := range []string{"labels", "annotations"} {
		pairs, _ := metadata[of].(object)
		for key, value := range pairs {
			if key != "app.kubernetes.io/name" && !strings.Contains(string(notes), key+"="+value.(string)) {
				t.Errorf("the notes do not say %s=%s", key, value)
			}
		}
	}
}
