package audit

import (
	"maps"
	"slices"
)

// The bounds of the cache of streams. 800 to 870 streams are normal for a busy cluster.
const (
	maxStreams     = 10_000
	maxStreamBytes = 16 << 20
)

// stream is a label set: as a whole in Loki's syntax, and value by value.
type stream struct {
	labels               string
	verb, user, resource string
	builtin              bool // every event with these words has this stream, whether it was served or not
}

// streams interns the label sets of events. It is bounded: when it is full it starts afresh.
type streams struct {
	fixed map[string]string
	names []string // of all labels, sorted
	// known holds each stream under its key: verb, NUL, the resource as resourceKey gives it or 0, 0 and the first
	// letter of one of our own words, and the label of the user. size is about how many bytes it takes.
	known map[string]*stream
	size  int
	key   []byte // of the event at hand
	text  []byte // scratch
}

func newStreams(cfg Config) (streams, error) {
	fixed, err := cfg.fixed()
	if err != nil {
		return streams{}, err
	}
	names := slices.AppendSeq(slices.Clone(perEvent), maps.Keys(fixed))
	slices.Sort(names)
	return streams{fixed: fixed, names: names, known: make(map[string]*stream)}, nil
}

// of gives the stream of an event. It depends on the event alone, not on what is in the cache.
func (s *streams) of(e *Event) *stream {
	verb := verbLabel(e.Verb)
	if !e.HasObjectRef || len(e.Resource) == 0 {
		return s.ofWord(verb, NonResource, e.Username, e.plain)
	}
	if max(len(e.APIGroup), len(e.Resource), len(e.Subresource)) > maxSegment {
		return s.ofWord(verb, Other, e.Username, e.plain)
	}
	s.key = append(append(s.key[:0], verb...), 0)
	s.key = appendResourceKey(s.key, e)
	userAt := len(s.key)
	s.key = appendUser(s.key, e.Username, e.plain)
	if known := s.known[string(s.key)]; known != nil && (known.builtin || served(e)) {
		return known
	}
	isBuiltin := builtin[string(s.key[len(verb)+1:userAt])]
	if !isBuiltin && !(served(e) && legalResource(e)) {
		return s.ofWord(verb, Other, e.Username, e.plain)
	}
	s.text = appendResource(s.text[:0], e)
	return s.add(stream{verb: verb, user: string(s.key[userAt:]), resource: string(s.text), builtin: isBuiltin})
}

// ofWord gives the stream of an event whose resource is one of our own words.
func (s *streams) ofWord(verb, word string, username []byte, plain bool) *stream {
	s.key = append(append(s.key[:0], verb...), 0, 0, 0, word[0])
	userAt := len(s.key)
	s.key = appendUser(s.key, username, plain)
	if known := s.known[string(s.key)]; known != nil {
		return known
	}
	return s.add(stream{verb: verb, user: string(s.key[userAt:]), resource: word, builtin: true})
}

// ofMalformed gives the stream of what is not one JSON object.
func (s *streams) ofMalformed() *stream {
	return s.ofWord(Other, Malformed, []byte(Other), true)
}

// add keeps a new stream under the key at hand.
func (s *streams) add(st stream) *stream {
	st.labels = s.render(&st)
	size := len(s.key) + len(st.labels) + len(st.user) + len(st.resource) + 200 // about 200 for the map and headers
	if len(s.known) >= maxStreams || s.size+size > maxStreamBytes {
		clear(s.known)
		s.size = 0
	}
	s.known[string(s.key)] = &st
	s.size += size
	return &st
}

// render writes the labels as Loki does itself: {cluster="c", job="j"}, sorted by name.
func (s *streams) render(st *stream) string {
	out := append(s.text[:0], '{')
	for i, name := range s.names {
		if i > 0 {
			out = append(out, ", "...)
		}
		value := s.fixed[name]
		switch name {
		case "verb":
			value = st.verb
		case "user":
			value = st.user
		case "resource":
			value = st.resource
		}
		out = appendPair(out, name, value)
	}
	s.text = append(out, '}')
	return string(s.text)
}
