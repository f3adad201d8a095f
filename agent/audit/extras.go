package audit

import "slices"

// extras is what is read of an event only if the configuration asks for it, in a second walk over two of its objects, which
// are known to be valid.
type extras struct {
	groups      []byte
	annotations [][]byte // by field.at
	list        [][]byte // scratch
}

// readExtras reads what the configuration asks for beyond Event.
func (d *Describer) readExtras() {
	if d.wants.groups {
		d.extras.groups = nil
		if d.event.userAt > 0 {
			d.readGroups(d.event.userAt)
		}
	}
	if len(d.wants.annotations) > 0 {
		clear(d.extras.annotations)
		if d.event.annotationsAt > 0 {
			d.readAnnotations(d.event.annotationsAt)
		}
	}
}

// readGroups gives user.groups with commas in between.
func (d *Describer) readGroups(at int) {
	s := &d.scan
	s.at = at
	if s.line[at] != '{' {
		return
	}
	for key, ok := s.firstKey(); ok; key, ok = s.nextKey() {
		if string(key) == "groups" {
			d.readList()
		} else {
			s.skip(2)
		}
	}
	if len(d.extras.list) == 1 {
		d.extras.groups = d.extras.list[0]
	} else if len(d.extras.list) > 1 {
		from := len(d.scratch)
		for i, group := range d.extras.list {
			if i > 0 {
				d.scratch = append(d.scratch, ',')
			}
			d.scratch = append(d.scratch, group...)
		}
		d.extras.groups = d.scratch[from:len(d.scratch):len(d.scratch)]
	}
	clear(d.extras.list) // else it keeps the memory of the line
	d.extras.list = d.extras.list[:0]
}

// readList reads the strings of the array at hand into extras.list.
func (d *Describer) readList() {
	s := &d.scan
	d.extras.list = d.extras.list[:0]
	if s.line[s.at] != '[' {
		s.skip(2)
		return
	}
	s.at++
	for s.peek() != ']' {
		if text := d.text(3); len(text) > 0 {
			d.extras.list = append(d.extras.list, text)
		}
		if s.peek() == ',' {
			s.at++
		}
	}
	s.at++
}

func (d *Describer) readAnnotations(at int) {
	s := &d.scan
	s.at = at
	if s.line[at] != '{' {
		return
	}
	for key, ok := s.firstKey(); ok; key, ok = s.nextKey() {
		if i := slices.IndexFunc(d.wants.annotations, func(k string) bool { return k == string(key) }); i >= 0 {
			d.extras.annotations[i] = d.text(2)
		} else {
			s.skip(2)
		}
	}
}

// value gives what the event has in a field, as it was written.
func (d *Describer) value(f field) []byte {
	switch f.id {
	case fieldGroups:
		return d.extras.groups
	case fieldAnnotation:
		return d.extras.annotations[f.at]
	}
	return *d.event.field(f.id)
}

// forget leaves out what is not to be structured metadata.
func (e *Event) forget(unwanted []fieldID) {
	for _, id := range unwanted {
		*e.field(id) = nil
	}
}

// field gives a field that is one string.
func (e *Event) field(id fieldID) *[]byte {
	switch id {
	case fieldVerb:
		return &e.Verb
	case fieldUser:
		return &e.Username
	case fieldResource:
		return &e.Resource
	case fieldNamespace:
		return &e.Namespace
	case fieldName:
		return &e.Name
	case fieldCode:
		return &e.code
	case fieldLevel:
		return &e.Level
	case fieldStage:
		return &e.Stage
	case fieldDecision:
		return &e.Decision
	case fieldImpersonated:
		return &e.ImpersonatedUsername
	case fieldSourceIP:
		return &e.SourceIP
	case fieldUserAgent:
		return &e.UserAgent
	}
	return &e.AuditID
}
