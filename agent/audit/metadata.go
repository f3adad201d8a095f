package audit

// Field is one name and value of structured metadata.
type Field struct {
	Name  string
	Value []byte // valid until the next call of the Describer
}

// metadataNames are the names of structured metadata that entries can have, in their order.
var metadataNames = [...]string{"audit_id", "stage", "audit_level", "username", "impersonated_user", "namespace", "name",
	"code", "decision", "source_ip", "user_agent", "requested_verb", "requested_resource", "detected_level"}

// setMetadata sets the structured metadata of an event whose stream is st.
func (d *Describer) setMetadata(e *Event, st *stream) {
	d.metadata = d.metadata[:0]
	d.add("audit_id", e.AuditID)
	d.add("stage", e.Stage)
	d.add("audit_level", e.Level)
	if string(e.Username) != st.user {
		d.addUsername(e.Username, st.user)
	}
	d.add("impersonated_user", e.ImpersonatedUsername)
	d.add("namespace", e.Namespace)
	d.add("name", e.Name)
	d.add("code", e.code)
	d.add("decision", e.Decision)
	d.add("source_ip", e.SourceIP)
	d.add("user_agent", e.UserAgent)
	if st.verb == Other {
		d.add("requested_verb", e.Verb)
	}
	if st.resource == Other {
		from := len(d.scratch)
		d.scratch = appendResource(d.scratch, e)
		d.add("requested_resource", d.scratch[from:len(d.scratch):len(d.scratch)])
	}
	d.metadata = append(d.metadata, Field{"detected_level", detectedLevel(e.Code)})
}

// addUsername adds the user name as Loki can hold it, unless the label is just that.
func (d *Describer) addUsername(username []byte, label string) {
	d.add("username", username)
	if last := len(d.metadata) - 1; last >= 0 && d.metadata[last].Name == "username" && string(d.metadata[last].Value) == label {
		d.metadata = d.metadata[:last]
	}
}

// add appends a field, unless the value is empty.
func (d *Describer) add(name string, value []byte) {
	if len(value) == 0 {
		return
	}
	if len(value) > maxValue || !d.event.plain && !fits(value) {
		from := len(d.scratch)
		d.scratch = appendValue(d.scratch, value)
		value = d.scratch[from:len(d.scratch):len(d.scratch)]
	}
	d.metadata = append(d.metadata, Field{name, value})
}

var levelInfo, levelWarn, levelError = []byte("info"), []byte("warn"), []byte("error")

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
