package audit

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// longName is the name that the note has for a member of a value.
func longName(of, key string) string {
	if end := 64; len(key) > end {
		for !utf8.RuneStart(key[end]) {
			end--
		}
		key = key[:end] + "…"
	}
	if of == "" {
		return key
	}
	return of + "." + key
}

// long compares a value outside of bodies and annotations with what is left of it.
func (c *comparison) long(name string, was, is json.RawMessage) {
	c.t.Helper()
	if c.same(was, is) {
		return
	}
	switch was[0] {
	case '"':
		c.longString(name, was, is)
	case '[':
		var a, b []json.RawMessage
		if json.Unmarshal(was, &a) != nil || json.Unmarshal(is, &b) != nil || len(b) != len(a) && len(b) != 1 {
			c.t.Errorf("%s had %d elements, has %d", name, len(a), len(b))
			return
		}
		if len(b) != len(a) {
			c.isGone(name, "[", was, bytes.LastIndex(was, a[len(a)-1]))
			a = a[len(a)-1:]
		}
		for i := range a {
			c.long(name+"[]", a[i], b[i])
		}
	case '{':
		if string(is) == "{}" {
			c.isGone(name, "{", was, len(was))
			return
		}
		c.pairs(name, was, is, func(key string, was, is json.RawMessage) { c.long(longName(name, key), was, is) })
	default:
		c.t.Errorf("%s was\n%.500q, is\n%.500q", name, was, is)
	}
}

func (c *comparison) isGone(name, kind string, raw []byte, n int) {
	if kind == "[" && n <= 1024 {
		c.t.Errorf("%s: %d bytes are gone: too few to be worth it", name, n)
	}
	name += "\x00" + kind
	c.gone[name] = append(c.gone[name], raw...)
}

func (c *comparison) longString(name string, was, is json.RawMessage) {
	var whole, left string
	if json.Unmarshal(was, &whole) != nil || json.Unmarshal(is, &left) != nil {
		c.t.Errorf("%s was %.100q, is %.100q", name, was, is)
		return
	}
	kept, cut := bytes.CutSuffix(is, []byte(`…"`))
	start := was[:min(len(was), 513)]
	for c.writtenOut && !bytes.Equal(htmlWrittenOut(start), kept) && len(start) > 1 {
		start = start[:len(start)-1]
	}
	begins := bytes.HasPrefix(start, kept) || c.writtenOut && bytes.Equal(htmlWrittenOut(start), kept)
	if !cut || !begins || len(was)-2 <= 1024 {
		c.t.Errorf("%s was\n%.600q of %d bytes, is\n%.600q", name, was, len(was), is)
	}
	if !strings.HasPrefix(whole, strings.TrimSuffix(left, "…")) {
		c.t.Errorf("%s does not begin as it did: was\n%.600q, is\n%.600q", name, whole, left)
	}
	if len(kept) < 1+512-11 && !c.writtenOut {
		c.t.Errorf("%s: no more than %d bytes stay", name, len(kept))
	}
	c.isGone(name, `"`, was, 0)
}

// longLeft gives how long a value with what is said of it surely can become, and for how many names at the most.
func longLeft(t *testing.T, raw json.RawMessage) (left, names int) {
	const entry = 500
	switch raw[0] {
	case '"':
		if len(raw) > 1026 {
			return 517 + entry, 1
		}
	case '[':
		var elements []json.RawMessage
		if json.Unmarshal(raw, &elements) != nil || len(elements) == 0 {
			return len(raw), 0
		}
		last := elements[len(elements)-1]
		left, names = longLeft(t, last)
		after := len(raw) - bytes.LastIndex(raw, last) - len(last)
		if first := bytes.IndexByte(raw, elements[0][0]); first > 0 { // of white space
			after += first
		}
		return min(len(raw), left+after+1024+3*entry), names + 3
	case '{':
		return min(len(raw), 8<<10+11*entry), 11
	}
	return len(raw), 0
}
