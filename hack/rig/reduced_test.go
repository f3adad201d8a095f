package rig

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
)

func reducedOf(part, raw string) string {
	return fmt.Sprintf("%s: %d bytes, sha256 %x", part, len(raw), sha256.Sum256([]byte(raw)))
}

// TestJudgeReduced: each row is an event that is too long, and what became of it.
func TestJudgeReduced(t *testing.T) {
	text := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	note := func(entries ...string) string { return `"auditferry.io/reduced":"` + strings.Join(entries, "; ") + `"` }
	const limit, body = 1000, `{"kind":"Removed","apiVersion":"auditferry.io/v1"}`
	long, other, managed := text(3000), text(2000), `[{"manager":`+text(1200)+`}]`
	kept, list, object := `"`+strings.Repeat("x", 512)+`…"`, `[`+strings.Repeat("1,", 600)+`2]`, `{"c":[`+strings.Repeat("1,", 5000)+`2]}`
	cases := []struct{ name, was, is, want string }{
		{"not too long", `{"a":1}`, `{"a":1}`, ""},
		{"not too long, altered", `{"a":1}`, `{"a":1 }`, "not too long, and is altered"},
		{"still too long", `{"a":` + long + `}`, `{"a":` + long + `}`, "a line of 3008 bytes"},
		{"cut", `{"a":` + long + `}`, `{"a":"xxx`, "valid JSON: false"},
		{"no note", `{"requestObject":` + long + `}`, `{"requestObject":` + body + `}`, "no note"},
		{"a body", `{"requestObject":` + long + `}`, `{"requestObject":` + body + `,"annotations":{` + note(reducedOf("requestObject", long)) + `}}`, ""},
		{"a body, null", `{"requestObject":` + long + `}`, `{"requestObject":null,"annotations":{` + note(reducedOf("requestObject", long)) + `}}`, "not noted: requestObject"},
		{"a body, not said", `{"requestObject":` + long + `,"responseObject":` + long + `}`, `{"requestObject":` + body + `,"responseObject":` + body + `,"annotations":{` + note(reducedOf("responseObject", long)) + `}}`, "not noted: requestObject"},
		{"another hash", `{"requestObject":` + long + `}`, `{"requestObject":` + body + `,"annotations":{` + note(reducedOf("requestObject", long[:2999]+`y"`)) + `}}`, "requestObject: size or hash"},
		{"another size", `{"requestObject":` + long + `}`, `{"requestObject":` + body + `,"annotations":{` + note(strings.Replace(reducedOf("requestObject", long), "3002", "3003", 1)) + `}}`, "requestObject: size or hash"},
		{"a part that never was", `{"requestObject":` + long + `}`, `{"requestObject":` + body + `,"annotations":{` + note(reducedOf("requestObject", long), reducedOf("responseObject", long)) + `}}`, "no such part"},
		{"twice", `{"requestObject":` + long + `}`, `{"requestObject":` + body + `,"annotations":{` + note(reducedOf("requestObject", long), reducedOf("requestObject", long)) + `}}`, "twice"},
		{"two notes", `{"requestObject":` + long + `}`, `{"requestObject":` + body + `,"annotations":{` + note("x") + "," + note(reducedOf("requestObject", long)) + `}}`, "the note is there twice"},
		{"no entry", `{"requestObject":` + long + `}`, `{"requestObject":` + body + `,"annotations":{` + note("requestObject") + `}}`, "none"},
		{"another member altered", `{"a":1.0,"requestObject":` + long + `}`, `{"a":1,"requestObject":` + body + `,"annotations":{` + note(reducedOf("requestObject", long)) + `}}`, "not noted: a"},
		{"a member gone", `{"a":null,"requestObject":` + long + `,"b":1}`, `{"a":null,"requestObject":` + body + `,"annotations":{` + note(reducedOf("requestObject", long)) + `}}`, "not noted: b"},
		{"a member too many", `{"requestObject":` + long + `}`, `{"a":null,"requestObject":` + body + `,"annotations":{` + note(reducedOf("requestObject", long)) + `}}`, "not noted: a"},
		{"an annotation altered", `{"requestObject":` + long + `,"annotations":{"a":"b"}}`, `{"requestObject":` + body + `,"annotations":{"a":"c",` + note(reducedOf("requestObject", long)) + `}}`, "not noted: annotations.a"},
		{"an annotation", `{"annotations":{"a.b/c":` + long + `,"d":"e"}}`, `{"annotations":{"d":"e",` + note(reducedOf("annotations.a.b/c", long)) + `}}`, ""},
		{"the order", `{"requestObject":` + long + `,"responseObject":` + text(300) + `}`, `{"requestObject":` + body + `,"responseObject":` + text(300) + `,"annotations":{` + note(reducedOf("requestObject", long)) + `}}`, "requestObject went before"},
		{"the order of annotations", `{"requestObject":` + text(300) + `,"annotations":{"a":` + long + `}}`, `{"requestObject":` + text(300) + `,"annotations":{` + note(reducedOf("annotations.a", long)) + `}}`, "annotations went before"},
		{"escapes", `{"a":"` + strings.Repeat(`\u0026`, 300) + `"}`, `{"a":"` + strings.Repeat(`&`, 300) + `","annotations":{` + note("escapes of &, < and > written out") + `}}`, ""},
		{"a string", `{"a":` + long + `}`, `{"a":` + kept + `,"annotations":{` + note(reducedOf("a", long)) + `}}`, ""},
		{"a string, not said", `{"a":` + long + `,"b":` + long + `}`, `{"a":` + kept + `,"b":"x…","annotations":{` + note(reducedOf("a", long)) + `}}`, "not noted: b"},
		{"a string, said and whole", `{"a":` + long + `,"b":` + text(20) + `}`, `{"a":` + kept + `,"b":` + text(20) + `,"annotations":{` + note(reducedOf("a", long), reducedOf("b", text(20))) + `}}`, "b: the event has no such part"},
		{"a string, another hash", `{"a":` + long + `}`, `{"a":` + kept + `,"annotations":{` + note(reducedOf("a", other)) + `}}`, "a: size or hash"},
		{"a string that was short", `{"a":` + text(1024) + `}`, `{"a":` + kept + `,"annotations":{` + note(reducedOf("a", text(1024))) + `}}`, "not noted: a"},
		{"a string that is altered", `{"a":"y` + long[1:] + `}`, `{"a":` + kept + `,"annotations":{` + note(reducedOf("a", `"y`+long[1:])) + `}}`, "not noted: a"},
		{"a string without an ellipsis", `{"a":` + long + `}`, `{"a":` + text(512) + `,"annotations":{` + note(reducedOf("a", long)) + `}}`, "not noted: a"},
		{"a string of which much stays", `{"a":` + long + `}`, `{"a":"` + strings.Repeat("x", 513) + `…","annotations":{` + note(reducedOf("a", long)) + `}}`, "not noted: a"},
		{"nested", `{"a":{"b":[` + long + `,1],"c":` + other + `}}`, `{"a":{"b":["x…",1],"c":"…"},"annotations":{` + note(reducedOf("a.b[]", long), reducedOf("a.c", other)) + `}}`, ""},
		{"nested, a member gone", `{"a":{"b":` + long + `,"c":1}}`, `{"a":{"b":` + kept + `},"annotations":{` + note(reducedOf("a.b", long)) + `}}`, "not noted: a.c"},
		{"a key", `{"a":{"` + strings.Repeat("é", 33) + `":` + long + `}}`, `{"a":{"` + strings.Repeat("é", 33) + `":` + kept + `},"annotations":{` + note(reducedOf("a."+strings.Repeat("é", 32)+"…", long)) + `}}`, ""},
		{"a list", `{"a":` + list + `}`, `{"a":[2],"annotations":{` + note(reducedOf("a", list)) + `}}`, ""},
		{"a list that keeps its first", `{"a":` + list + `}`, `{"a":[1],"annotations":{` + note(reducedOf("a", list)) + `}}`, "not noted: a[]"},
		{"a list that keeps nothing", `{"a":` + list + `}`, `{"a":[],"annotations":{` + note(reducedOf("a", list)) + `}}`, "not noted: a"},
		{"a list that was short", `{"a":[1,2],"b":` + long + `}`, `{"a":[2],"b":"x…","annotations":{` + note(reducedOf("a", "[1,2]"), reducedOf("b", long)) + `}}`, "not noted: a"},
		{"a list and its last", `{"a":[` + long + `,` + long + `]}`, `{"a":["…"],"annotations":{` + note(reducedOf("a", "["+long+","+long+"]"), reducedOf("a[]", long)) + `}}`, ""},
		{"an object", `{"a":{"b":` + object + `}}`, `{"a":{"b":{}},"annotations":{` + note(reducedOf("a.b", object)) + `}}`, ""},
		{"an object that was short", `{"a":{"b":{"c":` + long + `}}}`, `{"a":{"b":{}},"annotations":{` + note(reducedOf("a.b", `{"c":`+long+`}`)) + `}}`, "not noted: a.b.c"},
		{"the order of strings", `{"a":` + long + `,"requestObject":` + text(300) + `}`, `{"a":"…","requestObject":` + text(300) + `,"annotations":{` + note(reducedOf("a", long)) + `}}`, "before the bodies"},
		{"the order of strings and annotations", `{"a":` + long + `,"annotations":{"b":` + text(300) + `}}`, `{"a":"…","annotations":{"b":` + text(300) + `,` + note(reducedOf("a", long)) + `}}`, "before annotations"},
		{"managedFields", `{"requestObject":{"metadata":{"name":"n","managedFields":` + managed + `}}}`, `{"requestObject":{"metadata":{"name":"n","managedFields":[]}},"annotations":{` + note(reducedOf("requestObject.metadata.managedFields", managed)) + `}}`, ""},
		{"managedFields and more", `{"requestObject":{"metadata":{"name":"n","managedFields":` + managed + `}}}`, `{"requestObject":{"metadata":{"managedFields":[]}},"annotations":{` + note(reducedOf("requestObject.metadata.managedFields", managed)) + `}}`, "not noted: requestObject"},
		{"managedFields of items", `{"responseObject":{"items":[{"metadata":{"managedFields":` + managed + `}},{"metadata":{"managedFields":` + other + `}},{"a":1}]}}`,
			`{"responseObject":{"items":[{"metadata":{"managedFields":[]}},{"metadata":{"managedFields":[]}},{"a":1}]},"annotations":{` + note(reducedOf("responseObject.items[].metadata.managedFields", managed+other)) + `}}`, ""},
		{"managedFields of an item not said", `{"responseObject":{"items":[{"metadata":{"managedFields":` + managed + `}},{"metadata":{"managedFields":` + other + `}}]}}`,
			`{"responseObject":{"items":[{"metadata":{"managedFields":[]}},{"metadata":{"managedFields":[]}}]},"annotations":{` + note(reducedOf("responseObject.items[].metadata.managedFields", managed)) + `}}`, "size or hash"},
		{"managedFields of a body that is gone", `{"requestObject":{"metadata":{"managedFields":` + managed + `}}}`, `{"requestObject":` + body + `,"annotations":{` + note(reducedOf("requestObject.metadata.managedFields", managed), reducedOf("requestObject", `{"metadata":{"managedFields":`+managed+`}}`)) + `}}`, "removed whole"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := JudgeReduced([]byte(c.was), []byte(c.is), limit)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
