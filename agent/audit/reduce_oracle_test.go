package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// jsonMember is one member of an object, as encoding/json reads it: in order, and twice if it is there twice.
type jsonMember struct {
	key string
	raw json.RawMessage
}

// membersOf is nil for what is no object.
func membersOf(t *testing.T, raw []byte) []jsonMember {
	t.Helper()
	if len(raw) == 0 || raw[0] != '{' {
		return nil
	}
	members := []jsonMember{}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	_, err := decoder.Token()
	for err == nil && decoder.More() {
		var key json.Token
		if key, err = decoder.Token(); err == nil {
			m := jsonMember{key: key.(string)}
			err = decoder.Decode(&m.raw)
			members = append(members, m)
		}
	}
	if err != nil {
		t.Fatalf("reading the members of %q: %v", raw, err)
	}
	return members
}

var anEscape = regexp.MustCompile(`\\(u0026|u003[cCeE]|.)`)

// htmlWrittenOut is JSON text with &, < and > for their escapes.
func htmlWrittenOut(raw []byte) []byte {
	return anEscape.ReplaceAllFunc(raw, func(escape []byte) []byte {
		switch strings.ToLower(string(escape)) {
		case `\u0026`:
			return []byte("&")
		case `\u003c`:
			return []byte("<")
		case `\u003e`:
			return []byte(">")
		}
		return escape
	})
}

// comparison compares an event with what it was reduced to, member by member, and notes what is gone.
type comparison struct {
	t          *testing.T
	writtenOut bool
	gone       map[string][]byte // the values by name, one after another
	several    []string          // entries of the note for annotations
}

func (c *comparison) same(was, is []byte) bool {
	return bytes.Equal(was, is) || c.writtenOut && bytes.Equal(htmlWrittenOut(was), is)
}

func (c *comparison) wantSame(where string, was, is []byte) {
	c.t.Helper()
	if !c.same(was, is) {
		c.t.Errorf("%s was\n%.500q, is\n%.500q", where, was, is)
	}
}

// pairs calls visit for each two members that are at the same place; values that are no objects must be the same.
func (c *comparison) pairs(where string, was, is []byte, visit func(key string, was, is json.RawMessage)) {
	c.t.Helper()
	a, b := membersOf(c.t, was), membersOf(c.t, is)
	if a == nil || len(a) != len(b) {
		c.wantSame(where, was, is)
		return
	}
	for i := range a {
		if a[i].key != b[i].key {
			c.t.Errorf("member %d of %s was %q, is %q", i, where, a[i].key, b[i].key)
			return
		}
		visit(a[i].key, a[i].raw, b[i].raw)
	}
}

func (c *comparison) body(name string, was, is json.RawMessage) {
	if string(is) == `{"kind":"Removed","apiVersion":"auditferry.io/v1"}` && !c.same(was, is) {
		c.gone[name] = append(c.gone[name], was...)
		return
	}
	c.pairs(name, was, is, func(key string, was, is json.RawMessage) {
		switch {
		case key == "metadata":
			c.metadata(name+".metadata", was, is)
		case key == "items" && was[0] == '[':
			var a, b []json.RawMessage
			if json.Unmarshal(was, &a) != nil || json.Unmarshal(is, &b) != nil || len(a) != len(b) {
				c.t.Errorf("%s had %d items, has %d", name, len(a), len(b))
				return
			}
			for i := range a {
				c.pairs("an item of "+name, a[i], b[i], func(key string, was, is json.RawMessage) {
					if key == "metadata" {
						c.metadata(name+".items[].metadata", was, is)
					} else {
						c.wantSame(key, was, is)
					}
				})
			}
		default:
			c.wantSame(name+"."+key, was, is)
		}
	})
}

func (c *comparison) metadata(name string, was, is json.RawMessage) {
	c.pairs(name, was, is, func(key string, was, is json.RawMessage) {
		if key == "managedFields" && string(is) == "[]" && !c.same(was, is) {
			c.gone[name+".managedFields"] = append(c.gone[name+".managedFields"], was...)
			return
		}
		c.wantSame(name+"."+key, was, is)
	})
}

// annotations compares those that count, of which the note is the last now.
func (c *comparison) annotations(was, is json.RawMessage) {
	left := membersOf(c.t, is)
	left = left[:len(left)-1]
	if membersOf(c.t, was) == nil && len(was) > 0 {
		c.gone["annotations"] = was
	}
	for _, m := range membersOf(c.t, was) {
		switch {
		case m.key == "auditferry.io/reduced":
			c.gone["annotations."+m.key] = append(c.gone["annotations."+m.key], m.raw...)
		case len(left) > 0 && left[0].key == m.key && c.same(m.raw, left[0].raw):
			left = left[1:]
		default:
			c.several = append(c.several, noteOf("annotations."+m.key, m.raw))
		}
	}
	if len(left) > 0 {
		c.t.Errorf("%d annotations that were not there, the first is %q", len(left), left[0].key)
	}
}

func noteOf(name string, raw []byte) string {
	return fmt.Sprintf("%s: %d bytes, sha256 %x", name, len(raw), sha256.Sum256(raw))
}

// wantNote compares the note with what is gone.
func (c *comparison) wantNote(note string) {
	want := c.several
	for name, raw := range c.gone {
		name, _, _ = strings.Cut(name, "\x00")
		want = append(want, noteOf(name, raw))
	}
	if c.writtenOut {
		want = append(want, "escapes of &, < and > written out")
	}
	slices.Sort(want)
	if got := sortedWords(note); got != sortedWords(strings.Join(want, "; ")) {
		c.t.Errorf("the note is\n%q, want\n%q", note, want)
	}
}

// sortedWords makes notes comparable of which the order, and names that hold a separator, do not matter.
func sortedWords(note string) string {
	words := strings.Split(note, "; ")
	slices.Sort(words)
	return strings.Join(words, "; ")
}

// describerWithin gives a Describer with a limit of lines.
func describerWithin(tb testing.TB, limit int) *Describer {
	tb.Helper()
	cfg := Config{Node: "cp-1", MaxLine: limit}
	return describerOf(tb, cfg, newAdmissions(tb, cfg, 1<<40))
}

// checkReduced compares what is made of a line under a limit with the line itself, and gives it.
func checkReduced(t *testing.T, line []byte, limit int) Entry {
	t.Helper()
	describer, unlimited := describerWithin(t, limit), describerWithin(t, 0)
	original := bytes.Clone(line)
	got, want := describer.Entry(line, before, 1), unlimited.Entry(original, before, 1)
	if !bytes.Equal(line, original) {
		t.Fatal("the line itself was changed")
	}
	if got.Stream != want.Stream || !got.Time.Equal(want.Time) || got.Malformed != want.Malformed || got.Blank != want.Blank ||
		fmt.Sprintf("%q", got.Metadata) != fmt.Sprintf("%q", want.Metadata) {
		t.Errorf("the entry is\n%+v, of the whole event it is\n%+v", got, want)
	}
	switch {
	case len(line) <= limit || got.TooLong:
		if !bytes.Equal(got.Line, original) || got.Removed != 0 || got.TooLong != (len(line) > limit) {
			t.Errorf("a line of %d bytes became one of %d, %d removed, too long: %v", len(line), len(got.Line), got.Removed, got.TooLong)
		}
		if got.TooLong && !got.Malformed {
			if least := longestLeft(t, original); least <= limit {
				t.Errorf("too long for %d, but it fits within %d: %.500q", limit, least, original)
			}
		}
	case got.Malformed:
		t.Errorf("malformed, %d bytes, and not too long for %d", len(line), limit)
	default:
		checkLeft(t, original, got.Line, limit)
		if got.Removed != len(line)-len(got.Line) || cap(got.Line) != len(got.Line) {
			t.Errorf("%d bytes became %d, said to be %d fewer, in memory for %d", len(line), len(got.Line), got.Removed, cap(got.Line))
		}
	}
	return got
}

// checkLeft compares an event with what it was reduced to.
func checkLeft(t *testing.T, line, left []byte, limit int) {
	t.Helper()
	if !json.Valid(left) || len(left) > limit {
		t.Fatalf("%d bytes, the limit is %d, valid: %v: %.500q", len(left), limit, json.Valid(left), left)
	}
	was, is := membersOf(t, bytes.TrimSpace(line)), membersOf(t, bytes.TrimSpace(left))
	isAnnotations := func(m jsonMember) bool { return m.key == "annotations" }
	if !slices.ContainsFunc(was, isAnnotations) {
		was = append(was, jsonMember{key: "annotations"})
	}
	if len(was) != len(is) {
		t.Fatalf("%d members became %d: %.500q", len(was), len(is), left)
	}
	at := len(was) - 1
	for !isAnnotations(was[at]) {
		at--
	}
	annotations := membersOf(t, is[at].raw)
	var note string
	if len(annotations) == 0 || annotations[len(annotations)-1].key != "auditferry.io/reduced" ||
		json.Unmarshal(annotations[len(annotations)-1].raw, &note) != nil {
		t.Fatalf("no note in the annotations %.500q", is[at].raw)
	}
	c := comparison{t: t, writtenOut: strings.HasSuffix(note, "escapes of &, < and > written out"), gone: map[string][]byte{}}
	for i := range was {
		switch {
		case was[i].key != is[i].key:
			t.Fatalf("member %d was %q, is %q", i, was[i].key, is[i].key)
		case was[i].key == "requestObject" || was[i].key == "responseObject":
			c.body(was[i].key, was[i].raw, is[i].raw)
		case i == at:
			c.annotations(was[i].raw, is[i].raw)
		case was[i].key == "annotations":
			c.wantSame(was[i].key, was[i].raw, is[i].raw)
		default:
			c.long(longName("", was[i].key), was[i].raw, is[i].raw)
		}
	}
	c.wantNote(note)
}

// longestLeft gives a length within which an event can surely be reduced.
func longestLeft(t *testing.T, line []byte) int {
	members := membersOf(t, bytes.TrimSpace(line))
	const note, entry = 600, 150
	n := len(line) + note
	rest := line
	drop := func(raw []byte) {
		n -= len(raw)
		if at := bytes.Index(rest, raw); at >= 0 { // for counting escapes, one that is the same will do
			rest = slices.Concat(rest[:at], rest[at+len(raw):])
		}
	}
	var annotations json.RawMessage
	long := 0
	for _, m := range members {
		switch m.key {
		case "requestObject", "responseObject":
			drop(m.raw)
			n += len(removedBody)
		case "annotations":
			annotations = m.raw
		default:
			if left, names := longLeft(t, m.raw); left < len(m.raw) {
				drop(m.raw)
				n += left
				if long += names; long > 50 {
					return math.MaxInt
				}
			}
		}
	}
	for _, m := range membersOf(t, annotations) {
		if len(m.raw) > entry {
			drop(m.raw)
			n += entry
		}
	}
	return n - (len(rest) - len(htmlWrittenOut(rest)))
}
