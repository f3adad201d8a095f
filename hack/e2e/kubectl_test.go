//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/auditferry/auditferry/hack/rig"
)

// kubectl is the program, as Admin of a cluster that runs, and with nothing of the user's own configuration.
type kubectl struct {
	binary, dir string
	cluster     []string // flags that name it
}

func newKubectl(t *testing.T, dir string, cluster *rig.Cluster) *kubectl {
	t.Helper()
	binary, err := rig.Binary("kubectl")
	if err != nil {
		t.Fatal(err)
	}
	return &kubectl{binary: binary, dir: subDir(t, dir, "kubectl"), cluster: []string{
		"--server=" + cluster.URL(), "--certificate-authority=" + cluster.CAFile(), "--token=" + rig.Admin.Token,
	}}
}

// run gives what kubectl prints on its standard output. Its error holds the standard error, and there is one if the server warned of
// anything.
func (k *kubectl) run(ctx context.Context, stdin string, args ...string) (string, error) {
	args = append(args, "--warnings-as-errors", "--cache-dir="+filepath.Join(k.dir, "cache"))
	if args[0] != "kustomize" {
		args = append(args, k.cluster...)
	}
	cmd := exec.CommandContext(ctx, k.binary, args...)
	cmd.Env = append(os.Environ(), "HOME="+k.dir, "KUBECONFIG="+filepath.Join(k.dir, "none"))
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", args[0], err, stderr.String())
	}
	return stdout.String(), nil
}

// must is run where nothing may go wrong.
func (k *kubectl) must(t *testing.T, ctx context.Context, stdin string, args ...string) string {
	t.Helper()
	out, err := k.run(ctx, stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// customResources are the definitions that manifests need beside what Kubernetes has, as files of the modules that hack/crds pins.
var customResources = map[string]string{
	"github.com/prometheus-operator/prometheus-operator": "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
	"github.com/openshift/api":                           "payload-manifests/crds/0000_03_config-operator_01_securitycontextconstraints.crd.yaml",
}

// installCustomResources makes the kube-apiserver know PodMonitor and SecurityContextConstraints.
func installCustomResources(t *testing.T, ctx context.Context, k *kubectl, root string) {
	t.Helper()
	for module, file := range customResources {
		cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module)
		cmd.Dir = filepath.Join(root, "hack", "crds")
		out, err := cmd.Output()
		var downloaded struct{ Dir, Error string }
		if jsonErr := json.Unmarshal(out, &downloaded); jsonErr != nil || downloaded.Dir == "" {
			t.Fatalf("downloading %s as hack/crds/go.mod says: %v: %s", module, err, downloaded.Error)
		}
		k.must(t, ctx, "", "create", "--filename="+filepath.Join(downloaded.Dir, filepath.FromSlash(file)))
	}
	k.must(t, ctx, "", "wait", "--for=condition=Established", "--timeout=1m", "--all", "customresourcedefinitions")
}
