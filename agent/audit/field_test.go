package audit

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestCheckFields(t *testing.T) {
	long := strings.Repeat("x", 400)
	var many []string
	for i := range 130 {
		many = append(many, fmt.Sprintf("annotation:a%d", i))
	}
	for _, c := range []struct {
		words            []string
		labels, metadata string // in the error; none if empty
	}{
		{DefaultLabelFields, "", ""},
		{DefaultMetadataFields, "cannot be a label", ""},
		{[]string{}, "", ""},
		{[]string{"namespace", "code", "level", "stage", "decision", "impersonated_user", "groups", "annotation:a.b/c-d"}, "", ""},
		{[]string{"audit_id"}, "audit_id cannot be a label: it has too many values", ""},
		{[]string{"name"}, "name cannot", ""}, {[]string{"user_agent"}, "user_agent cannot", ""}, {[]string{"source_ip"}, "source_ip cannot", ""},
		{[]string{"verb", "nonsense"}, `"nonsense" is not a field: there are verb, user`, `"nonsense" is not a field`},
		{[]string{""}, `"" is not a field`, `"" is not a field`},
		{[]string{"verb", "user", "verb"}, "verb is given twice", "verb is given twice"},
		{[]string{"annotation:a.b", "annotation:a-b"}, "annotation:a.b and annotation:a-b would both be named annotation_a_b", "both be named"},
		{[]string{"annotation:"}, "1 to 317 bytes", "1 to 317 bytes"}, {[]string{"annotation:" + long}, "317", "317"},
		{many[:16], "16 fields: Loki takes at most 15 labels", ""},
		{many, "130 fields", "130 fields: an entry takes at most 120"},
	} {
		for kind, check := range map[string]struct {
			err  error
			want string
		}{"labels": {CheckLabelFields(c.words), c.labels}, "metadata": {CheckMetadataFields(c.words), c.metadata}} {
			if (check.err == nil) != (check.want == "") || check.err != nil && !strings.Contains(check.err.Error(), check.want) {
				t.Errorf("%s %.100q: %v, want %q", kind, c.words, check.err, check.want)
			}
		}
	}
}

func TestConfigOfFields(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{Node: "n", LabelFields: strings.Fields("verb user resource namespace code level stage decision groups annotation:a annotation:b")}, ""}, // 14
		{Config{Node: "n", LabelFields: strings.Fields("verb user resource namespace code level stage decision groups annotation:a annotation:b annotation:c annotation:d")},
			"16 labels, of which 0 are yours and 13 are of the event (verb, user, resource, namespace, code, audit_level"},
		{Config{Node: "n", LabelFields: []string{"annotation:x"}, Static: map[string]string{"annotation_x": "y"}}, `"annotation_x": auditferry sets this label itself`},
		{Config{Node: "n", MetadataFields: []string{"annotation:x"}, Static: map[string]string{"annotation_x": "y"}}, `"annotation_x": auditferry sets structured metadata`},
		{Config{Node: "n", Static: map[string]string{"groups": "y"}}, `"groups"`},
		{Config{Node: "n", Static: map[string]string{"event_stage": "y"}}, `"event_stage"`},
		{Config{Node: "n", UserLabel: "nickname"}, `not "nickname"`},
		{Config{Node: "n", LabelFields: []string{}}, ""},
	} {
		if err := c.cfg.Check(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.cfg, err, c.want)
		}
	}
}

const richEvent = `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"id","stage":"ResponseComplete","requestURI":"/","verb":"get",` +
	`"user":{"username":"bob","uid":"1","groups":["system:authenticated","d\u0065v"],"extra":{"groups":["no"]}},"impersonatedUser":{"username":"eve","groups":["no"]},` +
	`"sourceIPs":["10.0.0.1"],"userAgent":"kubectl","objectRef":{"resource":"pods","namespace":"ns","name":"p"},"responseStatus":{"metadata":{},"code":200},` +
	`"stageTimestamp":"2026-11-23T20:33:05.000001Z","annotations":{"authorization.k8s.io/decision":"allow","a.b/c":"x\ty","n":7,"deep":{"a.b/c":"no"}}}`

// labelsOf gives the labels of the event and the structured metadata, as name=value.
func labelsOf(t *testing.T, e *Entry) (labels, metadata string) {
	t.Helper()
	var words, fields []string
	for name, value := range parseStream(t, e.Stream) {
		if !slices.Contains([]string{"job", "service_name", "node"}, name) {
			words = append(words, name+"="+value)
		}
	}
	slices.Sort(words)
	for _, f := range e.Metadata {
		fields = append(fields, f.Name+"="+string(f.Value))
	}
	return strings.Join(words, " "), strings.Join(fields, " ")
}

func TestFields(t *testing.T) {
	const usualMetadata = "audit_id=id stage=ResponseComplete audit_level=Request impersonated_user=eve namespace=ns name=p code=200 decision=allow source_ip=10.0.0.1 user_agent=kubectl detected_level=info"
	all := append([]string{"groups", "annotation:a.b/c", "annotation:n", "annotation:missing"}, DefaultMetadataFields...)
	for _, c := range []struct {
		name             string
		cfg              Config
		line             string
		labels, metadata string
	}{
		{"default", Config{}, richEvent, "resource=pods user=bob verb=get", usualMetadata},
		{"class", Config{UserLabel: UserClass}, richEvent, "resource=pods user=user verb=get", strings.Replace(usualMetadata, " impersonated", " username=bob impersonated", 1)},
		{"none", Config{UserLabel: UserNone}, richEvent, "resource=pods verb=get", strings.Replace(usualMetadata, " impersonated", " username=bob impersonated", 1)},
		{"no labels", Config{LabelFields: []string{}}, richEvent, "", strings.Replace(strings.Replace(usualMetadata, " impersonated", " username=bob impersonated", 1), " detected", " verb=get resource=pods detected", 1)},
		{"no metadata", Config{MetadataFields: []string{}}, richEvent, "resource=pods user=bob verb=get", "detected_level=info"},
		{"nothing at all", Config{LabelFields: []string{}, MetadataFields: []string{}}, richEvent, "", "detected_level=info"},
		{"one each", Config{LabelFields: []string{"namespace"}, MetadataFields: []string{"code", "resource"}}, richEvent, "namespace=ns", "code=200 resource=pods detected_level=info"},
		{"all labels", Config{LabelFields: strings.Fields("namespace code level stage decision impersonated_user groups annotation:a.b/c"), MetadataFields: all}, richEvent,
			"annotation_a_b_c=x\ty audit_level=Request code=200 decision=allow groups=system:authenticated,dev impersonated_user=eve namespace=ns stage=ResponseComplete",
			"audit_id=id username=bob name=p source_ip=10.0.0.1 user_agent=kubectl verb=get resource=pods detected_level=info"},
		{"more metadata", Config{MetadataFields: []string{"annotation:a.b/c", "groups", "stage"}}, richEvent, "resource=pods user=bob verb=get",
			"stage=ResponseComplete annotation_a_b_c=x\ty groups=system:authenticated,dev detected_level=info"},
		{"what is missing", Config{LabelFields: strings.Fields("verb namespace groups annotation:a decision code"), MetadataFields: all}, `{}`, "verb=other", "resource=nonresource detected_level=info"},
		{"no objects", Config{LabelFields: strings.Fields("groups annotation:a"), MetadataFields: []string{}}, `{"user":["groups"],"annotations":"a"}`, "", "detected_level=info"},
		{"no strings", Config{LabelFields: strings.Fields("groups annotation:a"), MetadataFields: []string{}}, `{"user":{"groups":{"a":"b"}},"annotations":{"a":{"a":"b"}}}`, "", "detected_level=info"},
		{"odd groups", Config{LabelFields: strings.Fields("groups"), MetadataFields: []string{}}, `{"user":{"groups":["x"],"groups":[ "", 1 , ["y"], "a" ,"b,c"]}}`, "groups=a,b,c", "detected_level=info"},
		{"no groups", Config{LabelFields: strings.Fields("groups"), MetadataFields: []string{}}, `{"user":{"groups":[]}}`, "", "detected_level=info"},
		{"the last counts", Config{LabelFields: strings.Fields("groups annotation:a"), MetadataFields: []string{}}, `{"user":{"groups":["x"]},"annotations":{"a":"1"},"user":{"groups":["y"]},"annotations":{"a":"2","a":"3"}}`,
			"annotation_a=3 groups=y", "detected_level=info"},
		{"escaped keys", Config{LabelFields: strings.Fields("groups annotation:a/b"), MetadataFields: []string{}}, `{"user":{"group\u0073":["x"]},"annotations":{"a\/b":"1"}}`, "annotation_a_b=1 groups=x", "detected_level=info"},
		{"malformed", Config{LabelFields: strings.Fields("verb namespace")}, `x`, "resource=malformed", "detected_level=warn"},
		{"malformed, as ever", Config{}, `x`, "resource=malformed user=other verb=other", "detected_level=warn"},
		{"malformed, without a user", Config{UserLabel: UserNone}, `x`, "resource=malformed verb=other", "detected_level=warn"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Node = "n"
			d := describerOf(t, c.cfg, newAdmissions(t, c.cfg, 1000))
			for range 2 {
				e := d.Entry([]byte(c.line), before, 1)
				if labels, metadata := labelsOf(t, &e); labels != c.labels || metadata != c.metadata {
					t.Errorf("\n got %q\nwant %q\n got %q\nwant %q", labels, c.labels, metadata, c.metadata)
				}
			}
		})
	}
}

// TestFoldedFields: what a label was before it was folded is in structured metadata, as far as that is wanted.
func TestFoldedFields(t *testing.T) {
	full := func(cfg Config) *Admissions {
		all := newAdmissions(t, cfg, MinStreams)
		for n := range MinStreams {
			all.streams.Store(int64(n))
		}
		return all
	}
	for _, c := range []struct {
		name             string
		cfg              Config
		streams          int64 // that there are
		labels, metadata string
		folds            Folds
	}{
		{"room", Config{MetadataFields: []string{"user", "resource"}}, 31, "resource=pods user=bob verb=get", "", 0},
		{"full", Config{MetadataFields: []string{"user", "resource", "verb"}}, 63, "resource=other user=other verb=get", "username=bob requested_resource=pods ", FoldedAll},
		{"full of verbs", Config{LabelFields: []string{"verb"}, MetadataFields: []string{"user"}}, 63, "verb=get", "username=bob ", 0},
		{"full, and more", Config{LabelFields: []string{"stage", "namespace", "verb"}, MetadataFields: []string{"stage", "name"}}, 63,
			"namespace=other stage=other verb=get", "event_stage=ResponseComplete name=p ", FoldedAll},
		{"full, of classes", Config{UserLabel: UserClass, MetadataFields: []string{"user"}}, 63, "resource=other user=other verb=get", "username=bob ", FoldedAll},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Node = "n"
			all := full(c.cfg)
			all.streams.Store(c.streams)
			d := describerOf(t, c.cfg, all)
			for range 2 {
				e := d.Entry([]byte(richEvent), before, 1)
				labels, metadata := labelsOf(t, &e)
				if labels != c.labels || metadata != c.metadata+"detected_level=info" || e.Folded != c.folds {
					t.Errorf("%q %q folded %b", labels, metadata, e.Folded)
				}
			}
		})
	}
}

func TestUserClasses(t *testing.T) {
	for name, want := range map[string]string{
		"": "unauthenticated", "system:anonymous": "system:anonymous", "system:node:n1": "system:node", "system:node": "system", "system:nodes": "system",
		"system:serviceaccount:a:b": "system:serviceaccount", "system:serviceaccount": "system", "system:kube-scheduler": "system", "system:": "system",
		"system": "user", "bob": "user", "System:bob": "user",
	} {
		if got := classOf([]byte(name)); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// TestMetadataIsBounded: an entry has no more than Loki takes, and two that differ still do.
func TestMetadataIsBounded(t *testing.T) {
	cfg := Config{Node: "n", MetadataFields: slices.Clone(DefaultMetadataFields)}
	var annotations []string
	for i := range maxFields - len(DefaultMetadataFields) {
		key := fmt.Sprintf("a%03d%s", i, strings.Repeat("k", maxAnnotationKey-4))
		cfg.MetadataFields = append(cfg.MetadataFields, annotationPrefix+key)
		annotations = append(annotations, fmt.Sprintf("%q:%q", key, strings.Repeat("é", 3000)+"1"))
	}
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	d := describerOf(t, cfg, newAdmissions(t, cfg, 1000))
	seen := make(map[string]bool)
	for _, last := range []string{"1", "2"} {
		line := `{"auditID":"short","annotations":{` + strings.ReplaceAll(strings.Join(annotations, ","), `1"`, last+`"`) + `}}`
		e := d.Entry([]byte(line), before, 1)
		size := 0
		for _, f := range e.Metadata {
			size += len(f.Name) + len(f.Value)
		}
		if size > 64<<10 || size < 50<<10 || len(e.Metadata) > 128 || len(e.Metadata) < 100 || string(e.Metadata[0].Value) != "short" {
			t.Errorf("%d fields of %d bytes, the first %q", len(e.Metadata), size, e.Metadata[0].Value)
		}
		seen[wire(&Entry{Metadata: e.Metadata})] = true
	}
	if len(seen) != 2 {
		t.Error("two that differ are the same")
	}
}
