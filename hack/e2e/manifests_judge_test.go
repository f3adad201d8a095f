//go:build e2e

package e2e

import (
	"context"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/auditferry/auditferry/hack/rig"
)

// Where pods have what.
const (
	configDir = "/etc/auditferry"
	lokiDir   = "/etc/auditferry-loki"
	stateDir  = "/var/lib/auditferry"
)

// reader is what the agent may where the audit log belongs to root; nothing else is set.
const reader = `
runAsUser: 0
runAsGroup: 0
runAsNonRoot: false
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
`

// owner is what it may where the audit log belongs to its own user.
const owner = `
runAsUser: 65534
runAsGroup: 65534
runAsNonRoot: true
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
`

// giver is what the init container may that makes the directory of the state for an agent that is not root.
const giver = `
runAsUser: 0
runAsGroup: 0
runAsNonRoot: false
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL], add: [CHOWN]}
seccompProfile: {type: RuntimeDefault}
`

// Rules of egress.
const (
	dnsEgress       = `{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}], ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]}`
	openShiftEgress = `{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: openshift-dns}}}], ports: [{protocol: UDP, port: 5353}, {protocol: TCP, port: 5353}]}`
	nodeDNSEgress   = `{to: [{ipBlock: {cidr: 169.254.25.10/32}}], ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]}`
	lokiEgress      = `{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: loki}}}], ports: [{protocol: TCP, port: 80}, {protocol: TCP, port: 8080}, {protocol: TCP, port: 3100}]}`
	outsideEgress   = `{to: [{ipBlock: {cidr: 192.0.2.10/32}}], ports: [{protocol: TCP, port: 443}]}`
)

// decided is what an overlay makes of the base.
type decided struct {
	logs            []string
	securityContext string
	prepares        bool // has the init container
	egress          []string
}

// overlays is also what users make of them.
var overlays = map[string]decided{
	"kubeadm": {[]string{"/var/log/kubernetes/audit/audit.log"}, reader, false, []string{dnsEgress, lokiEgress}},
	"k3s":     {[]string{"/var/lib/rancher/k3s/server/logs/audit.log"}, reader, false, []string{dnsEgress, lokiEgress}},
	"rke2":    {[]string{"/var/lib/rancher/rke2/server/logs/audit.log"}, reader, false, []string{dnsEgress, lokiEgress}},
	"openshift": {[]string{"/var/log/kube-apiserver/audit.log", "/var/log/openshift-apiserver/audit.log",
		"/var/log/oauth-apiserver/audit.log", "/var/log/oauth-server/audit.log"}, reader, false, []string{openShiftEgress, lokiEgress}},
	"talos":     {[]string{"/var/log/audit/kube/kube-apiserver.log"}, owner, true, []string{dnsEgress, lokiEgress}},
	"kubespray": {[]string{"/var/log/kubernetes/audit/kube-apiserver-audit.log"}, reader, false, []string{dnsEgress, lokiEgress, nodeDNSEgress}},
	"example":   {[]string{"/var/log/kubernetes/audit/audit.log"}, reader, false, []string{dnsEgress, outsideEgress}},
	"README":    {[]string{"/var/log/kubernetes/audit/audit.log"}, reader, false, []string{dnsEgress, lokiEgress}},
}

// judge finds what a kube-apiserver takes and what is wrong all the same: what the objects say to each other, and to the agent.
func judge(t *testing.T, ctx context.Context, dir string, document rendered) {
	t.Helper()
	name, _, _ := strings.Cut(filepath.Base(document.name), ",")
	name, component, _ := strings.Cut(name, "+")
	want, known := overlays[name]
	if !known {
		t.Fatalf("hack/e2e/manifests_judge_test.go does not say what %s should be", document.name)
	}
	all := objects(t, document.text)
	pod := at(t, one(t, all, "DaemonSet").all, "spec", "template", "spec")
	agent := named(t, pod["containers"], "auditferry")
	settings := judgeSettings(t, ctx, dir, all, pod, agent)
	if got := settings.AuditLogPath; !slices.Equal(got, want.logs) {
		t.Errorf("the audit logs are %q, want %q", got, want.logs)
	}
	judgeMounts(t, pod, agent, want.logs)
	same(t, "securityContext", agent["securityContext"], want.securityContext)
	var prepares any
	if want.prepares {
		prepare := named(t, pod["initContainers"], "prepare")
		same(t, "securityContext of the init container", prepare["securityContext"], giver)
		same(t, "args of the init container", prepare["args"], `[prepare, "--owner=65534:65534"]`)
		same(t, "volumeMounts of the init container", prepare["volumeMounts"], `[{name: state, mountPath: `+stateDir+`}]`)
		same(t, "image of the init container", prepare["image"], agent["image"].(string))
		prepares = pod["initContainers"]
	}
	ofPod := "null"
	if name == "openshift" || component == "selinux" {
		ofPod = "{seLinuxOptions: {type: spc_t}}"
	}
	same(t, "securityContext of the pod", pod["securityContext"], ofPod)
	for _, field := range []string{"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} {
		same(t, field, pod[field], "null")
	}
	if !reflect.DeepEqual(pod["initContainers"], prepares) || len(pod["containers"].([]any)) != 1 {
		t.Error("the pod has containers that nobody has decided on")
	}
	account := one(t, all, "ServiceAccount").all
	same(t, "service account", pod["serviceAccountName"], at(t, account, "metadata")["name"].(string))
	same(t, "token of the service account", account["automountServiceAccountToken"], "false")
	same(t, "token of the pod", pod["automountServiceAccountToken"], "false")
	policy := at(t, one(t, all, "NetworkPolicy").all, "spec")
	same(t, "egress", policy["egress"], "["+strings.Join(want.egress, ", ")+"]")
	same(t, "ingress", policy["ingress"], "[{ports: [{protocol: TCP, port: 9611}]}]")
	same(t, "policyTypes", policy["policyTypes"], "[Ingress, Egress]")
	if name == "openshift" {
		judgeConstraints(t, all)
	}
}

// settings are those of config.yaml that must agree with the pod.
type settings struct {
	AuditLogPath   oneOrMore `yaml:"audit-log-path"`
	LokiHTTPConfig string    `yaml:"loki-http-config"`
}

type oneOrMore []string

// UnmarshalYAML takes a word for a list of it.
func (o *oneOrMore) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		*o = oneOrMore{node.Value}
		return nil
	}
	return node.Decode((*[]string)(o))
}

// judgeSettings follows the pod to its ConfigMap and Secret, by the names that end in hashes, and lets the agent check what is there.
func judgeSettings(t *testing.T, ctx context.Context, dir string, all []object, pod, agent map[string]any) (found settings) {
	t.Helper()
	same(t, "args", agent["args"], "[--config="+configDir+"/config.yaml]")
	config := one(t, all, "ConfigMap").all
	secret := one(t, all, "Secret").all
	volume := named(t, pod["volumes"], "config")
	same(t, "name of the ConfigMap", at(t, volume, "configMap")["name"], at(t, config, "metadata")["name"].(string))
	volume = named(t, pod["volumes"], "loki")
	same(t, "name of the Secret", at(t, volume, "secret")["secretName"], at(t, secret, "metadata")["name"].(string))

	text := at(t, config, "data")["config.yaml"].(string)
	if err := yaml.Unmarshal([]byte(text), &found); err != nil {
		t.Fatal(err)
	}
	if want := lokiDir + "/http.yaml"; found.LokiHTTPConfig != want {
		t.Errorf("loki-http-config is %s, want %s", found.LokiHTTPConfig, want)
	}
	// On this machine, what the secret holds is elsewhere, and so is the state.
	files := map[string]string{"config.yaml": strings.ReplaceAll(text, lokiDir, dir)}
	for file, encoded := range at(t, secret, "data") {
		content, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(encoded.(string), "\n", ""))
		if err != nil {
			t.Fatal(err)
		}
		files[file] = strings.ReplaceAll(string(content), lokiDir, dir)
	}
	for file, content := range files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	binary, err := rig.Binary("auditferry")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, binary, "--config="+filepath.Join(dir, "config.yaml"), "--positions-file="+filepath.Join(dir, "positions.json"),
		"--check-config")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "the configuration is fine") {
		t.Errorf("the agent does not take its config.yaml: %v: %s", err, out)
	}
	return found
}

// judgeMounts compares all that is mounted with what the agent reads and writes.
func judgeMounts(t *testing.T, pod, agent map[string]any, logs []string) {
	t.Helper()
	want := map[string]any{ // by mountPath
		stateDir:  map[string]any{"hostPath": map[string]any{"path": stateDir, "type": "DirectoryOrCreate"}},
		configDir: "config",
		lokiDir:   "loki",
	}
	for _, log := range logs {
		// The directory at the same path, as rotation makes new files; and not made, as kube-apiserver's would be another's.
		want[filepath.Dir(log)] = map[string]any{"hostPath": map[string]any{"path": filepath.Dir(log), "type": "Directory"}}
	}
	mounts := agent["volumeMounts"].([]any)
	if len(mounts) != len(want) || len(pod["volumes"].([]any)) != len(want) {
		t.Errorf("%d mounts of %d volumes, want %d", len(mounts), len(pod["volumes"].([]any)), len(want))
	}
	for _, m := range mounts {
		mount := m.(map[string]any)
		path, name := mount["mountPath"].(string), mount["name"].(string)
		volume := map[string]any{}
		for key, value := range named(t, pod["volumes"], name) {
			if key != "name" {
				volume[key] = value
			}
		}
		if want[path] != any(name) && !reflect.DeepEqual(want[path], any(volume)) {
			t.Errorf("at %s there is %v, want %v", path, volume, want[path])
		}
		keys := map[string]any{"mountPath": path, "name": name}
		if path != stateDir {
			keys["readOnly"] = true
		}
		if !reflect.DeepEqual(mount, keys) {
			t.Errorf("it is mounted as %v, want %v", mount, keys)
		}
	}
}

// judgeConstraints follows the pods of OpenShift to their SecurityContextConstraints, and the right to use them.
func judgeConstraints(t *testing.T, all []object) {
	t.Helper()
	constraints := one(t, all, "SecurityContextConstraints")
	annotations := at(t, one(t, all, "DaemonSet").all, "spec", "template", "metadata", "annotations")
	same(t, "required-scc", annotations["openshift.io/required-scc"], constraints.Metadata.Name)
	same(t, "rules of the role", one(t, all, "Role").all["rules"], `[{apiGroups: [security.openshift.io],
		resources: [securitycontextconstraints], resourceNames: [`+constraints.Metadata.Name+`], verbs: [use]}]`)
	role, binding := one(t, all, "Role"), one(t, all, "RoleBinding")
	same(t, "roleRef", binding.all["roleRef"], "{apiGroup: rbac.authorization.k8s.io, kind: Role, name: "+role.Metadata.Name+"}")
	account := one(t, all, "ServiceAccount").Metadata
	same(t, "subjects", binding.all["subjects"], "[{kind: ServiceAccount, name: "+account.Name+", namespace: "+account.Namespace+"}]")
}

// same compares a value with one in YAML.
func same(t *testing.T, what string, got any, want string) {
	t.Helper()
	var parsed any
	if err := yaml.Unmarshal([]byte(want), &parsed); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if !reflect.DeepEqual(got, parsed) {
		t.Errorf("%s: %v, want %v", what, got, parsed)
	}
}

// one gives the only object of a kind.
func one(t *testing.T, all []object, kind string) object {
	t.Helper()
	var found []object
	for _, o := range all {
		if o.Kind == kind {
			found = append(found, o)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d objects are a %s, want 1", len(found), kind)
	}
	return found[0]
}

// named gives the element of a list that has a name.
func named(t *testing.T, list any, name string) map[string]any {
	t.Helper()
	elements, _ := list.([]any)
	for _, element := range elements {
		if element := element.(map[string]any); element["name"] == name {
			return element
		}
	}
	t.Fatalf("nothing is named %s in %v", name, list)
	return nil
}

// at gives the object in an object that a path of keys leads to.
func at(t *testing.T, in map[string]any, path ...string) map[string]any {
	t.Helper()
	for _, key := range path {
		inner, ok := in[key].(map[string]any)
		if !ok {
			t.Fatalf("there is no %s of %q", key, path)
		}
		in = inner
	}
	return in
}
