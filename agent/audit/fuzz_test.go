package audit

import (
	"bytes"
	"testing"
	"unicode/utf8"
)

func addSeeds(f *testing.F) {
	for _, line := range seeds {
		f.Add([]byte(line))
	}
	lines := corpusLines(f, "sample.log")
	for i := 0; i < len(lines); i += 40 {
		if len(lines[i]) < 2000 {
			f.Add(lines[i])
		}
	}
	for _, damaged := range []string{"torn-glued.log", "legacy-format.log", "nul-hole.log.gz"} {
		for _, line := range corpusLines(f, damaged) {
			if len(line) < 4000 {
				f.Add(line)
			}
		}
	}
	f.Add(bytes.Join(lines[:2], nil))
	f.Add(append(lines[0][:300:300], lines[1]...))
	f.Add(append([]byte("\x00\x00 \x00"), lines[3]...))
}

// FuzzDescribe lets no line pass of which encoding/json says something else.
func FuzzDescribe(f *testing.F) {
	addSeeds(f)
	d := newDescriber(f)
	f.Fuzz(func(t *testing.T, line []byte) { checkEntry(t, d, line) })
}

// FuzzEntries holds for any line that its pieces are the line, and that a piece is what Entry says of it alone.
func FuzzEntries(f *testing.F) {
	addSeeds(f)
	d, alone := newDescriber(f), newDescriber(f)
	f.Fuzz(func(t *testing.T, line []byte) { checkPieces(t, d, alone, line) })
}

// FuzzStream puts any words into an event, and wants them back from the label set.
func FuzzStream(f *testing.F) {
	f.Add("bob", "things\n", "apps", "")
	f.Add("a\x00b\"\\\x7f\u202e\U0001f600\ufffd", "pods", "", "exec")
	f.Fuzz(func(t *testing.T, user, resource, group, subresource string) {
		d := newDescriber(t)
		e := Event{Username: []byte(user), HasObjectRef: true, Resource: []byte(resource), APIGroup: []byte(group),
			Subresource: []byte(subresource), Code: 200}
		if !utf8.ValidString(user) {
			t.Skip("Describe gives UTF-8 only")
		}
		o := oracle{ok: true, username: user, hasRef: true, resource: resource, group: group, subresource: subresource, code: 200}
		_, wantUser, wantResource := o.labels()
		for range 2 {
			labels := parseStream(t, d.streamOf(&e, earlier()).labels)
			if labels["user"] != wantUser || labels["resource"] != wantResource || len(labels) != 8 {
				t.Errorf("%q, want user %q, resource %q", labels, wantUser, wantResource)
			}
		}
	})
}
