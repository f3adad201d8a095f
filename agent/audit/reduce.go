package audit

import (
	"bytes"
	"cmp"
	"slices"
)

// An event that is longer than Config.MaxLine is reduced: what is large and can be missed is removed until it fits, and an
// annotation of the event says what that was. In this order:
//
//  1. managedFields, of both bodies and of the items of a list: []
//  2. the value of responseObject: {"kind":"Removed", …}
//  3. the value of requestObject: {"kind":"Removed", …}
//  4. the escapes of &, < and >, which are six bytes each in a URL or a body that holds many: written out, nothing is lost
//  5. annotations of the event, the largest first: left out, name and value
//  6. long values in the rest of the event, the largest first (long.go): a string of more than 1 KiB keeps at most 512 bytes and
//     ends in …, an array keeps its last element if those before are more than 1 KiB, an object in
//     which more than 8 KiB are left, or more than ten values were cut, becomes {}. At most 50 names.
//
// A step that would not make the line shorter, because what is removed is shorter than what the annotation says of it, is
// left out. All else stays as it is, byte for byte and in its order. It depends on the bytes of the line and the limit only.
//
// After step 6 any event that kube-apiserver writes is within some 64 KiB, whoever made it; one that a client made without any
// right, within some 24 KiB: it chooses not twenty strings. Too long stays what has very many members or white space.
//
// Loki compares its max_line_size with the bytes of the line alone, structured metadata apart, and refuses what is longer
// (len(entry.Line) > maxSize unless that is 0, in Loki 3.7.8 pkg/distributor/validator.go, ValidateEntry). Its default of 256KB
// is 262,144 bytes (pkg/validation/limits.go).

// What stands where something was removed. A query finds it by `| json | responseObject_kind="Removed"`.
const (
	removedBody = `{"kind":"Removed","apiVersion":"auditferry.io/v1"}`
	removedList = `[]`
)

// worthNaming is the length from which a value may be longer than what the note says of it, in bytes.
const worthNaming = 100

// part is what can be removed under one name. Keys may come twice, so it can be in several places.
type part struct {
	path   string // its name in the note, as text inside of a JSON string
	key    []byte // the same: the rest of the name
	with   string // what stands in each place instead
	places []place
	last   bool // it is the last member of the annotations
}

// place is where a part stands in the line: from and to are what goes with it, value and end its value.
type place struct{ from, to, value, end int }

func (p *part) addValue(from, to int) {
	if len(p.places) == cap(p.places) {
		p.places = slices.Grow(p.places, len(p.places)+1) // doubled: of a list of many items, append would copy too often
	}
	p.places = append(p.places, place{from, to, from, to})
}

// size is how long the values are together.
func (p *part) size() int {
	n := 0
	for _, at := range p.places {
		n += at.end - at.value
	}
	return n
}

// body is one of requestObject and responseObject.
type body struct {
	whole      part
	own, items part // managedFields of its metadata, and of those of its items
}

func newBody(name string) body {
	return body{
		whole: part{path: name, with: removedBody},
		own:   part{path: name + ".metadata.managedFields", with: removedList},
		items: part{path: name + ".items[].metadata.managedFields", with: removedList},
	}
}

// reduction is one event that is too long, and what of it is to go.
type reduction struct {
	s           *scanner
	bodies      [2]body // in the order in which they go
	annotations []place // that can go
	note        noteFrame
	removed     []*part
	writtenOut  bool // step 4
	size        int  // of the line without what is removed, with the note
}

// reduce makes an entry fit whose line is longer than maxLine, or marks it. It needs memory for the reduced line, and for where
// in the line is what may go: hundreds of bytes usually, and less than the line itself whatever body a client has made.
func (d *Describer) reduce(entry *Entry) {
	if entry.Malformed {
		entry.TooLong = true
		return
	}
	r := reduction{s: &d.scan, bodies: [2]body{newBody("responseObject"), newBody("requestObject")}}
	r.read()
	if entry.TooLong = !r.fit(d.maxLine); !entry.TooLong {
		whole := len(entry.Line)
		entry.Line = r.write()
		entry.Removed = whole - len(entry.Line)
	}
}

// read finds everything that may go in a line that is known to be one JSON object.
func (r *reduction) read() {
	s := r.s
	s.at = skipSpace(s.line, 0)
	annotated := false
	s.members(0, func(key []byte) {
		switch string(key) {
		case "responseObject":
			r.bodies[0].read(s)
		case "requestObject":
			r.bodies[1].read(s)
		case "annotations":
			annotated = true
			r.readAnnotations()
		default:
			s.skip(1)
		}
	})
	if !annotated {
		r.note = noteFrame{at: s.at - 1, before: `,"annotations":{`, after: `}`}
	}
}

func (b *body) read(s *scanner) {
	from := s.at
	s.members(1, func(key []byte) {
		switch string(key) {
		case "metadata":
			b.own.readManaged(s, 2)
		case "items":
			s.elements(2, func() {
				s.members(3, func(key []byte) {
					if string(key) == "metadata" {
						b.items.readManaged(s, 4)
					} else {
						s.skip(4)
					}
				})
			})
		default:
			s.skip(2)
		}
	})
	b.whole.addValue(from, s.at)
}

// readManaged takes the managedFields of the metadata at hand.
func (p *part) readManaged(s *scanner, depth int) {
	s.members(depth, func(key []byte) {
		from, managed := s.at, string(key) == "managedFields"
		s.skip(depth + 1)
		if managed && s.at-from > worthNaming {
			p.addValue(from, s.at)
		}
	})
}

// readAnnotations takes the annotations at hand. Those before it are not the event's: of a key that comes twice the last
// counts. An annotation with the name of the note gives way to it, and so do annotations that are no object.
func (r *reduction) readAnnotations() {
	s := r.s
	r.annotations, r.note = nil, noteFrame{}
	before := s.at // the end of the member before, or the brace
	if s.line[before] != '{' {
		s.skip(1)
		r.note = noteFrame{at: s.at, before: `{`, after: `}`}
		r.note.instead = []*part{{path: "annotations", places: []place{{before, s.at, before, s.at}}}}
		return
	}
	old := part{path: "annotations.", key: []byte(noteKey)}
	var noted *[]place // where the last member was noted, if it can go
	s.members(1, func(key []byte) {
		from, value := skipSpace(s.line, skipSpace(s.line, before)+1), s.at
		if noted != nil {
			(*noted)[len(*noted)-1].to = from // it goes with the comma after it
		}
		isOld := string(key) == noteKey
		s.skip(2)
		before, noted, r.note.comma = s.at, nil, true
		switch {
		case isOld:
			noted = &old.places
		case s.at-value > worthNaming:
			noted = &r.annotations
		default:
			return
		}
		*noted = append(*noted, place{from, s.at, value, s.at})
	})
	r.note.at = s.at - 1
	if len(old.places) > 0 {
		old.last = noted == &old.places
		r.note.instead = []*part{&old}
	}
}

// annotation gives the part that one annotation is.
func (r *reduction) annotation(at place) *part {
	key := r.s.line[at.from+1 : stringEnd(r.s.line, at.from+1)-1]
	return &part{path: "annotations.", key: key, places: []place{at}, last: at.to == at.end}
}

// fit removes what it must, and says whether the line is within the limit then.
func (r *reduction) fit(limit int) bool {
	r.size = len(r.s.line) + r.note.length()
	for _, p := range r.note.instead {
		r.remove(p, r.gain(p))
	}
	if r.size > limit {
		for i := range r.bodies {
			r.removeIfShorter(&r.bodies[i].own)
			r.removeIfShorter(&r.bodies[i].items)
		}
	}
	for i := range r.bodies {
		if r.size > limit {
			r.removeBody(&r.bodies[i])
		}
	}
	if r.size > limit {
		r.writeOutIfShorter()
	}
	if r.size > limit {
		r.removeAnnotations(limit)
	}
	if r.size > limit {
		r.cutLong(limit)
	}
	return r.size <= limit
}

// removeAnnotations removes annotations of the event until the line is within the limit, or what the note says of them alone is
// not.
func (r *reduction) removeAnnotations(limit int) {
	slices.SortStableFunc(r.annotations, func(a, b place) int { return cmp.Compare(b.end-b.value, a.end-a.value) })
	note := 0
	for _, at := range r.annotations {
		if r.size <= limit || note > limit {
			return
		}
		p := r.annotation(at)
		note += p.noteLength()
		r.removeIfShorter(p)
	}
}

// gain is how much shorter the line is without a part, what the note says of it included.
func (r *reduction) gain(p *part) int {
	n := -p.noteLength()
	for _, at := range p.places {
		n += at.to - at.from - len(p.with)
		if r.writtenOut {
			n -= escapesSave(r.s.line[at.from:at.to])
		}
	}
	if p.last {
		n++ // the note needs no comma
	}
	return n
}

func (r *reduction) remove(p *part, gain int) {
	r.removed = append(r.removed, p)
	r.size -= gain
	if p.last {
		r.note.comma = false
	}
}

func (r *reduction) removeIfShorter(p *part) {
	if gain := r.gain(p); gain > 0 {
		r.remove(p, gain)
	}
}

// removeBody removes a body whole, with those of its parts that are removed already.
func (r *reduction) removeBody(b *body) {
	gain := r.gain(&b.whole)
	isOf := func(p *part) bool { return p == &b.own || p == &b.items }
	for _, p := range r.removed {
		if isOf(p) {
			gain -= r.gain(p)
		}
	}
	if gain > 0 {
		r.removed = slices.DeleteFunc(r.removed, isOf)
		r.remove(&b.whole, gain)
	}
}

func (r *reduction) writeOutIfShorter() {
	gain, at := -len(separator)-len(writtenOutNote), 0
	for _, c := range r.cuts() {
		gain += escapesSave(r.s.line[at:c.from])
		at = c.to
	}
	gain += escapesSave(r.s.line[at:])
	if gain > 0 {
		r.writtenOut = true
		r.size -= gain
	}
}

// htmlEscape gives the character for which an escape stands if that is &, < or >, else 0. encoding/json, and so kube-apiserver,
// writes these as escapes so that the text may stand in HTML.
func htmlEscape(escape []byte) byte {
	if escape[1] != 'u' {
		return 0
	}
	switch r := hexRune(escape[2:]); r {
	case '&', '<', '>':
		return byte(r)
	}
	return 0
}

// escapesSave is how much shorter valid JSON text is with these characters written out.
func escapesSave(text []byte) (n int) {
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 {
			return n
		}
		if htmlEscape(text[i:]) != 0 {
			n += len(`\u0026`) - 1
		}
		text = text[i+2:]
	}
}

// appendWrittenOut appends valid JSON text with these characters written out.
func appendWrittenOut(dst, text []byte) []byte {
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 {
			return append(dst, text...)
		}
		dst = append(dst, text[:i]...)
		size := 2 // of any other escape as much as cannot be taken for the beginning of one
		if c := htmlEscape(text[i:]); c != 0 {
			dst = append(dst, c)
			size = len(`\u0026`)
		} else {
			dst = append(dst, text[i:i+size]...)
		}
		text = text[i+size:]
	}
}
