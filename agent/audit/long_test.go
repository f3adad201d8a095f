package audit

import (
	"fmt"
	"strings"
	"testing"
)

// TestLongValues: what is long outside of bodies and annotations is cut, the largest first.
func TestLongValues(t *testing.T) {
	note := func(entries ...string) string {
		return `"annotations":{"auditferry.io/reduced":"` + strings.Join(entries, "; ") + `"}}`
	}
	of := func(name, raw string) string { return noteOf(name, []byte(raw)) }
	x := func(n int) string { return strings.Repeat("x", n) }
	a, b, c := long(3000), long(2500), long(2000)
	kept := `"` + x(512) + `…"`
	ips := `[` + strings.Repeat(`"10.0.0.1" , `, 300) + `"::1" ]`
	causes := `[` + strings.Repeat(`{"field":"a","message":"b"},`, 100) + `{"message":` + a + `}]`
	many := `{` + strings.Repeat(`"a":["b","c"],`, 1000) + `"d":` + a + `}`
	eleven := `{` + strings.Repeat(`"a":`+c+`,`, 10) + `"d":` + a + `}`
	key := strings.Repeat("é", 40)
	pair := `\ud83d\ude00`
	cases := []struct{ name, line, want string }{
		{"a URL", `{"requestURI":` + a + `,"verb":"get",`, `{"requestURI":` + kept + `,"verb":"get",` + note(of("requestURI", a))},
		{"the largest first", `{"requestURI":` + b + `,"userAgent":` + a + `,"user":{"username":` + c + `},`,
			`{"requestURI":` + kept + `,"userAgent":` + kept + `,"user":{"username":` + c + `},` + note(of("userAgent", a), of("requestURI", b))},
		{"nested", `{"responseStatus":{"metadata":{},"message":` + a + `,"details":{"name":` + b + `},"code":403},`,
			`{"responseStatus":{"metadata":{},"message":` + kept + `,"details":{"name":` + kept + `},"code":403},` +
				note(of("responseStatus.message", a), of("responseStatus.details.name", b))},
		{"a list", `{"sourceIPs":` + ips + `,"userAgent":` + long(1000) + `,`, `{"sourceIPs":["::1" ],"userAgent":` + long(1000) + `,` + note(of("sourceIPs", ips))},
		{"a list with one that is long", `{"user":{"groups":["a",` + a + `,"b"]},`, `{"user":{"groups":["a",` + kept + `,"b"]},` + note(of("user.groups[]", a))},
		{"a list with two that are long", `{"user":{"groups":["a",` + a + `,"b",` + c + `]},`,
			`{"user":{"groups":["a",` + kept + `,"b",` + kept + `]},` + note(of("user.groups[]", a+c))},
		{"a list and its last", `{"responseStatus":{"details":{"causes":` + causes + `}},`, `{"responseStatus":{"details":{"causes":[{"message":` + kept + `}]}},` +
			note(of("responseStatus.details.causes", causes), of("responseStatus.details.causes[].message", a))},
		{"keys", `{"user":{"extra":{"a\"\u0001":[` + a + `],"` + key + `":[` + b + `]}},`, `{"user":{"extra":{"a\"\u0001":[` + kept + `],"` + key + `":[` + kept + `]}},` +
			note(of(`user.extra.a\"\u0001[]`, a), of("user.extra."+key[:64]+"…[]", b))},
		{"names that are nearly the same", `{"a…":` + ips + `,"a":` + a + `,"a":` + ips + `,`, `{"a…":["::1" ],"a":` + kept + `,"a":["::1" ],` +
			note(of("a…", ips), of("a", ips), of("a", a))},
		{"many members", `{"user":{"extra":` + many + `},`, `{"user":{"extra":{}},` + note(of("user.extra", many))},
		{"many long ones", `{"user":{"extra":` + eleven + `},`, `{"user":{"extra":{}},` + note(of("user.extra", eleven))},
		{"at an escape", `{"a":"` + x(511) + `\n` + a[1:] + `,`, `{"a":"` + x(511) + `…",` + note(of("a", `"`+x(511)+`\n`+a[1:]))},
		{"after an escape", `{"a":"` + x(510) + `\n` + a[1:] + `,`, `{"a":"` + x(510) + `\n…",` + note(of("a", `"`+x(510)+`\n`+a[1:]))},
		{"at a long escape", `{"a":"` + x(507) + `\u00e9` + a[1:] + `,`, `{"a":"` + x(507) + `…",` + note(of("a", `"`+x(507)+`\u00e9`+a[1:]))},
		{"in a pair", `{"a":"` + x(501) + pair + a[1:] + `,`, `{"a":"` + x(501) + `…",` + note(of("a", `"`+x(501)+pair+a[1:]))},
		{"after a pair", `{"a":"` + x(500) + pair + a[1:] + `,`, `{"a":"` + x(500) + pair + `…",` + note(of("a", `"`+x(500)+pair+a[1:]))},
		{"one of a pair alone", `{"a":"` + x(506) + `\ud83d` + a[1:] + `,`, `{"a":"` + x(506) + `\ud83d…",` + note(of("a", `"`+x(506)+`\ud83d`+a[1:]))},
		{"in a rune", `{"a":"` + x(510) + `€` + a[1:] + `,`, `{"a":"` + x(510) + `…",` + note(of("a", `"`+x(510)+`€`+a[1:]))},
		{"in a body that stays", `{"requestObject":null,"annotations":{},"a":` + a + "}", `{"requestObject":null,"annotations":{` +
			strings.TrimSuffix(strings.TrimPrefix(note(of("a", a)), `"annotations":{`), "}}") + `},"a":` + kept + `}`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			line := c.line
			if strings.HasSuffix(line, ",") {
				line = line[:len(line)-1] + "}"
			}
			if got := checkReduced(t, []byte(line), len(c.want)); string(got.Line) != c.want {
				t.Errorf("of %.4000s\n got %s\nwant %s", line, got.Line, c.want)
			}
		})
	}
}

// TestLongOfClientWithoutRights: whatever a client without rights sends, the event is short enough for the least limit.
func TestLongOfClientWithoutRights(t *testing.T) {
	const limit = 32 << 10 // minLineSize of package main
	for _, n := range []int{100, 1020, 1030, 5000, 100 << 10} {
		for _, unit := range []string{"x", `\u0026`, `\ud83d\ude00`, `\"`, "é", "\xff"} {
			t.Run(fmt.Sprintf("%d bytes of %q", n, unit), func(t *testing.T) {
				s := `"` + strings.Repeat(unit, n/len(unit)) + `"`
				ips := strings.Repeat(`"2001:db8:1111:2222:3333:4444:5555:6666",`, n/40)
				line := strings.Replace(eventHead, `"id"`, s, 1) + `"requestURI":` + s + `,"verb":` + s + `,"user":{"username":"system:anonymous","groups":["system:unauthenticated"]},` +
					`"sourceIPs":[` + ips + `"10.0.0.1"],"userAgent":` + s + `,"objectRef":{"resource":` + s + `,"namespace":` + s + `,"name":` + s + `,"apiGroup":` + s +
					`,"apiVersion":` + s + `,"subresource":` + s + `},"responseStatus":{"metadata":{},"status":"Failure","message":` + s + `,"reason":"Forbidden","details":{"name":` + s +
					`,"group":` + s + `,"kind":` + s + `},"code":403},"requestReceivedTimestamp":"2026-11-23T20:33:05.237410Z","stageTimestamp":"2026-11-23T20:33:05.237410Z",` +
					`"annotations":{"authorization.k8s.io/decision":"forbid","authorization.k8s.io/reason":""}}`
				got := checkReduced(t, []byte(line), limit)
				if got.TooLong {
					t.Errorf("an event of %d bytes is too long", len(line))
				}
				if n > 1<<10 && strings.Count(string(got.Line), " bytes, sha256 ") > longParts {
					t.Errorf("the note is %.200s", got.Line)
				}
				t.Logf("%d bytes became %d", len(line), len(got.Line))
			})
		}
	}
}

// TestLongOfAnyone: so is one of a client with rights, for twice that limit.
func TestLongOfAnyone(t *testing.T) {
	var extra strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&extra, `"%d":[%s"x"],`, i, strings.Repeat(long(300)+",", 10))
	}
	user := `{"username":` + long(5000) + `,"uid":` + long(1000) + `,"groups":[` + strings.Repeat(long(1020)+",", 100) + long(1020) + `],"extra":{` + extra.String() + `"a":[]}}`
	line := eventHead + `"user":` + user + `,"impersonatedUser":` + user + `,"objectRef":{"name":` + long(5000) + `},"responseStatus":{"message":` + long(1<<20) +
		`,"details":{"causes":[` + strings.Repeat(`{"field":"a","message":`+long(1000)+`},`, 1000) + `{"message":` + long(1<<20) + `}]}}}`
	got := checkReduced(t, []byte(line), 64<<10)
	t.Logf("%d bytes became %d", len(line), len(got.Line))
	if got.TooLong {
		t.Error("too long")
	}
}
