package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// The oracle says by encoding/json, slowly and with no code of the package, what an event is.

type object map[string]json.RawMessage

func (o object) object(key string) object {
	var inner object
	if raw := o[key]; len(raw) == 0 || raw[0] != '{' || json.Unmarshal(raw, &inner) != nil {
		return nil
	}
	return inner
}

func (o object) text(key string) string { return textOf(o[key]) }

func textOf(raw json.RawMessage) string {
	var s string
	if len(raw) == 0 || raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// oracle is the fields of an event by name; ok is false for what is not one JSON object.
type oracle struct {
	ok                                                                       bool
	at                                                                       time.Time
	auditID, stage, level, verb, username, impersonated                      string
	hasRef                                                                   bool
	group, resource, subresource, namespace, name, decision, sourceIP, agent string
	code                                                                     int
}

func consult(line []byte) oracle {
	var o object
	if !json.Valid(line) || json.Unmarshal(line, &o) != nil || o == nil {
		return oracle{}
	}
	ref, status := o.object("objectRef"), o.object("responseStatus")
	want := oracle{
		ok: true, auditID: o.text("auditID"), stage: o.text("stage"), level: o.text("level"), verb: o.text("verb"),
		username: o.object("user").text("username"), impersonated: o.object("impersonatedUser").text("username"),
		hasRef: ref != nil, group: ref.text("apiGroup"), resource: ref.text("resource"),
		subresource: ref.text("subresource"), namespace: ref.text("namespace"), name: ref.text("name"),
		decision: o.object("annotations").text("authorization.k8s.io/decision"), agent: o.text("userAgent"),
	}
	if at, err := time.Parse(time.RFC3339Nano, o.text("stageTimestamp")); err == nil {
		want.at = at
	}
	var ips []json.RawMessage
	if raw := o["sourceIPs"]; len(raw) > 0 && raw[0] == '[' && json.Unmarshal(raw, &ips) == nil && len(ips) > 0 {
		want.sourceIP = textOf(ips[len(ips)-1])
	}
	var code int
	if json.Unmarshal(status["code"], &code) == nil {
		want.code = code
	}
	return want
}

// checkDescribe compares what Describe says of a line with the oracle.
func checkDescribe(t *testing.T, d *Describer, line []byte) (oracle, bool) {
	t.Helper()
	want := consult(line)
	e, err := d.Describe(line)
	if (err == nil) != want.ok {
		t.Errorf("Describe: %v, encoding/json takes it: %v\n%q", err, want.ok, line)
		return want, false
	}
	if err != nil {
		return want, true
	}
	got := oracle{
		ok: true, at: e.Time, auditID: string(e.AuditID), stage: string(e.Stage), level: string(e.Level),
		verb: string(e.Verb), username: string(e.Username), impersonated: string(e.ImpersonatedUsername),
		hasRef: e.HasObjectRef, group: string(e.APIGroup), resource: string(e.Resource),
		subresource: string(e.Subresource), namespace: string(e.Namespace), name: string(e.Name),
		decision: string(e.Decision), sourceIP: string(e.SourceIP), agent: string(e.UserAgent), code: e.Code,
	}
	same := got.at.Equal(want.at)
	got.at, want.at = time.Time{}, want.at.UTC()
	wantWithoutTime := want
	wantWithoutTime.at = time.Time{}
	if !same || got != wantWithoutTime {
		t.Errorf("of %q\n got %+v at %v\nwant %+v", line, got, e.Time, want)
		return want, false
	}
	return want, true
}

var (
	knownVerb = regexp.MustCompile(`^(get|list|watch|create|update|patch|delete|deletecollection|head|post|put|connect|options|trace)$`)
	dnsName   = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
)

// lokiHolds is what becomes of a value.
func lokiHolds(v string) string {
	if len(v) > 2048 {
		head := v[:2029]
		for !utf8.ValidString(head) {
			head = head[:len(head)-1]
		}
		v = fmt.Sprintf("%s…%.16x", head, sha256.Sum256([]byte(v)))[:len(head)+3+16]
	}
	return strings.ReplaceAll(v, "\uFFFD", "?")
}

// labels gives the verb, user and resource that an event should have.
func (o oracle) labels() (verb, user, resource string) {
	if !o.ok {
		return "other", "other", "malformed"
	}
	verb, user = o.verb, lokiHolds(o.username)
	if !knownVerb.MatchString(verb) {
		verb = "other"
	}
	switch {
	case user == "":
		user = "unauthenticated"
	case strings.HasPrefix(o.username, "system:node:"):
		user = "system:node"
	}
	if !o.hasRef || o.resource == "" {
		return verb, user, "nonresource"
	}
	isLegal := dnsName.MatchString(o.resource) && (o.group == "" || dnsName.MatchString(o.group)) &&
		(o.subresource == "" || dnsName.MatchString(o.subresource))
	isBuiltin := false
	if isLegal {
		key := []byte{byte(len(o.group)), byte(len(o.resource)), byte(len(o.subresource))}
		isBuiltin = builtin[string(key)+o.group+o.resource+o.subresource]
	}
	if !isLegal || !isBuiltin && o.code/100 != 2 {
		return verb, user, "other"
	}
	return verb, user, o.fullResource()
}

func (o oracle) fullResource() string {
	parts := slices.DeleteFunc([]string{o.group, o.resource, o.subresource}, func(s string) bool { return s == "" })
	return strings.Join(parts, "/")
}

// metadata gives the structured metadata that an event should have, as name=value lines.
func (o oracle) metadata() string {
	if !o.ok {
		return "detected_level=warn"
	}
	verb, user, resource := o.labels()
	level := "info"
	if o.code >= 400 {
		level = "warn"
	}
	if o.code >= 500 {
		level = "error"
	}
	var out []string
	add := func(name, value string) {
		if value != "" {
			out = append(out, name+"="+lokiHolds(value))
		}
	}
	add("audit_id", o.auditID)
	add("stage", o.stage)
	add("audit_level", o.level)
	if lokiHolds(o.username) != user {
		add("username", o.username)
	}
	add("impersonated_user", o.impersonated)
	add("namespace", o.namespace)
	add("name", o.name)
	if o.code != 0 {
		add("code", strconv.Itoa(o.code))
	}
	add("decision", o.decision)
	add("source_ip", o.sourceIP)
	add("user_agent", o.agent)
	if verb == "other" {
		add("requested_verb", o.verb)
	}
	if resource == "other" {
		add("requested_resource", o.fullResource())
	}
	add("detected_level", level)
	return strings.Join(out, "\n")
}

// parseStream reads {name="value", …} back, each value by strconv.Unquote.
func parseStream(t *testing.T, labels string) map[string]string {
	t.Helper()
	rest, isSet := strings.CutPrefix(labels, "{")
	out := make(map[string]string)
	last := ""
	for isSet && rest != "}" {
		name, after, ok := strings.Cut(rest, "=")
		quoted, err := strconv.QuotedPrefix(after)
		if !ok || err != nil || name <= last {
			t.Fatalf("label %q after %q in %q: %v", name, last, labels, err)
		}
		value, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatalf("value of %q: %v", name, err)
		}
		if strings.ContainsRune(quoted, utf8.RuneError) {
			t.Fatalf("label %q holds U+FFFD, which Loki's parser refuses", name)
		}
		out[name], last = value, name
		rest = strings.TrimPrefix(after[len(quoted):], ", ")
	}
	return out
}

var before = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// checkEntry compares what Entry says of a line with the oracle.
func checkEntry(t *testing.T, d *Describer, line []byte) {
	t.Helper()
	want, same := checkDescribe(t, d, line)
	if !same {
		return
	}
	got := d.Entry(line, before, earlier())
	verb, user, resource := want.labels()
	if got.Malformed == want.ok || got.Verb != verb || got.User != user || got.Resource != resource {
		t.Errorf("of %q\n got malformed %v, labels %q %q %q\nwant malformed %v, labels %q %q %q",
			line, got.Malformed, got.Verb, got.User, got.Resource, !want.ok, verb, user, resource)
	}
	labels := parseStream(t, got.Stream)
	if labels["verb"] != verb || labels["user"] != user || labels["resource"] != resource || len(labels) != 8 ||
		labels["node"] != "cp-1" || labels["region"] != `e"u` {
		t.Errorf("stream %s\nwant %q %q %q", got.Stream, verb, user, resource)
	}
	var fields []string
	for _, field := range got.Metadata {
		fields = append(fields, field.Name+"="+string(field.Value))
		if len(field.Value) == 0 || len(field.Value) > maxValue || !utf8.Valid(field.Value) {
			t.Errorf("%s = %q", field.Name, field.Value)
		}
	}
	if strings.Join(fields, "\n") != want.metadata() {
		t.Errorf("metadata of %q\n got %q\nwant %q", line, strings.Join(fields, "\n"), want.metadata())
	}
	at := want.at
	if !want.ok {
		first, _, _ := bytes.Cut(line, []byte(" "))
		if legacy, err := time.Parse(time.RFC3339Nano, string(first)); err == nil && len(first) < len(line) && len(first) <= 35 {
			at = legacy
		}
	}
	if at.Unix() < 0 || at.Year() > 2261 {
		at = before
	}
	if got.Time.Year() < 2262 && !got.Time.Equal(at) {
		t.Errorf("time of %q\n got %v\nwant %v", line, got.Time, at)
	}
}
