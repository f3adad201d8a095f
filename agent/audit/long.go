package audit

import (
	"cmp"
	"fmt"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// Whoever can reach kube-apiserver chooses much of an event outside of its bodies, without any right: the URL, which is also in
// objectRef and in the message and details of responseStatus, the method, and the headers User-Agent, Audit-ID and
// X-Forwarded-For (sourceIPs). net/http takes a megabyte of these together, and an escape makes six bytes of one.

const (
	// longLeast is the length from which a string, or the elements of an array before its last, are long, in bytes of the line.
	longLeast = 1 << 10
	// longKept is how much of a long string stays at the most.
	longKept = 512
	// longObject is the length from which an object is long although what is long in it is cut.
	longObject = 8 << 10
	// longInside is how many values may be cut in one object; one with more goes whole. An event has four objects.
	longInside = 10
	// longParts is how many names the note has of these at the most.
	longParts = 50
	// longDeepest is how deep what is long is looked for: the fields of a cause in responseStatus.details.causes are that deep.
	longDeepest = 4
	// longKey is how much of a key the note has at the most.
	longKey = 64
)

// longValue is a value outside of bodies and annotations that is long, and what may go of it.
type longValue struct {
	path string
	at   place
	with string
}

// longValues finds them. Where one is inside of another, only one is there: they do not overlap.
type longValues struct {
	s     *scanner
	path  []byte // of the value at hand, as text inside of a JSON string
	found []longValue
}

// cutLong cuts long values until the line is within the limit.
func (r *reduction) cutLong(limit int) {
	parts := r.longParts()
	slices.SortStableFunc(parts, func(a, b *part) int { return cmp.Compare(b.size(), a.size()) })
	for _, p := range parts[:min(len(parts), longParts)] {
		if r.size <= limit {
			return
		}
		r.removeIfShorter(p)
	}
}

// longParts gives what is long by its name.
func (r *reduction) longParts() []*part {
	s := r.s
	s.at = skipSpace(s.line, 0)
	w := longValues{s: s}
	s.members(0, func(key []byte) {
		switch string(key) {
		case "requestObject", "responseObject", "annotations":
			s.skip(1)
		default:
			w.path = appendKey(w.path[:0], key)
			w.value(1)
		}
	})
	var parts []*part
	type kind struct{ path, with string } // of a key that comes twice, one value may be a string and one a list
	named := make(map[kind]*part)
	for _, v := range w.found {
		name := kind{v.path, v.with}
		p := named[name]
		if p == nil {
			p = &part{path: v.path, with: v.with}
			named[name], parts = p, append(parts, p)
		}
		p.places = append(p.places, v.at)
	}
	return parts
}

// value passes over the value at hand, and gives how much shorter it can become.
func (w *longValues) value(depth int) int {
	s := w.s
	from := s.at
	switch first := s.line[from]; {
	case first == '[' && depth <= longDeepest:
		return w.array(depth)
	case first == '{' && depth <= longDeepest:
		return w.object(depth)
	}
	s.skip(depth)
	if s.line[from] != '"' || s.at-from-len(`""`) <= longLeast {
		return 0
	}
	end := s.at - 1
	cut := cutAt(s.line[:end], from+1, longKept)
	w.add(place{cut, end, from, s.at}, ellipsis)
	return end - cut - len(ellipsis)
}

func (w *longValues) add(at place, with string) {
	w.found = append(w.found, longValue{string(w.path), at, with})
}

// array keeps the last element: of sourceIPs that is the peer itself, and what comes before is what the peer says.
func (w *longValues) array(depth int) int {
	s := w.s
	from, name, before := s.at, len(w.path), len(w.found)
	first, last, saved := 0, 0, 0
	lastFound, lastSaved := before, 0 // of the last element
	w.path = append(w.path, "[]"...)
	s.elements(depth, func() {
		if first == 0 {
			first = s.at
		}
		saved += lastSaved
		last, lastFound = s.at, len(w.found)
		lastSaved = w.value(depth + 1)
	})
	w.path = w.path[:name]
	if last-first-saved > longLeast {
		ofLast := slices.Clone(w.found[lastFound:])
		w.found = w.found[:before]
		w.add(place{first, last, from, s.at}, "")
		w.found = append(w.found, ofLast...)
		saved = last - first
	}
	return saved + lastSaved
}

// object goes whole if cutting inside of it is not enough: with very many members, or very long keys.
func (w *longValues) object(depth int) int {
	s := w.s
	from, name, before, saved := s.at, len(w.path), len(w.found), 0
	s.members(depth, func(key []byte) {
		w.path = appendKey(append(w.path[:name], '.'), key)
		saved += w.value(depth + 1)
	})
	w.path = w.path[:name]
	if s.at-from-saved > longObject || len(w.found)-before > longInside {
		w.found = w.found[:before]
		w.add(place{from, s.at, from, s.at}, `{}`)
		saved = s.at - from - len(`{}`)
	}
	return saved
}

// appendKey appends a decoded key, or its beginning, as text inside of a JSON string.
func appendKey(dst, key []byte) []byte {
	whole := len(key) <= longKey
	if !whole {
		end := longKey
		for !utf8.RuneStart(key[end]) {
			end--
		}
		key = key[:end]
	}
	for _, r := range string(key) {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r < ' ':
			dst = fmt.Appendf(dst, `\u%04x`, r)
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	if !whole {
		dst = append(dst, ellipsis...)
	}
	return dst
}

// cutAt gives the last offset within size bytes from the offset from on at which the inside of a JSON string can be cut: not in an
// escape, nor between the two of a surrogate pair, nor in a character of UTF-8.
func cutAt(text []byte, from, size int) int {
	for at := from; ; {
		next := at + 1
		switch {
		case text[at] == '\\':
			next = at + int(escapeSize[text[at+1]])
			if isPair(text[at:]) {
				next += len(`\ude00`)
			}
		case text[at] >= utf8.RuneSelf:
			_, n := utf8.DecodeRune(text[at:])
			next = at + n
		}
		if next > from+size {
			return at
		}
		at = next
	}
}

// isPair says whether an escape is the first of a surrogate pair.
func isPair(text []byte) bool {
	return len(text) >= len(`\ud83d\ude00`) && text[1] == 'u' && text[6] == '\\' && text[7] == 'u' &&
		utf16.DecodeRune(hexRune(text[2:]), hexRune(text[8:])) != utf8.RuneError
}
