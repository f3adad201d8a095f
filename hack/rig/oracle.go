package rig

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// maxValue is the longest label value that Loki takes, in bytes (Loki pkg/validation/limits.go, max_label_value_length). The
// agent keeps the values of structured metadata within it too.
const maxValue = 2048

// Oracle says what an event must look like in Loki: DESIGN section 6, decided here a second time, on encoding/json and for
// clarity, so that the agent's own code is not its judge. What an event looks like depends on the events before it in its audit
// log, so the oracle is given all of them once, in their order.
type Oracle struct {
	Node, Cluster string
	Static        map[string]string
	MaxStreams    int // --max-streams; 0 is its default

	resources map[Resource]bool // that are admitted and not built in
	streams   map[Labels]bool   // that are admitted
}

// Labels are those of an event that the event itself decides, and those before it.
type Labels struct{ Verb, User, Resource string }

// Want is what an event must look like in Loki.
type Want struct {
	Time             time.Time
	Labels, Metadata map[string]string
}

// event is the part of an audit event (k8s.io/apiserver/pkg/apis/audit/v1) that labels and metadata are made of.
type event struct {
	Level, AuditID, Stage, Verb, UserAgent string
	StageTimestamp                         time.Time
	User, ImpersonatedUser                 struct{ Username string }
	SourceIPs                              []string
	ObjectRef                              struct{ Resource, Namespace, Name, APIGroup, Subresource string }
	ResponseStatus                         struct{ Code int }
	Annotations                            map[string]string
}

// Want takes line as the next of the audit log, and gives what it must look like in Loki. A line that is not an event as
// kube-apiserver writes them is an error: the oracle judges those only.
func (o *Oracle) Want(line []byte) (Want, error) {
	labels, err := o.Labels(line)
	if err != nil {
		return Want{}, err
	}
	return o.want(line, labels)
}

// Labels takes line as the next of the audit log.
func (o *Oracle) Labels(line []byte) (Labels, error) {
	e, err := readEvent(line)
	if err != nil {
		return Labels{}, err
	}
	labels := Labels{verbLabel(e.Verb), fit(userLabel(e.User.Username)), o.resourceLabel(e)}
	most := o.MaxStreams
	if most == 0 {
		most = 1000
	}
	if o.streams == nil {
		o.streams = map[Labels]bool{}
	}
	switch withoutUser := (Labels{labels.Verb, "other", labels.Resource}); {
	case o.streams[labels] || len(o.streams) < min(most*9/10, most-32):
	case o.streams[withoutUser] || len(o.streams) < most-32:
		labels = withoutUser
	default:
		labels = Labels{labels.Verb, "other", "other"}
	}
	o.streams[labels] = true
	return labels, nil
}

func readEvent(line []byte) (*event, error) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		return nil, fmt.Errorf("judging an event: %w", err)
	}
	if e.StageTimestamp.IsZero() {
		return nil, errors.New("judging an event: no stageTimestamp")
	}
	return &e, nil
}

// want gives what a line with these labels must look like in Loki.
func (o *Oracle) want(line []byte, of Labels) (Want, error) {
	e, err := readEvent(line)
	if err != nil {
		return Want{}, err
	}
	code := e.ResponseStatus.Code
	labels := map[string]string{
		"job": "kube-apiserver-audit", "service_name": "kube-apiserver", "node": o.Node,
		"verb": of.Verb, "user": of.User, "resource": of.Resource,
	}
	if o.Cluster != "" {
		labels["cluster"] = o.Cluster
	}
	maps.Copy(labels, o.Static)
	metadata := map[string]string{
		"audit_id": e.AuditID, "stage": e.Stage, "audit_level": e.Level,
		"username": e.User.Username, "impersonated_user": e.ImpersonatedUser.Username,
		"namespace": e.ObjectRef.Namespace, "name": e.ObjectRef.Name,
		"decision": e.Annotations["authorization.k8s.io/decision"], "user_agent": e.UserAgent,
		"detected_level": detectedLevel(code),
	}
	if code != 0 {
		metadata["code"] = strconv.Itoa(code)
	}
	if n := len(e.SourceIPs); n > 0 {
		metadata["source_ip"] = e.SourceIPs[n-1]
	}
	if labels["user"] == fit(e.User.Username) {
		delete(metadata, "username")
	}
	if labels["verb"] == "other" {
		metadata["requested_verb"] = e.Verb
	}
	if labels["resource"] == "other" {
		metadata["requested_resource"] = resourceName(e)
		if e.ObjectRef.Resource == "" {
			metadata["requested_resource"] = "nonresource"
		}
	}
	for name, value := range metadata {
		metadata[name] = fit(value)
	}
	maps.DeleteFunc(metadata, func(_, value string) bool { return value == "" })
	return Want{Time: e.StageTimestamp, Labels: labels, Metadata: metadata}, nil
}

// shardLabel is set by Loki itself on the parts of a stream that it splits for its rate (shard_streams in its limits, on by
// default); queries show it.
const shardLabel = "__stream_shard__"

// Judge gives what is wrong with an entry of an event that was to get these labels: names of labels and of structured metadata,
// never their values. "" is right.
func (o *Oracle) Judge(e Entry, of Labels) string {
	want, err := o.want(e.Line, of)
	if err != nil {
		return err.Error()
	}
	var wrong []string
	if !e.Time.Equal(want.Time) {
		wrong = append(wrong, "timestamp")
	}
	labels := maps.Clone(e.Labels)
	delete(labels, shardLabel)
	wrong = append(wrong, differences("label ", labels, want.Labels)...)
	wrong = append(wrong, differences("metadata ", e.Metadata, want.Metadata)...)
	return strings.Join(wrong, ", ")
}

func differences(kind string, got, want map[string]string) []string {
	var names []string
	for name, value := range want {
		if has, ok := got[name]; !ok || has != value {
			names = append(names, kind+name)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			names = append(names, kind+name+" (unexpected)")
		}
	}
	slices.Sort(names)
	return names
}

var knownVerbs = strings.Fields("get list watch create update patch delete deletecollection head post put connect options trace")

func verbLabel(verb string) string {
	if slices.Contains(knownVerbs, verb) {
		return verb
	}
	return "other"
}

func userLabel(username string) string {
	switch {
	case username == "":
		return "unauthenticated"
	case strings.HasPrefix(username, "system:node:"):
		return "system:node"
	}
	return username
}

func detectedLevel(code int) string {
	switch {
	case code >= 500:
		return "error"
	case code >= 400:
		return "warn"
	}
	return "info"
}

// resourceName gives group/resource/subresource, what is empty left out.
func resourceName(e *event) string {
	parts := []string{e.ObjectRef.APIGroup, e.ObjectRef.Resource, e.ObjectRef.Subresource}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "/")
}

//go:embed resources.txt
var resourcesText string

// builtIn holds what resources.txt lists.
var builtIn = sync.OnceValue(func() map[Resource]bool {
	all := map[Resource]bool{}
	for line := range strings.Lines(resourcesText) {
		fields := strings.Fields(line)
		if fields[0] == "#" {
			continue
		}
		r := Resource{Group: strings.TrimPrefix(fields[0], "core"), Name: fields[1]}
		if len(fields) == 3 {
			r.Subresource = fields[2]
		}
		all[r] = true
	}
	return all
})

// BuiltIn says whether every kube-apiserver 1.37 has the resource by itself: it is a label value whatever the answer was.
func BuiltIn(r Resource) bool { return builtIn()[r] }

// legalName is the name of a group, resource or subresource that Kubernetes can have: that of a DNS subdomain.
var legalName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

func (o *Oracle) resourceLabel(e *event) string {
	ref := e.ObjectRef
	if ref.Resource == "" {
		return "nonresource"
	}
	legal := legalName.MatchString(ref.Resource) &&
		(ref.APIGroup == "" || legalName.MatchString(ref.APIGroup)) &&
		(ref.Subresource == "" || legalName.MatchString(ref.Subresource))
	served := e.ResponseStatus.Code >= 200 && e.ResponseStatus.Code < 300
	r := Resource{ref.APIGroup, ref.Resource, ref.Subresource}
	if legal && served {
		if o.resources == nil {
			o.resources = map[Resource]bool{}
		}
		o.resources[r] = true
	}
	if BuiltIn(r) || o.resources[r] {
		return resourceName(e)
	}
	return "other"
}

// fit gives a value as Loki takes it. One that is too long is cut at the boundary of a rune and gets an ellipsis and 16 hex
// digits of the SHA-256 of the whole. U+FFFD, which Loki turns into a space (Loki pkg/distributor/distributor.go), is a question mark.
func fit(value string) string {
	if len(value) > maxValue {
		sum := sha256.Sum256([]byte(value))
		tail := "…" + hex.EncodeToString(sum[:8])
		cut := maxValue - len(tail)
		for !utf8.RuneStart(value[cut]) {
			cut--
		}
		value = value[:cut] + tail
	}
	return strings.ReplaceAll(value, "\uFFFD", "?")
}
