package audit

import (
	"fmt"
	"strings"
	"testing"
	"unsafe"
)

// event builds a line out of what matters for labels.
func event(verb, user, ref, code string) []byte {
	return fmt.Appendf(nil, `{"verb":%s,"user":%s,"objectRef":%s,"responseStatus":{"code":%s}}`, verb, user, ref, code)
}

func TestLabels(t *testing.T) {
	const bob = `{"username":"bob"}`
	cases := []struct {
		name, verb, user, ref, code                  string
		wantVerb, wantUser, wantResource, wantFields string
	}{
		{"core", `"get"`, bob, `{"resource":"pods"}`, "403", "get", "bob", "pods", ""},
		{"subresource", `"create"`, bob, `{"resource":"pods","subresource":"exec"}`, "403", "create", "bob", "pods/exec", ""},
		{"group", `"list"`, bob, `{"apiGroup":"apps","resource":"deployments"}`, "403", "list", "bob", "apps/deployments", ""},
		{"all three", `"patch"`, bob, `{"apiGroup":"apps","resource":"deployments","subresource":"scale"}`, "0", "patch", "bob", "apps/deployments/scale", ""},
		{"non-resource", `"get"`, bob, `null`, "200", "get", "bob", "nonresource", ""},
		{"no resource in objectRef", `"get"`, bob, `{"name":"x"}`, "200", "get", "bob", "nonresource", ""},
		{"HTTP method", `"options"`, bob, `null`, "200", "options", "bob", "nonresource", ""},
		{"made-up verb", `"pwn"`, bob, `null`, "403", "other", "bob", "nonresource", "requested_verb=pwn"},
		{"upper case", `"GET"`, bob, `null`, "403", "other", "bob", "nonresource", "requested_verb=GET"},
		{"no verb", `""`, bob, `null`, "403", "other", "bob", "nonresource", ""},
		{"custom, refused", `"get"`, bob, `{"apiGroup":"x.io","resource":"things","subresource":"status"}`, "404", "get", "bob", "other", "requested_resource=x.io/things/status"},
		{"custom, not yet answered", `"get"`, bob, `{"apiGroup":"x.io","resource":"things"}`, "0", "get", "bob", "other", "requested_resource=x.io/things"},
		{"custom, served", `"get"`, bob, `{"apiGroup":"x.io","resource":"things"}`, "200", "get", "bob", "x.io/things", ""},
		{"custom, created", `"create"`, bob, `{"apiGroup":"x.io","resource":"things"}`, "299", "create", "bob", "x.io/things", ""},
		{"not an answer of the server's", `"get"`, bob, `{"apiGroup":"x.io","resource":"things"}`, "300", "get", "bob", "other", "requested_resource=x.io/things"},
		{"custom subresource of a builtin", `"get"`, bob, `{"resource":"pods","subresource":"pwn"}`, "404", "get", "bob", "other", "requested_resource=pods/pwn"},
		{"looks like a group", `"get"`, bob, `{"resource":"apps","subresource":"deployments"}`, "404", "get", "bob", "other", "requested_resource=apps/deployments"},
		{"slash", `"get"`, bob, `{"resource":"a/b"}`, "200", "get", "bob", "other", "requested_resource=a/b"},
		{"upper case resource", `"get"`, bob, `{"resource":"Pods"}`, "200", "get", "bob", "other", "requested_resource=Pods"},
		{"newline, NUL, quote", `"get"`, bob, `{"resource":"p\n\u0000\"s"}`, "200", "get", "bob", "other", "requested_resource=p\n\x00\"s"},
		{"hyphen first", `"get"`, bob, `{"resource":"-a"}`, "200", "get", "bob", "other", "requested_resource=-a"},
		{"dot last", `"get"`, bob, `{"resource":"a","subresource":"b."}`, "200", "get", "bob", "other", "requested_resource=a/b."},
		{"hyphen and dot within", `"get"`, bob, `{"apiGroup":"a-b.io","resource":"a-b"}`, "200", "get", "bob", "a-b.io/a-b", ""},
		{"dots", `"get"`, bob, `{"resource":".."}`, "200", "get", "bob", "other", "requested_resource=.."},
		{"no user", `"get"`, `{}`, `null`, "401", "get", "unauthenticated", "nonresource", ""},
		{"empty user", `"get"`, `{"username":""}`, `null`, "401", "get", "unauthenticated", "nonresource", ""},
		{"anonymous", `"get"`, `{"username":"system:anonymous"}`, `null`, "403", "get", "system:anonymous", "nonresource", ""},
		{"kubelet", `"get"`, `{"username":"system:node:n1"}`, `null`, "200", "get", "system:node", "nonresource", "username=system:node:n1"},
		{"service account", `"get"`, `{"username":"system:serviceaccount:a:b"}`, `null`, "200", "get", "system:serviceaccount:a:b", "nonresource", ""},
		{"nasty user", `"get"`, `{"username":"a\u001b\"\\\n\u202eb"}`, `null`, "200", "get", "a\x1b\"\\\n\u202eb", "nonresource", ""},
		{"user that Loki cannot hold", `"get"`, `{"username":"a\ufffdb\ud800"}`, `null`, "200", "get", "a?b?", "nonresource", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			line := event(c.verb, c.user, c.ref, c.code)
			got := newDescriber(t).Entry(line, before, earlier())
			if got.Verb != c.wantVerb || got.User != c.wantUser || got.Resource != c.wantResource || got.Malformed {
				t.Errorf("%q %q %q, want %q %q %q", got.Verb, got.User, got.Resource, c.wantVerb, c.wantUser, c.wantResource)
			}
			var fields []string
			for _, field := range got.Metadata {
				if strings.HasPrefix(field.Name, "requested_") || field.Name == "username" {
					fields = append(fields, field.Name+"="+string(field.Value))
				}
			}
			if strings.Join(fields, " ") != c.wantFields {
				t.Errorf("%q, want %q", fields, c.wantFields)
			}
			checkEntry(t, newDescriber(t), line)
		})
	}
}

// TestVerbs: what Kubernetes and HTTP know stays, in its own spelling only.
func TestVerbs(t *testing.T) {
	d := newDescriber(t)
	for _, verb := range strings.Fields("get list watch create update patch delete deletecollection head post put connect options trace") {
		for _, c := range []struct{ verb, want string }{{verb, verb}, {verb + "s", "other"}, {strings.ToUpper(verb), "other"}, {verb[1:], "other"}} {
			if got := d.Entry(event(`"`+c.verb+`"`, `{}`, `null`, "200"), before, earlier()).Verb; got != c.want {
				t.Errorf("%q: %q, want %q", c.verb, got, c.want)
			}
		}
	}
}

// TestStreamKeysAreDistinct: no length that a client can choose makes one event look like another in the cache.
func TestStreamKeysAreDistinct(t *testing.T) {
	d := newDescriber(t)
	more := strings.Repeat("x", 256)
	for _, c := range []struct{ user, ref, wantUser, want string }{
		{more + "bob", `{"resource":"pods"}`, more + "bob", "pods"},
		{"bob", `{"resource":"pods` + more + `"}`, "bob", "other"},
		{"bob", `{"resource":"pods","subresource":"exec"}`, "bob", "pods/exec"},
		{"bob", `{"resource":"podse","subresource":"xec"}`, "bob", "other"},
		{"execbob", `{"resource":"pods"}`, "execbob", "pods"},
		{"bob", `{"resource":"n"}`, "bob", "other"},
		{"bob", `null`, "bob", "nonresource"},
	} {
		got := d.Entry(event(`"get"`, `{"username":"`+c.user+`"}`, c.ref, "404"), before, earlier())
		if got.User != c.wantUser || got.Resource != c.want {
			t.Errorf("%.40s by %.10q: %.20q %.10q", c.ref, c.user, got.Resource, got.User)
		}
	}
}

func TestStreamText(t *testing.T) {
	d := newDescriber(t)
	got := d.Entry(event(`"get"`, `{"username":"b\"o\nb"}`, `{"resource":"pods"}`, "200"), before, earlier()).Stream
	const want = `{cluster="east", job="kube-apiserver-audit", node="cp-1", region="e\"u", resource="pods", service_name="kube-apiserver", user="b\"o\nb", verb="get"}`
	if got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	if got := d.Entry([]byte("x"), before, earlier()).Stream; !strings.Contains(got, `resource="malformed"`) {
		t.Error(got)
	}
}

func TestBuiltinResources(t *testing.T) {
	for _, c := range []struct {
		group, resource, subresource string
		want                         bool
	}{
		{"", "pods", "", true}, {"", "pods", "exec", true}, {"", "nodes", "proxy", true}, {"", "serviceaccounts", "token", true},
		{"apps", "deployments", "scale", true}, {"metrics.k8s.io", "pods", "", true}, {"coordination.k8s.io", "leases", "", true},
		{"flowcontrol.apiserver.k8s.io", "flowschemas", "status", true}, {"apiextensions.k8s.io", "customresourcedefinitions", "", true},
		{"authorization.k8s.io", "subjectaccessreviews", "", true}, {"resource.k8s.io", "resourceslices", "", true},
		{"", "exec", "", false}, {"", "deployments", "", false}, {"apps", "deployments", "exec", false}, {"", "", "", false},
	} {
		e := Event{APIGroup: []byte(c.group), Resource: []byte(c.resource), Subresource: []byte(c.subresource)}
		if got := builtin[string(appendResourceKey(nil, &e))]; got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	// The names are all ones that a server can have, and no line of the table is lost.
	for key := range builtin {
		group, resource := key[3:3+key[0]], key[3+key[0]:3+key[0]+key[1]]
		if !legalSegment([]byte(resource)) || group != "" && !legalSegment([]byte(group)) {
			t.Errorf("%q", key)
		}
	}
	if len(builtin) < 130 {
		t.Errorf("%d resources", len(builtin))
	}
}

// TestStreamsAreInterned: the same combination gives the very same string.
func TestStreamsAreInterned(t *testing.T) {
	d := newDescriber(t)
	line := event(`"get"`, `{"username":"bob"}`, `{"resource":"pods"}`, "200")
	first := d.Entry(line, before, earlier())
	d.Entry(event(`"list"`, `{"username":"bob"}`, `{"resource":"pods"}`, "200"), before, earlier())
	second := d.Entry(line, before, earlier())
	if unsafe.StringData(first.Stream) != unsafe.StringData(second.Stream) || unsafe.StringData(first.User) != unsafe.StringData(second.User) {
		t.Error("the string was made twice")
	}
}

func TestConfig(t *testing.T) {
	many := make(map[string]string)
	for i := range 9 {
		many[fmt.Sprintf("l%d", i)] = "x"
	}
	cases := []struct {
		name string
		cfg  Config
		want string // in the error; none if empty
	}{
		{"node", Config{Node: "n"}, ""},
		{"15 labels", Config{Node: "n", Static: many}, ""},
		{"16 labels", Config{Node: "n", Cluster: "c", Static: many}, "16 labels, of which 9 are yours and 3 are of the event (verb, user, resource)"},
		{"no node", Config{}, `"node": the value is empty`},
		{"UTF-8", Config{Node: "n", Static: map[string]string{"env": "prød"}}, ""},
		{"empty name", Config{Node: "n", Static: map[string]string{"": "x"}}, `"": a label needs a name`},
		{"digit first", Config{Node: "n", Static: map[string]string{"1a": "x"}}, `"1a"`},
		{"hyphen", Config{Node: "n", Static: map[string]string{"a-b": "x"}}, `"a-b"`},
		{"not ASCII", Config{Node: "n", Static: map[string]string{"ä": "x"}}, `"ä"`},
		{"reserved", Config{Node: "n", Static: map[string]string{"__x": "x"}}, `"__x"`},
		{"ours", Config{Node: "n", Static: map[string]string{"verb": "x"}}, `"verb"`},
		{"ours, if not set", Config{Node: "n", Static: map[string]string{"cluster": "x"}}, `"cluster"`},
		{"metadata", Config{Node: "n", Static: map[string]string{"namespace": "x"}}, `"namespace"`},
		{"empty value", Config{Node: "n", Static: map[string]string{"env": ""}}, `"env": the value is empty`},
		{"long value", Config{Node: "n", Static: map[string]string{"env": strings.Repeat("x", 2049)}}, `"env"`},
		{"not UTF-8", Config{Node: "\xff"}, `"node": the value is not UTF-8`},
		{"U+FFFD", Config{Node: "n", Cluster: "\ufffd"}, `"cluster"`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if err := c.cfg.Check(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
