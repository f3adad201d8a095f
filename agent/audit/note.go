package audit

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
)

// noteKey is the annotation of a reduced event that says what was removed:
//
//	responseObject: 1538799 bytes, sha256 9f86d0…; requestObject.metadata.managedFields: 2031 bytes, sha256 60303a…
//
// Size and hash are those of the value as it stood in the line; of several places under one name, those of all values, one
// after another. `| json` makes it the label annotations_auditferry_io_reduced.
const noteKey = "auditferry.io/reduced"

const (
	noteMember = `"` + noteKey + `":"` // its text and a quote follow
	separator  = "; "
	ofBytes    = " bytes, sha256 "
	// writtenOutNote tells of step 4.
	writtenOutNote = "escapes of &, < and > written out"
)

// noteFrame is where the note goes.
type noteFrame struct {
	at            int     // before this byte of the line
	before, after string  // around the member
	comma         bool    // before the member, since another one stays before it
	instead       []*part // what has to give way
}

// length is that of the frame with an empty note, less the separator that the first part of a note does without.
func (f *noteFrame) length() int {
	n := len(f.before) + len(noteMember) + len(`"`) + len(f.after) - len(separator)
	if f.comma {
		n++
	}
	return n
}

// noteLength is how long what the note says of a part is, with a separator.
func (p *part) noteLength() int {
	var digits [20]byte
	return len(separator) + len(p.path) + len(p.key) + len(": ") + len(strconv.AppendInt(digits[:0], int64(p.size()), 10)) +
		len(ofBytes) + hex.EncodedLen(sha256.Size)
}

// appendNote appends the note in its frame.
func (r *reduction) appendNote(dst []byte) []byte {
	dst = append(dst, r.note.before...)
	if r.note.comma {
		dst = append(dst, ',')
	}
	dst = append(dst, noteMember...)
	for i, p := range r.removed {
		if i > 0 {
			dst = append(dst, separator...)
		}
		hash := sha256.New()
		for _, at := range p.places {
			hash.Write(r.s.line[at.value:at.end])
		}
		var sum [sha256.Size]byte
		dst = append(append(append(dst, p.path...), p.key...), ": "...)
		dst = append(strconv.AppendInt(dst, int64(p.size()), 10), ofBytes...)
		dst = hex.AppendEncode(dst, hash.Sum(sum[:0]))
	}
	if r.writtenOut {
		if len(r.removed) > 0 {
			dst = append(dst, separator...)
		}
		dst = append(dst, writtenOutNote...)
	}
	return append(append(dst, '"'), r.note.after...)
}

// cut is a piece of the line that goes, and what stands there instead.
type cut struct {
	from, to int
	with     string
}

// cuts gives what was removed in the order of the line.
func (r *reduction) cuts() []cut {
	n := 1 // for the note
	for _, p := range r.removed {
		n += len(p.places)
	}
	cuts := make([]cut, 0, n)
	for _, p := range r.removed {
		for _, at := range p.places {
			cuts = append(cuts, cut{at.from, at.to, p.with})
		}
	}
	slices.SortFunc(cuts, func(a, b cut) int { return cmp.Compare(a.from, b.from) })
	return cuts
}

// write gives the line without what is removed and with the note: r.size bytes.
func (r *reduction) write() []byte {
	out, at := make([]byte, 0, r.size), 0
	keep := func(to int) {
		if text := r.s.line[at:to]; r.writtenOut {
			out = appendWrittenOut(out, text)
		} else {
			out = append(out, text...)
		}
		at = to
	}
	noted := false
	for _, c := range append(r.cuts(), cut{from: len(r.s.line), to: len(r.s.line)}) {
		if !noted && c.from >= r.note.at {
			keep(r.note.at)
			out = r.appendNote(out)
			noted = true
		}
		keep(c.from)
		out = append(out, c.with...)
		at = c.to
	}
	return out
}
