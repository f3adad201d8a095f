package shipper

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// letterLine is a line of a dead-letter file, as deadLetters.write makes it.
func letterLine(t testing.TB, at time.Time, line string, metadata ...Field) string {
	t.Helper()
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	e := Entry{Stream: `{job="test", user="a\"b"}`, Time: at, Line: []byte(line), Metadata: metadata}
	if err := encoder.Encode(newDeadLetter(testTime, e, answer{status: 400, words: "400 Bad Request"})); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestLetterReader(t *testing.T) {
	good := letterLine(t, testTime, "good")
	torn := good[:len(good)/2] + "\n"
	changed := func(from, to string) string { return strings.Replace(good, from, to, 1) }
	timed := func(timestamp string) string {
		return changed(`"timestamp":"2026-11-23T20:33:23.000092Z"`, `"timestamp":"`+timestamp+`"`)
	}
	for _, tt := range []struct {
		name   string
		text   string
		want   []string // lines of the entries
		pieces int
		late   int
		others string // what is kept
	}{
		{"one", good, []string{"good"}, 0, 0, ""},
		{"without the last newline", good + strings.TrimSpace(good), []string{"good", "good"}, 0, 0, ""},
		{"torn, and written again", torn + good, []string{"good"}, 1, 0, torn},
		{"torn at the end", good + torn[:20], []string{"good"}, 1, 0, torn[:20]},
		{"two pieces on both sides", torn + good + torn + torn + good, []string{"good", "good"}, 3, 0, torn + torn + torn},
		{"two letters in one line", strings.TrimSpace(good) + good, nil, 1, 0, strings.TrimSpace(good) + good},
		{"empty lines", "\n" + good + "\n\n" + good, []string{"good", "good"}, 0, 0, ""},
		{"NULs of a power loss", good + "\x00\x00\x00\n" + good, []string{"good", "good"}, 1, 0, "\x00\x00\x00\n"},
		{"not UTF-8", letterLine(t, testTime, "\xff\x00<&>"), []string{"\xff\x00<&>"}, 0, 0, ""},
		{"no line", letterLine(t, testTime, ""), []string{""}, 0, 0, ""},
		{"a line that looks like a letter", letterLine(t, testTime, good), []string{good}, 0, 0, ""},
		{"damaged inside a string", changed("good", "g\xffod"), nil, 1, 0, changed("good", "g\xffod")},
		{"the year 0", letterLine(t, time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), "y0"), []string{"y0"}, 0, 0, ""},
		{"the year 12026", timed("12026-11-23T20:33:23.000092Z"), nil, 0, 1, timed("12026-11-23T20:33:23.000092Z")},
		{"a time with a zone", timed("2026-11-23T20:33:23.000092+23:00"), nil, 0, 1, timed("2026-11-23T20:33:23.000092+23:00")},
		{"a time below the nanosecond", timed("2026-11-23T20:33:23.0000920001Z"), nil, 0, 1, timed("2026-11-23T20:33:23.0000920001Z")},
		{"a field of a later version", changed(`"reason"`, `"tenant":"a","reason"`), nil, 1, 0, changed(`"reason"`, `"tenant":"a","reason"`)},
		{"no labels", changed(`"labels"`, `"answer"`), nil, 1, 0, changed(`"labels"`, `"answer"`)},
		{"longer than a letter can be", letterLine(t, testTime, strings.Repeat("x", 5000)) + good, []string{"good"}, 1, 0,
			letterLine(t, testTime, strings.Repeat("x", 5000))},
		{"an audit log", `{"kind":"Event","apiVersion":"audit.k8s.io/v1","stage":"ResponseComplete"}` + "\n", nil, 1, 0,
			`{"kind":"Event","apiVersion":"audit.k8s.io/v1","stage":"ResponseComplete"}` + "\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newLetterReader(iotest.OneByteReader(strings.NewReader(tt.text)))
			r.max = 4096
			var got []string
			for e, err := r.next(); !errors.Is(err, io.EOF); e, err = r.next() {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, string(e.Line))
			}
			others := ""
			for _, o := range r.others {
				others += tt.text[o.offset : o.offset+o.length]
			}
			if !slices.Equal(got, tt.want) || r.pieces != tt.pieces || r.late != tt.late || others != tt.others {
				t.Errorf("got %.60q, %d pieces, %d late, others %.60q", got, r.pieces, r.late, others)
			}
		})
	}
}

func TestWithLabels(t *testing.T) {
	add := map[string]string{"replayed": "2026", "a": "x\"\n"}
	for _, tt := range []struct{ set, want string }{
		{`{job="test"}`, `{job="test", a="x\"\n", replayed="2026"}`},
		{`{job="t, u=\"}", verb="get"}`, `{job="t, u=\"}", verb="get", a="x\"\n", replayed="2026"}`},
		{`{replayed="2025", job="test"}`, `{job="test", a="x\"\n", replayed="2026"}`},
		{`{}`, `{a="x\"\n", replayed="2026"}`},
		{"{ job = \"test\" , verb=`get`, }", ""}, // a space before a value is Loki's to write, not ours
		{"{job=`test`, }", "{job=`test`, a=\"x\\\"\\n\", replayed=\"2026\"}"},
		{`job="test"`, ""},
		{`{job="test"`, ""},
		{`{job="test" verb="get"}`, ""},
		{`{job=test}`, ""},
		{``, ""},
	} {
		got, err := withLabels(tt.set, add)
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%s: got %s, %v, want %s", tt.set, got, err, tt.want)
		}
	}
}

// FuzzLetters reads any file: each byte is in an entry or kept, or is an empty line; and what an entry is made of survives being
// written as a letter and read again.
func FuzzLetters(f *testing.F) {
	good := letterLine(f, testTime, `{"kind":"Event"}`, Field{"a", []byte("\xff")}, Field{Name: "b"})
	for _, seed := range []string{
		good, good[:len(good)/2] + "\n" + good, letterLine(f, testTime, "\xff\x00"), letterLine(f, time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), ""),
		strings.Replace(good, `"timestamp":"2`, `"timestamp":"12`, 1), "\n\n" + good + good[:9], `{"labels":"{}","reason":"r","timestamp":"t"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r := newLetterReader(bytes.NewReader(text))
		r.max = 4096
		given := 0
		for e, err := r.next(); !errors.Is(err, io.EOF); e, err = r.next() {
			if err != nil {
				t.Fatal(err)
			}
			given += int(r.offset - r.start)
			checkAgain(t, e)
		}
		kept := 0
		for i, o := range r.others {
			if kept += int(o.length); i > 0 && r.others[i-1].offset+r.others[i-1].length >= o.offset {
				t.Fatalf("%v overlaps", r.others)
			}
		}
		if empty := len(text) - given - kept; r.offset != int64(len(text)) || empty < 0 || empty > bytes.Count(text, []byte{'\n'}) {
			t.Fatalf("of %d bytes, %d are in entries and %d kept", len(text), given, kept)
		}
	})
}

// checkAgain lets Loki refuse an entry of a dead letter, and reads that dead letter.
func checkAgain(t *testing.T, e Entry) {
	t.Helper()
	var b Batch
	b.Add(e)
	b.group(together)
	refused, err := b.entry(0)
	if err != nil {
		t.Fatal(err)
	}
	line, err := json.Marshal(newDeadLetter(testTime, refused, answer{status: 400}))
	if err != nil {
		t.Fatal(err)
	}
	letter, whole := parseLetter(line)
	again, ok := letter.entry()
	if !whole || !ok {
		t.Fatalf("%s is no letter that can be pushed", line)
	}
	if !reflect.DeepEqual(e, again) {
		t.Fatalf("%+v became %+v", e, again)
	}
}
