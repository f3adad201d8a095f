//go:build e2e && linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/auditferry/auditferry/hack/rig"
)

// rights are the rights and limits of a container, as a manifest gives them.
type rights struct {
	RunAsUser, RunAsGroup                       int
	Privileged, RunAsNonRoot, MayGain, ReadOnly bool
	Drop, Add                                   []string
	Seccomp                                     string
	CPU, Memory                                 string
}

// wantRights are those of the agent wherever kube-apiserver runs as root. There is no capability: uid 0 owns the audit log and
// reads it as its owner. CAP_DAC_READ_SEARCH would read every file of every user, and what is more, of the node's whole disk: see
// TestImageConfined.
var wantRights = rights{
	ReadOnly: true, Drop: []string{"ALL"}, Seccomp: "RuntimeDefault", CPU: "200m", Memory: "64Mi",
}

// sidecarPatch and sidecarExample are below the root of the repository.
const (
	sidecarPatch   = "manifests/sidecar/patches/kube-apiserver+strategic.yaml"
	sidecarExample = "manifests/sidecar/kube-apiserver.yaml"
	kubeadmOverlay = "manifests/kustomize/overlays/kubeadm"
)

// TestImageRights wants the same rights and limits in all manifests: the tests of the image run with them.
func TestImageRights(t *testing.T) {
	for _, source := range []string{kubeadmOverlay, sidecarPatch, sidecarExample} {
		t.Run(source, func(t *testing.T) {
			if got := readRights(t, t.Context(), source); !reflect.DeepEqual(got, wantRights) {
				t.Errorf("got  %+v\nwant %+v", got, wantRights)
			}
		})
	}
}

// podSpec is what is read of the specification of a pod.
type podSpec struct{ InitContainers, Containers []containerSpec }

type containerSpec struct {
	Name            string
	Resources       struct{ Limits struct{ CPU, Memory string } }
	SecurityContext *struct {
		RunAsUser, RunAsGroup                                                      *int
		RunAsNonRoot, Privileged, AllowPrivilegeEscalation, ReadOnlyRootFilesystem *bool
		Capabilities                                                               struct{ Add, Drop []string }
		SeccompProfile                                                             struct{ Type string }
	}
}

// readRights gives the rights of the container auditferry in a manifest below the root of the repository, or in what an overlay
// is built to. Whatever is left to a default of Kubernetes is a fault.
func readRights(t *testing.T, ctx context.Context, source string) rights {
	t.Helper()
	for _, object := range readObjects(t, ctx, source) {
		var workload struct {
			Spec struct {
				podSpec
				Template struct{ Spec podSpec }
			}
		}
		if err := json.Unmarshal(object, &workload); err != nil {
			continue // of another kind
		}
		pod, template := workload.Spec, workload.Spec.Template.Spec
		for _, c := range slices.Concat(pod.InitContainers, pod.Containers, template.InitContainers, template.Containers) {
			if c.Name != "auditferry" {
				continue
			}
			s := c.SecurityContext
			if s == nil || s.RunAsUser == nil || s.RunAsGroup == nil || s.RunAsNonRoot == nil || s.Privileged == nil ||
				s.AllowPrivilegeEscalation == nil || s.ReadOnlyRootFilesystem == nil {
				t.Fatalf("%s does not say all of its securityContext: %s", source, object)
			}
			return rights{
				RunAsUser: *s.RunAsUser, RunAsGroup: *s.RunAsGroup, RunAsNonRoot: *s.RunAsNonRoot, Privileged: *s.Privileged,
				MayGain: *s.AllowPrivilegeEscalation, ReadOnly: *s.ReadOnlyRootFilesystem,
				Drop: s.Capabilities.Drop, Add: s.Capabilities.Add, Seccomp: s.SeccompProfile.Type,
				CPU: c.Resources.Limits.CPU, Memory: c.Resources.Limits.Memory,
			}
		}
	}
	t.Fatalf("%s has no container auditferry", source)
	return rights{}
}

// readObjects gives the objects of a manifest, or of what `kubectl kustomize` makes of a directory, as JSON.
func readObjects(t *testing.T, ctx context.Context, source string) [][]byte {
	t.Helper()
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, source)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	var text []byte
	if info.IsDir() {
		kubectl, binaryErr := rig.Binary("kubectl")
		if binaryErr != nil {
			t.Fatal(binaryErr)
		}
		text, err = exec.CommandContext(ctx, kubectl, "kustomize", path).Output()
	} else {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		t.Fatalf("reading %s: %v", source, err)
	}
	return yamlObjects(t, text)
}

// yamlObjects gives the documents of a YAML stream as JSON, whose decoder does not mind the case of names.
func yamlObjects(t *testing.T, text []byte) [][]byte {
	t.Helper()
	var objects [][]byte
	for _, document := range strings.Split(string(text), "\n---\n") {
		var object map[string]any
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			t.Fatal(err)
		}
		encoded, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, encoded)
	}
	return objects
}

// dockerFlags gives what makes `docker run` give a container the same. RuntimeDefault is Docker's own default.
func (r rights) dockerFlags(t *testing.T) []string {
	t.Helper()
	if r.Privileged || r.MayGain || r.Seccomp != "RuntimeDefault" {
		t.Fatalf("Docker is not told how to run with %+v", r)
	}
	millis, err := strconv.Atoi(strings.TrimSuffix(r.CPU, "m"))
	if err != nil || !strings.HasSuffix(r.CPU, "m") {
		t.Fatalf("the limit of cpu is %q, want so many m", r.CPU)
	}
	mebi, err := strconv.Atoi(strings.TrimSuffix(r.Memory, "Mi"))
	if err != nil || !strings.HasSuffix(r.Memory, "Mi") {
		t.Fatalf("the limit of memory is %q, want so many Mi", r.Memory)
	}
	flags := []string{
		fmt.Sprintf("--user=%d:%d", r.RunAsUser, r.RunAsGroup), "--security-opt=no-new-privileges", fmt.Sprintf("--read-only=%v", r.ReadOnly),
		fmt.Sprintf("--cpus=%g", float64(millis)/1000), fmt.Sprintf("--memory=%dm", mebi), fmt.Sprintf("--memory-swap=%dm", mebi),
	}
	for _, name := range r.Drop {
		flags = append(flags, "--cap-drop="+name)
	}
	for _, name := range r.Add {
		flags = append(flags, "--cap-add="+name)
	}
	return flags
}
