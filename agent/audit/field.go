package audit

import (
	"fmt"
	"slices"
	"strings"
)

// What the label user can be.
const (
	UserName  = "name"  // the name itself; that of a kubelet is system:node
	UserClass = "class" // what kind of user it is: see appendClass
	UserNone  = "none"  // no label
)

// DefaultLabelFields are the labels of an event, unless Config says otherwise.
var DefaultLabelFields = []string{"verb", "user", "resource"}

// DefaultMetadataFields are the fields of structured metadata, unless Config says otherwise.
var DefaultMetadataFields = []string{"audit_id", "stage", "level", "user", "impersonated_user", "namespace", "name", "code",
	"decision", "source_ip", "user_agent", "verb", "resource"}

// fieldID tells the fields of an event apart that can be a label or structured metadata.
type fieldID uint8

const (
	fieldVerb fieldID = iota
	fieldUser
	fieldResource
	fieldNamespace
	fieldName
	fieldCode
	fieldLevel
	fieldStage
	fieldDecision
	fieldImpersonated
	fieldGroups
	fieldSourceIP
	fieldUserAgent
	fieldAuditID
	fieldAnnotation // any, by its key

	fieldCount = int(fieldAnnotation)
)

// fieldNames are the words for the fields in the configuration.
var fieldNames = [fieldCount]string{"verb", "user", "resource", "namespace", "name", "code", "level", "stage", "decision",
	"impersonated_user", "groups", "source_ip", "user_agent", "audit_id"}

// annotationPrefix begins the word for an annotation: annotation:authorization.k8s.io/reason.
const annotationPrefix = "annotation:"

// maxAnnotationKey is how long the key of an annotation may be: Kubernetes' limits for a prefix, a slash and a name.
const maxAnnotationKey = 253 + 1 + 63

// field is one field of an event.
type field struct {
	id  fieldID
	key string // of an annotation
	at  int    // index of the annotation among those that are read
}

// label is the name of the label.
func (f field) label() string {
	switch f.id {
	case fieldLevel:
		return "audit_level" // Grafana takes a label level for the severity of a line
	case fieldAnnotation:
		return "annotation_" + strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
				return r
			}
			return '_'
		}, f.key)
	}
	return fieldNames[f.id]
}

// metadata is the name of the structured metadata.
func (f field) metadata() string {
	if f.id == fieldUser {
		return "username"
	}
	return f.label()
}

// parseFields reads the words for fields.
func parseFields(words []string) ([]field, error) {
	var fields []field
	taken := make(map[string]string)
	for _, word := range words {
		f, err := parseField(word)
		if err != nil {
			return nil, err
		}
		switch before, twice := taken[f.label()]; {
		case twice && before == word:
			return nil, fmt.Errorf("%s is given twice", word)
		case twice:
			return nil, fmt.Errorf("%s and %s would both be named %s", before, word, f.label())
		}
		taken[f.label()] = word
		fields = append(fields, f)
	}
	return fields, nil
}

func parseField(word string) (field, error) {
	if key, ok := strings.CutPrefix(word, annotationPrefix); ok {
		if key == "" || len(key) > maxAnnotationKey {
			return field{}, fmt.Errorf("%s: the key of an annotation has 1 to %d bytes", word, maxAnnotationKey)
		}
		return field{id: fieldAnnotation, key: key}, nil
	}
	if i := slices.Index(fieldNames[:], word); i >= 0 {
		return field{id: fieldID(i)}, nil
	}
	return field{}, fmt.Errorf("%q is not a field: there are %s and %sKEY", word, strings.Join(fieldNames[:], ", "), annotationPrefix)
}

// parseLabels reads the words for the fields that are labels.
func parseLabels(words []string) ([]field, error) {
	fields, err := parseFields(words)
	if err != nil {
		return nil, err
	}
	for _, f := range fields {
		switch f.id {
		case fieldName, fieldSourceIP, fieldUserAgent, fieldAuditID:
			return nil, fmt.Errorf("%s cannot be a label: it has too many values, and each would make a stream of its own; query it as structured metadata",
				fieldNames[f.id])
		}
	}
	if n := len(fields); n > maxLabels {
		return nil, fmt.Errorf("%d fields: Loki takes at most %d labels", n, maxLabels)
	}
	return fields, nil
}

// parseMetadata reads the words for the fields that are structured metadata.
func parseMetadata(words []string) ([]field, error) {
	fields, err := parseFields(words)
	if err == nil && len(fields) > maxFields {
		err = fmt.Errorf("%d fields: an entry takes at most %d", len(fields), maxFields)
	}
	return fields, err
}

// CheckLabelFields says why fields, named as in Config, cannot be labels, whatever the other labels are.
func CheckLabelFields(words []string) error {
	_, err := parseLabels(words)
	return err
}

// CheckMetadataFields says why fields, named as in Config, cannot be structured metadata.
func CheckMetadataFields(words []string) error {
	_, err := parseMetadata(words)
	return err
}

// fields are those that a configuration asks for.
type fields struct {
	user             string // UserName, UserClass; UserNone if there is no such label
	labels, metadata []field
	extras           bool     // something is to be read beyond Event:
	groups           bool     // those of the user,
	annotations      []string // and these, by key
}

// fields reads what the configuration says of fields.
func (c Config) fields() (f fields, err error) {
	labels, metadata := c.LabelFields, c.MetadataFields
	if labels == nil {
		labels = DefaultLabelFields
	}
	if metadata == nil {
		metadata = DefaultMetadataFields
	}
	if f.labels, err = parseLabels(labels); err != nil {
		return f, err
	}
	if f.metadata, err = parseMetadata(metadata); err != nil {
		return f, err
	}
	switch f.user = c.UserLabel; f.user {
	case "":
		f.user = UserName
	case UserNone:
		f.labels = slices.DeleteFunc(f.labels, func(l field) bool { return l.id == fieldUser })
	case UserName, UserClass:
	default:
		return f, fmt.Errorf("label user: it is name, class or none, not %q", f.user)
	}
	if !f.isLabel(field{id: fieldUser}) {
		f.user = UserNone
	}
	for _, list := range [][]field{f.labels, f.metadata} {
		for i := range list {
			f.read(&list[i])
		}
	}
	return f, nil
}

// read notes what is to be read of an event for a field.
func (f *fields) read(wanted *field) {
	switch wanted.id {
	case fieldGroups:
		f.groups, f.extras = true, true
	case fieldAnnotation:
		f.extras = true
		if wanted.at = slices.Index(f.annotations, wanted.key); wanted.at < 0 {
			wanted.at = len(f.annotations)
			f.annotations = append(f.annotations, wanted.key)
		}
	}
}

func (f *fields) isLabel(wanted field) bool {
	return slices.ContainsFunc(f.labels, func(l field) bool { return l.id == wanted.id && l.key == wanted.key })
}

// kind names what the streams of the configuration are made of.
func (f *fields) kind() string {
	words := make([]string, len(f.labels))
	for i, l := range f.labels {
		words[i] = l.label()
		switch {
		case l.id == fieldAnnotation:
			words[i] = annotationPrefix + l.key
		case l.id == fieldUser && f.user == UserClass:
			words[i] = "user class"
		}
	}
	return streamKind + strings.Join(words, ",")
}
