package audit

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"time"
)

// The bounds of the cache of what events have come to.
const (
	maxKnown      = 4096
	maxKnownBytes = 4 << 20
)

// stream is a label set: as a whole in Loki's syntax, and value by value. A value is empty where there is no such label.
type stream struct {
	labels               string
	verb, user, resource string
	words                []string // of all labels that depend on the event, as configured
	from                 int64    // position from which it is admitted
}

// Folds says in which ways labels of an entry became Other.
type Folds uint8

// The ways are bits. Of the last two, no more than one is set.
const (
	FoldedVerb     Folds = 1 << iota // the verb is not Kubernetes' or HTTP's
	FoldedResource                   // the resource is not admitted
	FoldedUser                       // there was no room for a stream with the user
	FoldedAll                        // nor for one with the resource
)

// known is the stream of events that are alike, from a position and a time on.
type known struct {
	since  int64     // position
	after  time.Time // zero where the position alone tells
	folds  Folds
	stream // a copy: this is what every event asks for
}

// streams gives events their streams.
type streams struct {
	path      string
	fixed     map[string]string
	names     []string // of all labels, sorted
	fields    []field  // of the labels that depend on the event
	userClass bool
	things    bool // the resource is a label
	usual     bool // the labels are the default ones

	all       *Admissions
	admitted  *admitted
	malformed *stream

	// known holds what events came to by what is in them: the words of the labels, with the subject in the place of the
	// resource. It is a cache, and starts afresh when it is full; size is about how many bytes it takes.
	known map[string]*known
	size  int
	first time.Time // of the first event that was read of the file, or since lines are read again

	key, subject, label, full, text []byte // scratch
}

func newStreams(cfg Config, f *fields, all *Admissions, path string) (streams, error) {
	fixed, err := cfg.fixed(f)
	if err != nil {
		return streams{}, err
	}
	s := streams{
		path: path, fixed: fixed, fields: f.labels, userClass: f.user == UserClass, things: f.isLabel(field{id: fieldResource}),
		usual: f.user == UserName && f.kind() == streamKind+strings.Join(DefaultLabelFields, ","),
		all:   all, admitted: all.paths[path], known: make(map[string]*known),
	}
	s.names = slices.Collect(maps.Keys(fixed))
	for _, l := range f.labels {
		s.names = append(s.names, l.label())
	}
	slices.Sort(s.names)
	for _, st := range s.admitted.streams {
		s.complete(st)
	}
	s.malformed = s.newMalformed()
	return s, nil
}

// newMalformed makes the stream of what is not one JSON object. It has a label resource in any case.
func (s *streams) newMalformed() *stream {
	if !s.things {
		names := append(slices.Sorted(maps.Keys(s.fixed)), "resource")
		slices.Sort(names)
		st := &stream{resource: Malformed}
		st.labels = s.render(names, func(string) string { return Malformed })
		return st
	}
	st := &stream{words: slices.Repeat([]string{Other}, len(s.fields))}
	for i, l := range s.fields {
		if l.id == fieldResource {
			st.words[i] = Malformed
		}
	}
	s.complete(st)
	return st
}

// The subjects of events that are not about a resource, or about none that is admitted. They are unlike any resourceKey.
var (
	subjectNone  = []byte{0, 0, 0, NonResource[0]}
	subjectOther = []byte{0, 0, 0, Other[0]}
)

// streamOf gives the stream of the event at hand, which stands at a position.
func (d *Describer) streamOf(e *Event, at int64) *known {
	s := &d.streams
	if s.usual {
		s.key = appendSubject(append(append(s.key[:0], verbLabel(e.Verb)...), 0), e)
		s.key = appendUser(s.key, e.Username, e.plain)
	} else {
		s.key = d.appendKey(s.key[:0], e, nil)
	}
	if k := s.known[string(s.key)]; k != nil && k.since <= at && !e.Time.Before(k.after) {
		return k
	}
	return d.resolve(e, at)
}

// appendKey appends what the labels of an event depend on, without ambiguity. A subject, if there is one, is in the place of
// that of the event.
func (d *Describer) appendKey(dst []byte, e *Event, subject []byte) []byte {
	if d.streams.usual { // in fewer steps, as by streamOf
		dst = append(append(append(dst, verbLabel(e.Verb)...), 0), subject...)
		return appendUser(dst, e.Username, e.plain)
	}
	for i := range d.streams.fields {
		switch f := &d.streams.fields[i]; f.id {
		case fieldVerb:
			verb := verbLabel(e.Verb)
			dst = append(append(dst, byte(len(verb))), verb...)
		case fieldResource:
			if subject == nil {
				dst = appendSubject(dst, e)
			} else {
				dst = append(dst, subject...)
			}
		default:
			dst = d.appendOwn(dst, e, f)
		}
	}
	return dst
}

// appendWords appends the words of the labels of an event at a level of folding.
func (d *Describer) appendWords(dst []byte, e *Event, resource []byte, level int) []byte {
	for i := range d.streams.fields {
		switch f := &d.streams.fields[i]; {
		case f.id == fieldVerb:
			dst = appendWord(dst, verbLabel(e.Verb))
		case f.id == fieldResource && level < verbOnly:
			dst = appendWord(dst, resource)
		case level > asItIs:
			dst = appendWord(dst, Other)
		default:
			dst = d.appendOwn(dst, e, f)
		}
	}
	return dst
}

// appendOwn appends the word of a label that the event alone decides.
func (d *Describer) appendOwn(dst []byte, e *Event, f *field) []byte {
	at := len(dst)
	dst = append(dst, 0, 0)
	switch {
	case f.id != fieldUser:
		dst = appendValue(dst, d.value(*f))
	case d.streams.userClass:
		dst = append(dst, classOf(e.Username)...)
	default:
		dst = appendUser(dst, e.Username, e.plain)
	}
	size := len(dst) - at - 2
	dst[at], dst[at+1] = byte(size>>8), byte(size)
	return dst
}

// appendSubject appends what an event is about, without ambiguity.
func appendSubject(dst []byte, e *Event) []byte {
	switch {
	case !e.HasObjectRef || len(e.Resource) == 0:
		return append(dst, subjectNone...)
	case max(len(e.APIGroup), len(e.Resource), len(e.Subresource)) > maxSegment:
		return append(dst, subjectOther...)
	}
	return appendResourceKey(dst, e)
}

// resolve is streamOf for an event that is not known.
func (d *Describer) resolve(e *Event, at int64) *known {
	s := &d.streams
	if s.first.IsZero() {
		s.first = e.Time
	}
	k := known{}
	if s.things {
		s.subject = appendSubject(s.subject[:0], e)
		var admitted bool
		if k.since, k.after, admitted = s.labelResource(e, at); !admitted {
			s.key = d.appendKey(s.key[:0], e, subjectOther)
			if k := s.known[string(s.key)]; k != nil && k.since <= at {
				return k
			}
			k.folds |= FoldedResource
		}
	}
	var st *stream
	level := asItIs
	for ; st == nil; level++ {
		s.text = d.appendWords(s.text[:0], e, s.label, level)
		if level == asItIs {
			s.full = append(s.full[:0], s.text...)
		}
		st = s.admit(s.text, level, at)
	}
	level--
	k.stream = *st
	k.since = max(k.since, st.from)
	if level > asItIs {
		k.since = at
		if !bytes.Equal(s.text, s.full) { // something was left to become Other
			k.folds |= FoldedUser << (level - withoutUser)
		}
	}
	if k.verb == Other {
		k.folds |= FoldedVerb
	}
	return s.remember(k)
}

// labelResource makes s.label the label of the resource. If it is one that had to be admitted, it gives from where on it is, by
// position or time; it gives false if it is not.
func (s *streams) labelResource(e *Event, at int64) (from int64, since time.Time, ok bool) {
	switch {
	case bytes.Equal(s.subject, subjectNone):
		s.label = append(s.label[:0], NonResource...)
		return 0, since, true
	case !bytes.Equal(s.subject, subjectOther) && !builtin[string(s.subject)]:
		from, since, ok = s.admitResource(e, at)
	default:
		ok = builtin[string(s.subject)]
	}
	if !ok {
		s.label = append(s.label[:0], Other...)
		return 0, time.Time{}, false
	}
	s.label = appendResource(s.label[:0], e)
	return from, since, true
}

// admitResource says whether the resource of an event, of which the subject is the key, is admitted, and from where on. It is
// once the server has had what the client asked for.
func (s *streams) admitResource(e *Event, at int64) (from int64, since time.Time, ok bool) {
	r, ok := s.admitted.resources[string(s.subject)]
	shown := served(e) && legalResource(e)
	switch {
	case ok && r.from == ByTime && shown:
		r.shown = true
		s.admitted.resources[string(s.subject)] = r
		return 0, since, true
	case ok && r.from == ByTime:
		since = r.bound(s.first)
		return 0, since, !e.Time.Before(since)
	case ok && r.from <= at:
		return r.from, since, true
	case !shown:
		return 0, since, false
	}
	one := Admission{Path: s.path, From: at, Since: e.Time, Kind: resourceKind,
		Words: []string{string(e.APIGroup), string(e.Resource), string(e.Subresource)}}
	if ok {
		s.all.earlier(one)
	} else if !s.all.resource(one) {
		return 0, since, false
	}
	s.admitted.resources[string(s.subject)] = admittedResource{from: at, since: e.Time}
	return at, since, true
}

// again is to be called before lines that may have been read before, at other positions.
func (s *streams) again() {
	s.all.again(s.path)
	s.nextFile()
}

// nextFile is to be called before the first line of another file. The one that showed that a resource is served can be in one that
// is not read this time, before this one.
func (s *streams) nextFile() {
	clear(s.known)
	s.size = 0
	s.first = time.Time{}
}

// admit gives the stream of some words, nil if it is not admitted and there is no room at that level.
func (s *streams) admit(words []byte, level int, at int64) *stream {
	st := s.admitted.streams[string(words)]
	switch {
	case st != nil && st.from <= at:
		return st
	case st == nil && s.all.full(level):
		return nil
	case st != nil:
		st.from = at
		s.all.earlier(Admission{Path: s.path, From: at, Kind: s.all.kind, Words: st.words})
		return st
	}
	st = &stream{words: splitWords(words), from: at}
	if !s.all.stream(level, Admission{Path: s.path, From: at, Words: st.words}) {
		return nil
	}
	s.complete(st)
	s.admitted.streams[string(words)] = st
	return st
}

// remember keeps what an event came to under the key at hand.
func (s *streams) remember(k known) *known {
	size := len(s.key) + 200 // about 200 for the map and the value
	if len(s.known) >= maxKnown || s.size+size > maxKnownBytes {
		clear(s.known)
		s.size = 0
	}
	s.known[string(s.key)] = &k
	s.size += size
	return &k
}

// complete fills in what the words of a stream give.
func (s *streams) complete(st *stream) {
	values := maps.Clone(s.fixed)
	for i, l := range s.fields {
		values[l.label()] = st.words[i]
		switch l.id {
		case fieldVerb:
			st.verb = st.words[i]
		case fieldUser:
			st.user = st.words[i]
		case fieldResource:
			st.resource = st.words[i]
		}
	}
	st.labels = s.render(s.names, func(name string) string { return values[name] })
}

// render writes labels as Loki does itself, {cluster="c", job="j"}, without those that are empty, which Loki drops.
func (s *streams) render(names []string, value func(name string) string) string {
	out := append(s.text[:0:0], '{')
	for _, name := range names {
		v, isFixed := s.fixed[name]
		if !isFixed {
			v = value(name)
		}
		if v == "" {
			continue
		}
		if len(out) > 1 {
			out = append(out, ", "...)
		}
		out = appendPair(out, name, v)
	}
	return string(append(out, '}'))
}
