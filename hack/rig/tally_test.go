package rig

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

const testNode = "n1"

func testLine(i int, verb string) []byte {
	return fmt.Appendf(nil, `{"auditID":"id-%d","stage":"ResponseComplete","verb":%q,"stageTimestamp":"2026-11-23T20:33:05.%06dZ"}`, i, verb, i)
}

// testEntry gives the entry that line must be.
func testEntry(t *testing.T, line []byte) Entry {
	t.Helper()
	want, err := (&Oracle{Node: testNode}).Want(line)
	if err != nil {
		t.Fatal(err)
	}
	return Entry{Time: want.Time, Line: line, Labels: want.Labels, Metadata: want.Metadata}
}

func TestTally(t *testing.T) {
	tests := []struct {
		name    string
		change  func([]Entry) []Entry // of the ten right entries
		want    Result
		example string
	}{
		{"all there", func(e []Entry) []Entry { return e }, Result{InLoki: 10}, ""},
		{"missing", func(e []Entry) []Entry { return e[2:] }, Result{InLoki: 8, Missing: 2}, `missing "id-0" ResponseComplete`},
		{"repeated", func(e []Entry) []Entry { return append(e, e[4], e[4]) }, Result{InLoki: 12, Repeated: 2}, `repeated "id-4"`},
		{"altered", func(e []Entry) []Entry { e[3].Line = testLine(3, "get2"); return e }, Result{InLoki: 10, Missing: 1, Altered: 1}, `altered "id-3"`},
		{"extra", func(e []Entry) []Entry { return append(e, Entry{Line: testLine(77, "get")}) }, Result{InLoki: 11, Extra: 1}, `never written "id-77"`},
		{"extra, not an event", func(e []Entry) []Entry { return append(e, Entry{Line: []byte("x")}) }, Result{InLoki: 11, Extra: 1}, `never written ""`},
		{"timestamp", func(e []Entry) []Entry { e[5].Time = e[5].Time.Add(1); return e }, Result{InLoki: 10, WrongLabels: 1}, `"id-5" ResponseComplete 2026-11-23T20:33:05.000005Z: timestamp`},
		{"split by Loki", func(e []Entry) []Entry { e[5].Labels[shardLabel] = "2"; return e }, Result{InLoki: 10}, ""},
		{"label", func(e []Entry) []Entry { e[5].Labels["user"] = "u"; return e }, Result{InLoki: 10, WrongLabels: 1}, ": label user"},
		{"label missing", func(e []Entry) []Entry { delete(e[5].Labels, "node"); return e }, Result{InLoki: 10, WrongLabels: 1}, ": label node"},
		{"label too many", func(e []Entry) []Entry { e[5].Labels["x"] = "u"; return e }, Result{InLoki: 10, WrongLabels: 1}, ": label x (unexpected)"},
		{"metadata", func(e []Entry) []Entry { e[5].Metadata["stage"] = "Panic"; return e }, Result{InLoki: 10, WrongLabels: 1}, ": metadata stage"},
		{"many missing", func([]Entry) []Entry { return nil }, Result{Missing: 10}, `missing "id-2"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tally := NewTally(&Oracle{Node: testNode})
			var entries []Entry
			for i := range 10 {
				tally.Wrote(testLine(i, "get"))
				entries = append(entries, testEntry(t, testLine(i, "get")))
			}
			for _, reread := range []bool{false, true} {
				if reread {
					tally.Reread()
				}
				for _, e := range test.change(cloneEntries(entries)) {
					tally.Found(e)
				}
				got := tally.Result()
				examples := got.Examples
				got.Examples, test.want.Written = nil, 10
				if fmt.Sprint(got) != fmt.Sprint(test.want) || got.Extra != test.want.Extra {
					t.Errorf("got  %+v\nwant %+v", got, test.want)
				}
				if clean := test.example == ""; got.Clean() != clean {
					t.Errorf("clean is %t", got.Clean())
				}
				if !slices.ContainsFunc(append(examples, ""), func(s string) bool { return strings.Contains(s, test.example) }) {
					t.Errorf("no example holds %q: %q", test.example, examples)
				}
				if len(examples) > 2*examplesPerKind {
					t.Errorf("%d examples", len(examples))
				}
			}
		})
	}
}

// A line that is too long counts as found by what it was reduced to, with the labels of the whole, and not by itself.
func TestTallyReduced(t *testing.T) {
	body := `"` + strings.Repeat("x", 3000) + `"`
	const head, tail = `{"auditID":"a","stage":"ResponseComplete","verb":"get","requestObject":`, `,"stageTimestamp":"2026-11-23T20:33:05.000001Z"`
	whole := []byte(head + body + tail + "}")
	reduced := []byte(head + reducedBody + tail + `,"annotations":{"` + reducedNote + `":"` + reducedOf("requestObject", body) + `"}}`)
	for name, test := range map[string]struct {
		line []byte
		want Result
	}{
		"reduced":         {reduced, Result{Written: 1, InLoki: 1, Reduced: 1}},
		"whole":           {whole, Result{Written: 1, InLoki: 1, Missing: 1, Altered: 1}},
		"reduced wrongly": {bytes.Replace(reduced, []byte("3002 bytes"), []byte("3003 bytes"), 1), Result{Written: 1, InLoki: 1, Missing: 1, Altered: 1}},
		"another event":   {bytes.Replace(reduced, []byte(`"a"`), []byte(`"b"`), 1), Result{Written: 1, InLoki: 1, Missing: 1, Extra: 1}},
	} {
		tally := NewTally(&Oracle{Node: testNode})
		tally.MaxLine = 1000
		tally.Wrote(whole)
		entry := testEntry(t, whole)
		entry.Line = test.line
		tally.Found(entry)
		got := tally.Result()
		got.Examples = nil
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", test.want) || got.Clean() != (name == "reduced") {
			t.Errorf("%s: got %+v, want %+v", name, got, test.want)
		}
	}
}

func cloneEntries(entries []Entry) []Entry {
	clones := slices.Clone(entries)
	for i := range clones {
		clones[i].Labels, clones[i].Metadata = maps.Clone(clones[i].Labels), maps.Clone(clones[i].Metadata)
	}
	return clones
}

func TestTallySpan(t *testing.T) {
	tally := NewTally(nil)
	for _, line := range [][]byte{testLine(5, "get"), []byte("no event"), testLine(2, "get"), testLine(9, "get")} {
		tally.Wrote(line)
	}
	first, last := tally.Span()
	if at := time.Date(2026, 11, 23, 20, 33, 5, 0, time.UTC); first.Sub(at) != 2*time.Microsecond || last.Sub(at) != 9*time.Microsecond {
		t.Errorf("from %s to %s", first, last)
	}
}

func TestTallyOfNothingIsNotClean(t *testing.T) {
	if NewTally(nil).Result().Clean() {
		t.Error("a run that wrote nothing is clean")
	}
}

func TestResultIsOneLine(t *testing.T) {
	got := Result{Written: 5, InLoki: 6, Missing: 1, Repeated: 2, Altered: 3, WrongLabels: 4, Extra: 7}.String()
	const want = "written 5, in Loki 6, missing 1, repeated 2, altered 3, wrong labels 4, never written 7"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What the oracle says of one whole event, by hand.
func TestOracle(t *testing.T) {
	long := strings.Repeat("é", 1100) // 2,200 bytes
	fitted := fit(long)
	if len(fitted) > maxValue || len(fitted) < maxValue-4 || !strings.HasPrefix(fitted, strings.Repeat("é", 1000)) || !strings.Contains(fitted, "é…") {
		t.Errorf("%d bytes fitted: %q", len(fitted), fitted)
	}
	tests := []struct {
		name, event      string
		labels, metadata string // as fmt prints maps: sorted
	}{
		{"a node reads a lease",
			`"level":"Metadata","auditID":"a","stage":"ResponseComplete","verb":"update","user":{"username":"system:node:w1"},"sourceIPs":["1.1.1.1","2.2.2.2"],"userAgent":"kubelet","objectRef":{"resource":"leases","namespace":"kube-node-lease","name":"w1","apiGroup":"coordination.k8s.io"},"responseStatus":{"code":200},"annotations":{"authorization.k8s.io/decision":"allow"}`,
			`resource:coordination.k8s.io/leases user:system:node verb:update`,
			`audit_id:a audit_level:Metadata code:200 decision:allow detected_level:info name:w1 namespace:kube-node-lease source_ip:2.2.2.2 stage:ResponseComplete user_agent:kubelet username:system:node:w1`},
		{"nobody asks for what is not there",
			`"verb":"brew","user":{},"objectRef":{"resource":"made-up","apiGroup":"x.io","subresource":"s"},"responseStatus":{"code":404}`,
			`resource:other user:unauthenticated verb:other`, `code:404 detected_level:warn requested_resource:x.io/made-up/s requested_verb:brew`},
		{"the same, served", `"verb":"get","user":{"username":"u"},"objectRef":{"resource":"made-up","apiGroup":"x.io","subresource":"s"},"responseStatus":{"code":201}`,
			`resource:x.io/made-up/s user:u verb:get`, `code:201 detected_level:info`},
		{"served, but no legal name", `"verb":"get","user":{"username":"u"},"objectRef":{"resource":"a/b"},"responseStatus":{"code":200}`,
			`resource:other user:u verb:get`, `code:200 detected_level:info requested_resource:a/b`},
		{"a core resource that looks like a group", `"verb":"get","user":{"username":"u"},"objectRef":{"resource":"apps","subresource":"deployments"}`,
			`resource:other user:u verb:get`, `detected_level:info requested_resource:apps/deployments`},
		{"a URL", `"verb":"get","user":{"username":"system:anonymous"},"impersonatedUser":{"username":"i"},"responseStatus":{"code":503}`,
			`resource:nonresource user:system:anonymous verb:get`, `code:503 detected_level:error impersonated_user:i`},
		{"a user agent that was not UTF-8", `"verb":"get","user":{"username":"u\ufffd"},"userAgent":"raw` + "\xff" + `b"`,
			`resource:nonresource user:u? verb:get`, `detected_level:info user_agent:raw?b`},
		{"a long name", `"verb":"get","user":{"username":"` + long + `"}`,
			`resource:nonresource user:` + fitted + ` verb:get`, `detected_level:info`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			line := `{` + test.event + `,"stageTimestamp":"2026-11-23T20:33:05.000001Z"}`
			want, err := (&Oracle{Node: "n", Cluster: "c", Static: map[string]string{"env": "prod"}}).Want([]byte(line))
			if err != nil {
				t.Fatal(err)
			}
			labels := `map[cluster:c env:prod job:kube-apiserver-audit node:n ` + strings.Replace(test.labels, " user:", " service_name:kube-apiserver user:", 1) + `]`
			if got := fmt.Sprint(want.Labels); got != labels {
				t.Errorf("labels\n%s, want\n%s", got, labels)
			}
			if got := fmt.Sprint(want.Metadata); got != "map["+test.metadata+"]" {
				t.Errorf("metadata\n%s, want\n%s", got, test.metadata)
			}
			if !want.Time.Equal(time.Date(2026, 11, 23, 20, 33, 5, 1000, time.UTC)) {
				t.Errorf("time %s", want.Time)
			}
		})
	}
}

// What an event must look like depends on those before it.
func TestOracleRemembers(t *testing.T) {
	line := func(user, ref string, code int) []byte {
		return fmt.Appendf(nil, `{"verb":"get","user":{"username":%q},"objectRef":%s,"responseStatus":{"code":%d},"stageTimestamp":"2026-11-23T20:33:05.000001Z"}`, user, ref, code)
	}
	const things, pods = `{"apiGroup":"x.io","resource":"things"}`, `{"resource":"pods"}`
	o := &Oracle{Node: "n", MaxStreams: 64}
	for _, step := range []struct {
		line []byte
		want Labels
	}{
		{line("bob", things, 404), Labels{"get", "bob", "other"}},
		{line("bob", things, 200), Labels{"get", "bob", "x.io/things"}},
		{line("bob", things, 404), Labels{"get", "bob", "x.io/things"}},
	} {
		if got, err := o.Labels(step.line); err != nil || got != step.want {
			t.Errorf("%v, want %v (%v)", got, step.want, err)
		}
	}
	for i := range 40 {
		got, err := o.Labels(line(fmt.Sprint("u", i), pods, 200))
		if want := i < 30; err != nil || (got.User != "other") != want {
			t.Errorf("user %d: %v (%v)", i, got, err)
		}
	}
	for user, want := range map[string]Labels{"u29": {"get", "u29", "pods"}, "u30": {"get", "other", "other"}} {
		if got, _ := o.Labels(line(user, pods, 200)); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
}
