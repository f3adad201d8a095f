//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/auditferry/auditferry/hack/rig"
)

// request is one call of the API. An empty token is anonymous.
type request struct {
	method, path, token, body string
	header                    map[string]string
}

var (
	admin   = rig.Admin
	alice   = rig.User{Name: "alice", Token: "alice-token", Groups: []string{"dev"}} // may do anything to ConfigMaps, Pods, Deployments
	bob     = rig.User{Name: "bob", Token: "bob-token"}                              // may nothing
	zoe     = rig.User{Name: "zoë 東京 \"quoted\" \u2028🦆", Token: "zoe-token", Groups: []string{"dev"}}
	nasty   = rig.User{Name: "line\nbreak\x1b[31m\t<&>", Token: "nasty-token"}
	long    = rig.User{Name: strings.Repeat("lång", 750), Token: "long-token", Groups: []string{"dev"}}
	kubelet = rig.User{Name: "system:node:worker-1", Token: "kubelet-token", Groups: []string{"system:nodes"}}
	robot   = rig.User{Name: "system:serviceaccount:default:robot", Token: "robot-token", Groups: []string{"system:serviceaccounts"}}
	users   = []rig.User{alice, bob, zoe, nasty, long, kubelet, robot}
)

const (
	widgetGroup = "e2e.example.com"
	widgets     = "/apis/" + widgetGroup + "/v1/namespaces/default/widgets"
	configMaps  = "/api/v1/namespaces/default/configmaps"
	bigMaps     = "/api/v1/namespaces/requested/configmaps" // audited without the response
	pods        = "/api/v1/namespaces/default/pods"
)

// setup is what must be there before the rest. All of it must succeed.
var setup = []request{
	{method: "POST", path: "/api/v1/namespaces", token: admin.Token, body: `{"metadata":{"name":"requested"}}`},
	{method: "POST", path: "/apis/rbac.authorization.k8s.io/v1/clusterroles", token: admin.Token,
		body: `{"metadata":{"name":"dev"},"rules":[{"apiGroups":["","apps"],"verbs":["*"],"resources":["configmaps","pods","pods/*","deployments","deployments/scale"]}]}`},
	{method: "POST", path: "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", token: admin.Token,
		body: `{"metadata":{"name":"dev"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"dev"},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"Group","name":"dev"}]}`},
	{method: "POST", path: "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", token: admin.Token,
		body: `{"metadata":{"name":"widgets.` + widgetGroup + `"},"spec":{"group":"` + widgetGroup + `","scope":"Namespaced","names":{"plural":"widgets","singular":"widget","kind":"Widget"},` +
			`"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}]}}`},
	{method: "POST", path: pods, token: admin.Token, body: podBody("standing")},
	{method: "POST", path: "/apis/apps/v1/namespaces/default/deployments", token: admin.Token, body: deploymentBody},
	{method: "POST", path: "/api/v1/namespaces/default/serviceaccounts", token: admin.Token, body: `{"metadata":{"name":"robot"}}`},
}

const deploymentBody = `{"metadata":{"name":"web"},"spec":{"replicas":1,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`

func podBody(name string) string {
	return `{"metadata":{"name":"` + name + `"},"spec":{"containers":[{"name":"c","image":"i"}]}}`
}

// call gives a request without a body that is the same each time.
func call(method, path string, user rig.User, header ...string) func(int) request {
	r := request{method: method, path: path, token: user.Token, header: map[string]string{}}
	for i := 0; i+1 < len(header); i += 2 {
		r.header[header[i]] = header[i+1]
	}
	return func(int) request { return r }
}

// send gives a request with a body; %d in path and body is a small number, so that names meet and conflict.
func send(method, path string, user rig.User, body string, header ...string) func(int) request {
	return func(n int) request {
		r := call(method, strings.ReplaceAll(path, "%d", fmt.Sprint(n)), user, header...)(n)
		r.body = strings.ReplaceAll(body, "%d", fmt.Sprint(n))
		return r
	}
}

const unicodeData = `{"metadata":{"name":"u%d","annotations":{"näme":"🦆 <b>&\u0007\u2028"}},"data":{"k":"{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"stage\":\"Panic\"}\n…東京"}}`

var small = []func(int) request{
	send("POST", configMaps, alice, unicodeData),
	send("POST", configMaps, zoe, unicodeData),
	send("PUT", configMaps+"/u%d", zoe, unicodeData),
	send("PATCH", configMaps+"/u%d", alice, `{"data":{"verb":"patched","user":"x"}}`, "Content-Type", "application/merge-patch+json"),
	send("PATCH", configMaps+"/applied%d?fieldManager=m", alice, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"applied%d"},"data":{"a":"é"}}`, "Content-Type", "application/apply-patch+yaml"),
	send("PATCH", configMaps+"/u%d", alice, `[{"op":"add","path":"/data/x","value":"y"}]`, "Content-Type", "application/json-patch+json"),
	send("DELETE", configMaps+"/u%d", alice, ""),
	call("DELETE", configMaps+"?labelSelector=a%3Db", alice),
	send("GET", configMaps+"/u%d", zoe, ""),
	call("GET", configMaps+"?limit=2", alice),
	call("GET", configMaps, bob),
	call("GET", "/api/v1/secrets", bob),
	call("GET", "/api/v1/nodes", nasty),
	call("GET", configMaps+"?limit=1", long),
	call("GET", "/api/v1/nodes/worker-1", kubelet),
	send("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/worker-1", kubelet, `{"metadata":{"name":"worker-1"}}`),
	call("GET", "/apis/batch/v1/jobs", robot),
	call("GET", configMaps+"/%C3%BCn%C3%AF%20%E6%9D%B1", alice),
	call("GET", pods+"/a%0Ab%00%22c", alice),
	call("GET", "/api/v1/made-up-res%20ource%22x", admin),
	call("GET", "/apis/no.such.group/v1/things", admin),
	call("GET", "/api/v1/namespaces/default/apps/deployments", bob),
	call("GET", "/api/v1/namespaces/..%2f..%2fx/pods", bob),
	call("GET", "/healthz", rig.User{}),
	call("GET", "/version", rig.User{}),
	call("GET", "/api/v1/pods", rig.User{}),
	call("GET", "/metrics", bob),
	call("GET", "/made/up%0Apath?a=%00&b=<>&c="+strings.Repeat("%26", 800), admin),
	call("GET", "/api/v1/pods", rig.User{Token: "not-a-token"}),
	call("BREW", pods, alice),
	call("BREW", "/coffee", alice),
	call("PROPFIND", pods, bob),
	call("OPTIONS", pods, alice),
	call("HEAD", pods+"/standing", alice),
	call("TRACE", "/version", rig.User{}),
	call("POST", pods+"/standing/exec?command=sh&stdout=true", alice),
	call("GET", pods+"/standing/log", alice),
	call("POST", pods+"/standing/made-up-subresource", alice),
	call("GET", pods, alice, "Audit-ID", `"not unique" {"kind":"Event"} ü`),
	call("GET", pods, admin, "Impersonate-User", "somebody else", "Impersonate-Group", "dev"),
	call("GET", pods, alice, "Impersonate-User", "admin"),
	call("GET", pods, alice, "User-Agent", `agent "quoted" \ 東京`, "X-Forwarded-For", "203.0.113.7, 198.51.100.1"),
	send("POST", pods, alice, podBody("p%d")),
	send("DELETE", pods+"/p%d?gracePeriodSeconds=0", alice, ""),
	send("POST", pods+"/p%d/eviction", admin, `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"p%d"}}`),
	send("POST", pods, alice, `{"metadata":{"name":"UPPER not legal"},"spec":{}}`),
	send("POST", pods, alice, `{"not json`),
	send("PATCH", "/apis/apps/v1/namespaces/default/deployments/web/scale", alice, `{"spec":{"replicas":%d}}`, "Content-Type", "application/merge-patch+json"),
	send("POST", widgets, admin, `{"apiVersion":"`+widgetGroup+`/v1","kind":"Widget","metadata":{"name":"w%d"},"spec":{"resource":"x"}}`),
	call("GET", widgets, admin),
	call("GET", widgets, bob),
	send("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", bob, `{"spec":{"resourceAttributes":{"verb":"get","resource":"pods"}}}`),
	send("POST", "/apis/authentication.k8s.io/v1/tokenreviews", admin, `{"spec":{"token":"bob-token"}}`),
	send("POST", "/api/v1/namespaces/default/serviceaccounts/robot/token", admin, `{"spec":{}}`),
}

// big are the requests with large bodies: 500 KB where the policy logs the request alone, 300 KB where it logs the response
// too, since a line over 1 MB would not reach the file.
var big = []func(int) request{
	sendBig("POST", bigMaps, 500<<10),
	sendBig("PUT", bigMaps+"/big%d", 500<<10),
	sendBig("POST", configMaps, 300<<10),
	sendBig("PUT", configMaps+"/big%d", 300<<10),
	send("GET", configMaps+"/big%d", alice, ""),
	send("DELETE", configMaps+"/big%d", alice, ""),
	send("DELETE", bigMaps+"/big%d", alice, ""),
}

// sendBig gives a ConfigMap of about size bytes that is another each time.
func sendBig(method, path string, size int) func(int) request {
	return func(n int) request {
		body := fmt.Sprintf(`{"metadata":{"name":"big%d"},"data":{"k":"`, n) + noise(size) + `"}}`
		return request{method: method, path: strings.ReplaceAll(path, "%d", fmt.Sprint(n)), token: alice.Token, body: body}
	}
}

// noise gives about size bytes of text that does not compress to nothing.
func noise(size int) string {
	var b strings.Builder
	for b.Len() < size {
		fmt.Fprintf(&b, "ключ-%x;", rand.Uint64())
	}
	return b.String()
}

var watches = []request{
	{method: "GET", path: configMaps + "?watch=1&timeoutSeconds=2", token: alice.Token},
	{method: "GET", path: "/apis/apps/v1/deployments?watch=1&timeoutSeconds=1", token: zoe.Token},
	{method: "GET", path: "/api/v1/secrets?watch=1&timeoutSeconds=1", token: bob.Token},
	{method: "GET", path: widgets + "?watch=1&timeoutSeconds=1", token: admin.Token},
}

// kubectlManifest is what the kubectl commands apply: MANIFEST.
const kubectlManifest = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"from-kubectl"},"data":{"ключ.txt":"значение"}}`

// commands are run by kubectl in turn.
var commands = []struct{ token, line string }{
	{alice.Token, "apply -f MANIFEST"},
	{alice.Token, "get configmaps,pods,deployments"},
	{bob.Token, "get pods --all-namespaces"},
	{alice.Token, "apply --server-side --force-conflicts -f MANIFEST"},
	{alice.Token, "exec standing -- sh"},
	{alice.Token, "logs standing"},
	{admin.Token, "auth can-i --list --as=alice --as-group=dev"},
	{zoe.Token, "scale deployment web --replicas=2"},
	{zoe.Token, "annotate configmap from-kubectl --overwrite note=東京"},
	{admin.Token, "get --raw /readyz?verbose"},
	{bob.Token, "get --raw /metrics"},
	{admin.Token, "create token robot"},
	{alice.Token, "port-forward standing 18080:80 --pod-running-timeout=1s"},
	{admin.Token, "get widgets -o yaml"},
	{alice.Token, "delete -f MANIFEST"},
	{"no-such-token", "get pods"},
	{admin.Token, "cordon worker-1"},
}
