package audit

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// The values that the labels verb, user and resource have when the event gives none of its own.
const (
	// Other is a verb that is not Kubernetes' or HTTP's, a resource that no server is known to have, and the verb and
	// user of a malformed line.
	Other = "other"
	// Unauthenticated is the user of a request that has none: it was refused (401), or not yet looked at.
	Unauthenticated = "unauthenticated"
	// NonResource is the resource of a request to a URL such as /healthz.
	NonResource = "nonresource"
	// Malformed is the resource of a line, or a piece of one, that is not one JSON object.
	Malformed = "malformed"
)

// maxLabels is how many labels a stream may have: Loki's default max_label_names_per_series
// (Loki pkg/validation/limits.go).
const maxLabels = 15

// Config is what all entries of an agent have in common.
type Config struct {
	Node    string // label node; needed: it keeps two agents from writing to one stream
	Cluster string // label cluster; none if empty
	// Filename is the label filename, none if empty. It keeps the paths of one agent apart: Loki refuses what is over an
	// hour behind the newest entry of a stream, so a path that catches up may not share one with a path that is ahead.
	Filename string
	Static   map[string]string // further labels, by name

	// MaxLine is how long a line may be in bytes, 0 for any length: a longer event is reduced until it fits.
	MaxLine int
	// LabelFields are the fields of an event that are labels, MetadataFields those that are structured metadata unless they
	// are in a label as they are. Nil: the default. They are named in fieldNames, and annotation:KEY.
	LabelFields, MetadataFields []string
	// UserLabel is what the label user is: UserName (or ""), UserClass or UserNone.
	UserLabel string
}

// fixed gives the labels that do not depend on the event, or an error that names the label that Loki would refuse.
func (c Config) fixed(f *fields) (map[string]string, error) {
	labels := map[string]string{
		"job":          "kube-apiserver-audit",
		"service_name": "kube-apiserver",
		"node":         c.Node,
	}
	if c.Cluster != "" {
		labels["cluster"] = c.Cluster
	}
	if c.Filename != "" {
		labels["filename"] = c.Filename
	}
	for _, name := range slices.Sorted(maps.Keys(c.Static)) {
		if err := checkName(name, f); err != nil {
			return nil, err
		}
		labels[name] = c.Static[name]
	}
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if err := checkValue(name, labels[name]); err != nil {
			return nil, err
		}
	}
	// Streams of gaps and, if the resource is no label, of what is malformed have one label of their own.
	if n := len(labels) + max(len(f.labels), 1); n > maxLabels {
		var names []string
		for _, l := range f.labels {
			names = append(names, l.label())
		}
		return nil, fmt.Errorf("%d labels, of which %d are yours and %d are of the event (%s): Loki takes at most %d", n,
			len(c.Static), len(names), strings.Join(names, ", "), maxLabels)
	}
	return labels, nil
}

// Check says which label or field Loki would refuse, if there is one.
func (c Config) Check() error {
	f, err := c.fields()
	if err == nil {
		_, err = c.fixed(&f)
	}
	return err
}

// GapStream is the label set of the entries that tell where events are missing: the labels that all streams of the path
// share, and event="gap".
func (c Config) GapStream() (string, error) {
	f, err := c.fields()
	if err != nil {
		return "", err
	}
	labels, err := c.fixed(&f)
	if err != nil {
		return "", err
	}
	labels["event"] = "gap"
	out := []byte{'{'}
	for i, name := range slices.Sorted(maps.Keys(labels)) {
		if i > 0 {
			out = append(out, ", "...)
		}
		out = appendPair(out, name, labels[name])
	}
	return string(append(out, '}')), nil
}

// checkName says why a static label cannot have a name.
func checkName(name string, f *fields) error {
	for i, c := range []byte(name) {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return fmt.Errorf("label %q: a name is made of letters, digits and _, and does not begin with a digit", name)
		}
	}
	ours := []string{"job", "service_name", "node", "cluster", "filename", "event", "verb", "user", "resource"}
	var fields, metadata []string
	for _, l := range f.labels {
		fields = append(fields, l.label())
	}
	for _, m := range f.metadata {
		metadata = append(metadata, m.metadata())
	}
	switch {
	case name == "":
		return fmt.Errorf("label %q: a label needs a name", name)
	case strings.HasPrefix(name, "__"):
		return fmt.Errorf("label %q: names that begin with __ are Loki's own", name)
	case slices.Contains(ours, name) || slices.Contains(fields, name):
		return fmt.Errorf("label %q: auditferry sets this label itself", name)
	case slices.Contains(metadataNames[:], name) || slices.Contains(metadata, name) || strings.HasPrefix(name, foldedPrefix):
		return fmt.Errorf("label %q: auditferry sets structured metadata of this name", name)
	}
	return nil
}

// checkValue says why a label cannot have a value.
func checkValue(name, value string) error {
	switch {
	case value == "":
		return fmt.Errorf("label %q: the value is empty", name)
	case len(value) > maxValue:
		return fmt.Errorf("label %q: the value has %d bytes, Loki takes at most %d", name, len(value), maxValue)
	case !utf8.ValidString(value) || strings.Contains(value, replacement):
		return fmt.Errorf("label %q: the value is not UTF-8", name)
	}
	return nil
}

// verbLabel gives the label of a verb: one that Kubernetes knows or a lower-cased standard HTTP method (what
// kube-apiserver writes for non-resource URLs), else Other. It never allocates.
func verbLabel(verb []byte) string {
	switch string(verb) {
	case "get":
		return "get"
	case "list":
		return "list"
	case "watch":
		return "watch"
	case "create":
		return "create"
	case "update":
		return "update"
	case "patch":
		return "patch"
	case "delete":
		return "delete"
	case "deletecollection":
		return "deletecollection"
	case "head":
		return "head"
	case "post":
		return "post"
	case "put":
		return "put"
	case "connect":
		return "connect"
	case "options":
		return "options"
	case "trace":
		return "trace"
	}
	return Other
}

// nodeUser is the label of all kubelets, and with a colon what their user names begin with.
const nodeUser = "system:node"

// appendUser appends the label of a user name; plain says that the name is known to be ASCII.
func appendUser(dst, username []byte, plain bool) []byte {
	switch {
	case len(username) == 0:
		return append(dst, Unauthenticated...)
	case len(username) > len(nodeUser) && username[len(nodeUser)] == ':' && bytes.HasPrefix(username, []byte(nodeUser)):
		return append(dst, nodeUser...)
	case plain && len(username) <= maxValue:
		return append(dst, username...)
	}
	return appendValue(dst, username)
}

// anonymous is the user of a request without credentials, if the server takes such requests.
const anonymous = "system:anonymous"

// classOf gives the label of a user name if it is the class of the user.
func classOf(username []byte) string {
	const system, serviceAccount = "system:", "system:serviceaccount"
	switch name := string(username); {
	case name == "":
		return Unauthenticated
	case name == anonymous:
		return anonymous
	case strings.HasPrefix(name, nodeUser+":"):
		return nodeUser
	case strings.HasPrefix(name, serviceAccount+":"):
		return serviceAccount
	case strings.HasPrefix(name, system):
		return "system"
	}
	return "user"
}
