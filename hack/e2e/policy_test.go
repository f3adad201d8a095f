//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

var (
	controllerManager = rig.User{Name: "system:kube-controller-manager", Token: "controller-manager-token"}
	kubeProxy         = rig.User{Name: "system:serviceaccount:kube-system:kube-proxy", Token: "proxy-token", Groups: []string{"system:serviceaccounts:kube-system"}}
)

const (
	secrets       = "/api/v1/namespaces/default/secrets"
	rbac          = "/apis/rbac.authorization.k8s.io/v1"
	coreEvents    = "/api/v1/namespaces/default/events"
	systemLeases  = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
	nodeLeases    = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
	robotToken    = "/api/v1/namespaces/default/serviceaccounts/robot/token"
	coreEventBody = `{"metadata":{"name":"e1"},"involvedObject":{"kind":"Pod","namespace":"default","name":"p"},"reason":"Started"}`
)

// audited is a request and what the policy is to make of it.
type audited struct {
	request
	level string // None: no event at all
	bodies
}

// bodies says which bodies are in the last event of a request.
type bodies struct{ request, response bool }

var (
	asked    = bodies{request: true}
	answered = bodies{request: true, response: true}
)

// policyRequests are typical requests. MARK stands for a text that must not be in the log where the level is Metadata.
var policyRequests = []audited{
	{send("POST", secrets, admin, `{"metadata":{"name":"s"},"stringData":{"password":"MARK"}}`)(0), "Metadata", bodies{}},
	{send("PATCH", secrets+"/s", admin, `{"stringData":{"password":"MARK-2"}}`, "Content-Type", "application/merge-patch+json")(0), "Metadata", bodies{}},
	{call("GET", secrets+"/s", admin)(0), "Metadata", bodies{}},
	{call("GET", secrets, admin)(0), "Metadata", bodies{}},
	{call("GET", secrets+"?watch=1&timeoutSeconds=1", admin)(0), "Metadata", bodies{}},
	{call("GET", secrets+"/s", kubelet)(0), "Metadata", bodies{}},
	{call("GET", secrets, kubeProxy)(0), "Metadata", bodies{}},
	{send("POST", configMaps, admin, `{"metadata":{"name":"c"},"data":{"password":"MARK"}}`)(0), "Metadata", bodies{}},
	{call("GET", configMaps+"/c", admin)(0), "Metadata", bodies{}},
	{send("POST", "/apis/authentication.k8s.io/v1/tokenreviews", admin, `{"spec":{"token":"MARK-token"}}`)(0), "Metadata", bodies{}},
	{send("POST", "/apis/authentication.k8s.io/v1/tokenreviews", kubelet, `{"spec":{"token":"MARK-token"}}`)(0), "Metadata", bodies{}},
	{send("POST", "/api/v1/namespaces/default/serviceaccounts", admin, `{"metadata":{"name":"robot"}}`)(0), "Request", asked},
	{send("POST", robotToken, admin, `{"spec":{}}`)(0), "Metadata", bodies{}},

	{call("GET", "/healthz", rig.User{})(0), "None", bodies{}},
	{call("GET", "/livez/etcd", rig.User{})(0), "None", bodies{}},
	{call("GET", "/readyz?verbose", admin)(0), "None", bodies{}},
	{call("POST", "/healthz", rig.User{})(0), "Metadata", bodies{}},
	{call("GET", "/healthz-of-mine", bob)(0), "Metadata", bodies{}},
	{call("GET", "/version", rig.User{})(0), "Metadata", bodies{}},
	{call("GET", "/metrics", bob)(0), "Metadata", bodies{}},

	{send("POST", systemLeases, controllerManager, `{"metadata":{"name":"kube-controller-manager"}}`)(0), "Metadata", bodies{}},
	{send("PUT", systemLeases+"/kube-controller-manager", controllerManager, `{"metadata":{"name":"kube-controller-manager","resourceVersion":"1"}}`)(0), "None", bodies{}},
	{call("GET", systemLeases+"/kube-controller-manager", controllerManager)(0), "None", bodies{}},
	{send("PUT", systemLeases+"/kube-controller-manager", bob, `{"metadata":{"name":"kube-controller-manager","resourceVersion":"1"}}`)(0), "Metadata", bodies{}},
	{call("DELETE", systemLeases+"/kube-controller-manager", controllerManager)(0), "Metadata", bodies{}},
	{send("PUT", nodeLeases+"/worker-1", kubelet, `{"metadata":{"name":"worker-1"}}`)(0), "None", bodies{}},
	{send("PUT", systemLeases+"/kube-scheduler", kubelet, `{"metadata":{"name":"kube-scheduler"}}`)(0), "Metadata", bodies{}},

	{send("POST", coreEvents, kubelet, coreEventBody)(0), "None", bodies{}},
	{send("POST", coreEvents, kubeProxy, coreEventBody)(0), "None", bodies{}},
	{send("POST", coreEvents, controllerManager, coreEventBody)(0), "None", bodies{}},
	{send("POST", coreEvents, bob, coreEventBody)(0), "Metadata", bodies{}},
	{call("DELETE", coreEvents, admin)(0), "Metadata", bodies{}},
	{call("DELETE", coreEvents+"/e1", kubelet)(0), "Metadata", bodies{}},

	{call("GET", "/api/v1/services?watch=1&timeoutSeconds=1", kubeProxy)(0), "None", bodies{}},
	{call("GET", "/api/v1/services", kubeProxy)(0), "Metadata", bodies{}},
	{call("GET", "/api/v1/pods?watch=1&timeoutSeconds=1", kubeProxy)(0), "Metadata", bodies{}},
	{call("GET", "/api/v1/nodes/worker-1", kubelet)(0), "None", bodies{}},
	{call("GET", "/api/v1/nodes", kubelet)(0), "Metadata", bodies{}},
	{call("GET", "/api/v1/nodes/worker-1/proxy/pods", kubelet)(0), "Request", bodies{}},
	{call("GET", "/api/v1/namespaces/default/endpoints/kubernetes", admin, "Impersonate-User", "system:apiserver")(0), "Metadata", bodies{}},

	{send("POST", rbac+"/clusterroles", admin, `{"metadata":{"name":"r"},"rules":[{"apiGroups":[""],"verbs":["*"],"resources":["pods"]}]}`)(0), "RequestResponse", answered},
	{send("POST", rbac+"/namespaces/default/rolebindings", admin, `{"metadata":{"name":"b"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"r"},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"bob"}]}`)(0), "RequestResponse", answered},
	{send("POST", rbac+"/namespaces/default/rolebindings", bob, `{"metadata":{"name":"b2"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"}}`)(0), "RequestResponse", bodies{response: true}},
	{call("DELETE", rbac+"/namespaces/default/rolebindings/b", admin)(0), "RequestResponse", bodies{response: true}},
	{call("GET", rbac+"/clusterroles", admin)(0), "Metadata", bodies{}},
	{send("POST", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", admin, `{"metadata":{"name":"w"}}`)(0), "RequestResponse", answered},

	{call("POST", pods+"/missing/exec?command=sh&stdin=true&stdout=true", admin)(0), "Request", bodies{}},
	{call("GET", pods+"/missing/exec?command=sh&stdin=true&stdout=true", admin, "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13",
		"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol", "v5.channel.k8s.io")(0), "Request", bodies{}},
	{call("POST", pods+"/missing/attach?stdout=true", admin)(0), "Request", bodies{}},
	{call("GET", pods+"/missing/portforward", admin)(0), "Request", bodies{}},
	{call("GET", "/api/v1/namespaces/default/services/web/proxy/x", bob)(0), "Request", bodies{}},

	{send("POST", pods, admin, podBody("p"))(0), "Request", asked},
	{send("PATCH", pods+"/p/ephemeralcontainers", admin, `{"spec":{"ephemeralContainers":[{"name":"d","image":"i"}]}}`, "Content-Type", "application/strategic-merge-patch+json")(0), "Request", asked},
	{call("GET", pods+"/p", admin)(0), "Metadata", bodies{}},
	{send("PATCH", pods+"/p/status", admin, `{"status":{"reason":"x"}}`, "Content-Type", "application/merge-patch+json")(0), "Metadata", bodies{}},
	{send("POST", "/api/v1/namespaces", admin, `{"metadata":{"name":"n","labels":{"pod-security.kubernetes.io/enforce":"privileged"}}}`)(0), "Request", asked},
	{send("POST", "/apis/apps/v1/namespaces/default/deployments", admin, deploymentBody)(0), "Metadata", bodies{}},
	{send("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", bob, `{"spec":{"resourceAttributes":{"verb":"get","resource":"secrets"}}}`)(0), "Metadata", bodies{}},
}

// TestPolicy lets a real kube-apiserver run with the policy of manifests/policy, and compares its audit log with what the policy
// says of itself.
func TestPolicy(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	policy, err := os.ReadFile(filepath.Join(root, "manifests", "policy", "audit-policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	mark := fmt.Sprintf("mark-%x", rand.Uint64())
	reviewed := rig.User{Name: "reviewed", Token: mark + "-token"}
	cluster := &rig.Cluster{
		Dir: subDir(t, workDir(t), "cluster"), Policy: policy,
		Users: []rig.User{bob, kubelet, controllerManager, kubeProxy, reviewed},
	}
	startCluster(t, ctx, cluster)
	client := httpClient(t, cluster)
	never := []string{mark, base64.StdEncoding.EncodeToString([]byte(mark))}
	for i, r := range policyRequests {
		r.body = strings.ReplaceAll(r.body, "MARK", mark)
		answer := ask(t, ctx, client, cluster.URL(), r.request, auditID(i))
		if r.path == robotToken {
			never = append(never, tokenIn(t, answer))
		}
	}
	if err := cluster.Stop(); err != nil {
		t.Fatal(err)
	}
	log := readAudited(t, cluster.AuditLog(), never)
	for i, r := range policyRequests {
		log.judge(t, auditID(i), r)
	}
	if len(log.events[""]) == 0 || log.bytes == 0 {
		t.Error("kube-apiserver has written nothing of its own: the log is not what it seems")
	}
	fmt.Printf("policy: %d requests, %d events of other requests, %d bytes\n", len(policyRequests), len(log.events[""]), log.bytes)
}

func auditID(i int) string { return fmt.Sprintf("policy-%d", i) }

// ask sends a request under an audit ID of its own and gives the answer. A 5xx or a 415 would mean that the request is not what it
// is meant to be.
func ask(t *testing.T, ctx context.Context, client *http.Client, url string, r request, id string) []byte {
	t.Helper()
	req, err := r.to(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Audit-ID", id)
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode == http.StatusUnsupportedMediaType || res.StatusCode == http.StatusUnprocessableEntity {
		t.Fatalf("%s %s: %s %s (%v)", r.method, r.path, res.Status, answer, err)
	}
	return answer
}

// tokenIn gives the token of a TokenRequest's answer.
func tokenIn(t *testing.T, answer []byte) string {
	t.Helper()
	var request struct{ Status struct{ Token string } }
	if err := json.Unmarshal(answer, &request); err != nil || len(request.Status.Token) < 100 {
		t.Fatalf("no token was issued: %.300s (%v)", answer, err)
	}
	return request.Status.Token
}

// auditedEvent is what is compared of an event.
type auditedEvent struct {
	AuditID, Level, Stage, RequestURI, Verb string
	User                                    struct{ Username string }
	ObjectRef                               struct{ Resource, Name string }
	RequestObject, ResponseObject           json.RawMessage
}

// auditedLog holds the events of an audit log by the audit ID that the test gave, and the others under "".
type auditedLog struct {
	events map[string][]auditedEvent
	bytes  int
}

// readAudited reads an audit log. None of its lines may hold one of the texts, have the stage RequestReceived or managedFields, or
// be noise of the apiserver's own.
func readAudited(t *testing.T, auditLog string, never []string) auditedLog {
	t.Helper()
	log := auditedLog{events: map[string][]auditedEvent{}}
	auditLines(t, auditLog, func(file string, line []byte) {
		log.bytes += len(line) + 1
		for _, text := range never {
			if bytes.Contains(line, []byte(text)) {
				t.Errorf("%s holds %.40s…, which is secret: %.300s", file, text, line)
			}
		}
		if bytes.Contains(line, []byte(`"managedFields"`)) {
			t.Errorf("managedFields in %.300s", line)
		}
		var e auditedEvent
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		if e.Stage == "RequestReceived" || e.Level == "None" {
			t.Errorf("an event of level %s and stage %s: %.300s", e.Level, e.Stage, line)
		}
		id := e.AuditID
		if !strings.HasPrefix(id, "policy-") {
			id = ""
			if e.noise() {
				t.Errorf("noise: %.300s", line)
			}
		}
		log.events[id] = append(log.events[id], e)
	})
	return log
}

// noise reports whether an event is of those that an idle kube-apiserver writes every few seconds, or of a probe.
func (e auditedEvent) noise() bool {
	own := e.User.Username == "system:apiserver" && e.Verb == "get"
	return strings.HasPrefix(e.RequestURI, "/readyz") || own && e.ObjectRef.Name == "kubernetes" || own && e.RequestURI == "/openapi/v3" ||
		e.ObjectRef.Resource == "leases" && slices.Contains([]string{"get", "update"}, e.Verb)
}

// judge compares the events of one request with what the policy is to make of it.
func (l auditedLog) judge(t *testing.T, id string, want audited) {
	t.Helper()
	events := l.events[id]
	what := fmt.Sprintf("%s %s by %q", want.method, want.path, want.token)
	if want.level == "None" {
		if len(events) > 0 {
			t.Errorf("%s: is in the log at level %s, want none", what, events[0].Level)
		}
		return
	}
	if len(events) == 0 {
		t.Errorf("%s: is not in the log, want it at level %s", what, want.level)
		return
	}
	for _, e := range events {
		if e.Level != want.level {
			t.Errorf("%s: level %s at stage %s, want %s", what, e.Level, e.Stage, want.level)
		}
	}
	last := events[len(events)-1]
	if got := (bodies{len(last.RequestObject) > 0, len(last.ResponseObject) > 0}); got != want.bodies {
		t.Errorf("%s: bodies (request, response) %v, want %v; %+v", what, got, want.bodies, last.Stage)
	}
}
