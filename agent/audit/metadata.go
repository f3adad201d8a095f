package audit

// Field is one name and value of structured metadata. The type has no name of its own, so that it is the same type as the
// Field that shipper declares in this way: neither package imports the other, and no field is converted between them. A
// value is valid until the next call of the Describer.
type Field = struct {
	Name  string
	Value []byte
}

// metadataNames are the names of structured metadata that entries can have, in their order, beside those of groups and
// annotations and of labels that were folded.
var metadataNames = [...]string{"audit_id", "stage", "audit_level", "username", "impersonated_user", "namespace", "name",
	"code", "decision", "source_ip", "user_agent", "requested_verb", "requested_resource", "groups", "detected_level"}

// foldedPrefix begins the name of what a label was before it was folded, where it has no better one.
const foldedPrefix = "event_"

// metadata is the structured metadata of one entry, and what is asked for of it.
type metadata struct {
	fields []Field
	more   []wanted // of those that are wanted, groups and annotations
	// unwanted are the others that are not wanted, or are labels.
	unwanted []fieldID
	// folded are those that are wanted and are labels, which tell all of it as long as they are not folded.
	folded []wanted
	// username says that no label of a user is the name.
	username bool
	// resource says that the resource is wanted, where no label tells it.
	resource bool
	// bounded says that no entry can have more than Loki takes.
	bounded bool
}

// wanted is a field under a name.
type wanted struct {
	field
	name string
}

func newMetadata(f *fields) metadata {
	m := metadata{username: f.user != UserName}
	size := 0
	var keep [fieldCount]bool
	for _, w := range f.metadata {
		size += len(foldedPrefix) + len(w.metadata()) + maxValue
		switch hasWord := w.id == fieldVerb || w.id == fieldUser || w.id == fieldResource; {
		case !hasWord && f.isLabel(w):
			m.folded = append(m.folded, wanted{w, foldedPrefix + w.label()})
		case w.id == fieldGroups || w.id == fieldAnnotation:
			m.more = append(m.more, wanted{w, w.metadata()})
		default:
			keep[w.id] = true
		}
	}
	for id, wanted := range keep {
		if !wanted && fieldID(id) != fieldGroups {
			m.unwanted = append(m.unwanted, fieldID(id))
		}
	}
	m.resource = keep[fieldResource]
	m.fields = make([]Field, len(metadataNames)+len(m.more)+len(m.folded))
	m.bounded = size < maxMetadata
	return m
}

// put makes a field the one at n, and gives the place of the next: that of this one if the value is empty.
// It does not branch, because which fields an event has changes from line to line.
func put(fields []Field, n int, name string, value []byte) int {
	at := &fields[n]
	at.Name, at.Value = name, value
	if len(value) > 0 {
		n++
	}
	return n
}

// setMetadata gives the structured metadata of an event that came to k.
func (d *Describer) setMetadata(e *Event, k *known) []Field {
	m, f := &d.metadata, d.metadata.fields
	n := 0
	if len(m.unwanted) > 0 {
		n = d.setFolded(k)
		e.forget(m.unwanted)
	}
	n = put(f, n, "audit_id", e.AuditID)
	n = put(f, n, "stage", e.Stage)
	n = put(f, n, "audit_level", e.Level)
	if m.username || k.folds >= FoldedUser || string(e.Username) != k.user {
		if held := d.held(e.Username); m.username || k.folds >= FoldedUser || string(held) != k.user {
			n = put(f, n, "username", held)
		}
	}
	n = put(f, n, "impersonated_user", e.ImpersonatedUsername)
	n = put(f, n, "namespace", e.Namespace)
	n = put(f, n, "name", e.Name)
	n = put(f, n, "code", e.code)
	n = put(f, n, "decision", e.Decision)
	n = put(f, n, "source_ip", e.SourceIP)
	n = put(f, n, "user_agent", e.UserAgent)
	switch k.verb {
	case Other:
		n = put(f, n, "requested_verb", e.Verb)
	case "":
		n = put(f, n, "verb", e.Verb)
	}
	switch k.resource {
	case Other:
		n = put(f, n, "requested_resource", d.resource(e))
	case "":
		n = put(f, n, "resource", d.resource(e))
	}
	for i := range m.more {
		n = put(f, n, m.more[i].name, d.value(m.more[i].field))
	}
	if !e.plain || len(d.scan.line) > maxValue { // otherwise Loki can hold every part of the line
		for i := range f[:n] {
			f[i].Value = d.held(f[i].Value)
		}
	}
	n = put(f, n, "detected_level", detectedLevel(e.Code))
	if !m.bounded {
		d.shorten(f[:n])
	}
	return f[:n]
}

// setFolded puts what labels were before they were folded at the beginning, and gives the place after it.
func (d *Describer) setFolded(k *known) (n int) {
	if k.folds < FoldedUser {
		return 0
	}
	for i := range d.metadata.folded {
		n = put(d.metadata.fields, n, d.metadata.folded[i].name, d.value(d.metadata.folded[i].field))
	}
	return n
}

// shorten cuts the longest values, if Loki would not take all of them together.
func (d *Describer) shorten(fields []Field) {
	names, values := 0, 0
	for i := range fields {
		names += len(fields[i].Name)
		values += len(fields[i].Value)
	}
	if names+values <= maxMetadata {
		return
	}
	share := (maxMetadata - names) / len(fields)
	for i := range fields {
		if f := &fields[i]; len(f.Value) > share {
			from := len(d.scratch)
			d.scratch = appendCut(d.scratch, f.Value, share)
			f.Value = d.scratch[from:len(d.scratch):len(d.scratch)]
		}
	}
}

// resource gives the whole name of what an event is about, if it is wanted.
func (d *Describer) resource(e *Event) []byte {
	if !d.metadata.resource {
		return nil
	}
	if !e.HasObjectRef || len(e.Resource) == 0 {
		return nonResource
	}
	from := len(d.scratch)
	d.scratch = appendResource(d.scratch, e)
	return d.scratch[from:len(d.scratch):len(d.scratch)]
}

// held gives a value as Loki can hold it.
func (d *Describer) held(value []byte) []byte {
	if len(value) <= maxValue && (d.event.plain || fits(value)) {
		return value
	}
	from := len(d.scratch)
	d.scratch = appendValue(d.scratch, value)
	return d.scratch[from:len(d.scratch):len(d.scratch)]
}

var levelInfo, levelWarn, levelError = []byte("info"), []byte("warn"), []byte("error")

var nonResource = []byte(NonResource)

// detectedLevel gives what Loki would otherwise guess by looking for words such as "error" in the line.
func detectedLevel(code int) []byte {
	switch {
	case code >= 500:
		return levelError
	case code >= 400:
		return levelWarn
	}
	return levelInfo
}
