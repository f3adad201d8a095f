package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// managed gives managedFields of n bytes, and long a string of as many.
func managed(n int) string { return `[{"manager":` + long(n-14) + `}]` }
func long(n int) string    { return `"` + strings.Repeat("x", n-2) + `"` }

const eventHead = `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"id","stage":"ResponseComplete",`

// TestReduceInOrder makes the limit smaller and smaller: each time, the next thing goes, and no more than has to.
func TestReduceInOrder(t *testing.T) {
	request, response := `{"metadata":{"name":"n","managedFields":`+managed(300)+`},"data":`+long(4000)+`}`,
		`{"kind":"PodList","items":[{"metadata":{"managedFields":`+managed(250)+`}},{"metadata":{"managedFields":`+managed(260)+
			`}}],"data":`+long(5000)+`}`
	url := `"/api?` + strings.Repeat(`\u0026\u003C\\u0026\n`, 50) + `"`
	c := `"` + strings.Repeat(`\u003e`, 40) + long(300)[1:] // is removed after step 4
	line := eventHead + `"requestURI":` + url + `,"requestObject":` + request + `,"responseObject":` + response +
		`,"annotations":{"a":` + long(300) + `,"b":"allow","c":` + c + `}}`
	managedOf := noteOf("responseObject.items[].metadata.managedFields", []byte(managed(250)+managed(260)))
	steps := []string{
		managedOf + "; " + noteOf("requestObject.metadata.managedFields", []byte(managed(300))),
		noteOf("requestObject.metadata.managedFields", []byte(managed(300))) + "; " + noteOf("responseObject", []byte(response)),
		noteOf("responseObject", []byte(response)) + "; " + noteOf("requestObject", []byte(request)),
		noteOf("responseObject", []byte(response)) + "; " + noteOf("requestObject", []byte(request)) + "; " + writtenOutNote,
	}
	last := strings.TrimSuffix(steps[3], writtenOutNote)
	last += noteOf("annotations.c", []byte(c)) + "; "
	steps = append(steps, last+writtenOutNote)
	last += noteOf("annotations.a", []byte(long(300))) + "; "
	steps = append(steps, last+writtenOutNote, last+noteOf("requestURI", []byte(url))+"; "+writtenOutNote)
	if got := checkReduced(t, []byte(line), len(line)); string(got.Line) != line {
		t.Error("a line that is not too long is reduced")
	}
	limit := len(line) - 1
	for i, want := range steps {
		got := checkReduced(t, []byte(line), limit)
		var event struct{ Annotations map[string]string }
		if err := json.Unmarshal(got.Line, &event); err != nil || got.TooLong {
			t.Fatalf("step %d: %v, too long: %v", i, err, got.TooLong)
		}
		if note := event.Annotations[noteKey]; note != want {
			t.Errorf("step %d: the note is\n%s, want\n%s", i, note, want)
		}
		if exact := checkReduced(t, []byte(line), len(got.Line)); !bytes.Equal(exact.Line, got.Line) {
			t.Errorf("step %d: a limit of just its length gives another line", i)
		}
		limit = len(got.Line) - 1
	}
	if got := checkReduced(t, []byte(line), limit); !got.TooLong {
		t.Errorf("one step more: %s", got.Line)
	}
}

// TestReducedBytes: what is not removed stays as it is, whatever the order of the keys, the white space and the types.
func TestReducedBytes(t *testing.T) {
	const gone = `{"kind":"Removed","apiVersion":"auditferry.io/v1"}`
	note := func(entries ...string) string { return `"auditferry.io/reduced":"` + strings.Join(entries, "; ") + `"` }
	of := func(name, raw string) string { return noteOf(name, []byte(raw)) }
	x, y := long(300), long(400)
	fields := managed(200)
	escaped := strings.Repeat(`\u0026\\u0026\"\\\u003e\u0041`, 20)
	cases := []struct{ name, line, want string }{
		{"no annotations", `{"responseObject":` + x + `}`, `{"responseObject":` + gone + `,"annotations":{` + note(of("responseObject", x)) + `}}`},
		{"white space", " { \"responseObject\" : " + x + " , \"a\" : [ 1 ] , \"annotations\" : { } } \r",
			` { "responseObject" : ` + gone + ` , "a" : [ 1 ] , "annotations" : { ` + note(of("responseObject", x)) + "} } \r"},
		{"annotations first", `{"annotations":{"a":"b" },"requestObject":` + x + `}`,
			`{"annotations":{"a":"b" ,` + note(of("requestObject", x)) + `},"requestObject":` + gone + `}`},
		{"escaped keys", `{"respon\u0073eObject":{"m\u0065tadata":{"\u006danagedFields":` + fields + `}},"annot\u0061tions":{}}`,
			`{"respon\u0073eObject":{"m\u0065tadata":{"\u006danagedFields":[]}},"annot\u0061tions":{` + note(of("responseObject.metadata.managedFields", fields)) + `}}`},
		{"keys twice", `{"responseObject":` + x + `,"responseObject":` + y + `,"annotations":{"a":"b"},"annotations":{"c":"d"}}`,
			`{"responseObject":` + gone + `,"responseObject":` + gone + `,"annotations":{"a":"b"},"annotations":{"c":"d",` + note(of("responseObject", x+y)) + `}}`},
		{"keys twice, one annotations no object", `{"responseObject":` + x + `,"annotations":{"a":"b"},"annotations":null}`,
			`{"responseObject":` + gone + `,"annotations":{"a":"b"},"annotations":{` + note(of("annotations", "null"), of("responseObject", x)) + `}}`},
		{"keys twice, the last annotations an object", `{"responseObject":` + x + `,"annotations":7,"annotations":{}}`,
			`{"responseObject":` + gone + `,"annotations":7,"annotations":{` + note(of("responseObject", x)) + `}}`},
		{"a note already, first", `{"responseObject":` + x + `,"annotations":{"auditferry.io/reduced" : "all is well" , "a":"b"}}`,
			`{"responseObject":` + gone + `,"annotations":{"a":"b",` + note(of("annotations.auditferry.io/reduced", `"all is well"`), of("responseObject", x)) + `}}`},
		{"a note already, last and alone", `{"responseObject":` + x + `,"annotations":{"audit\u0066erry.io/reduced":1}}`,
			`{"responseObject":` + gone + `,"annotations":{` + note(of("annotations.auditferry.io/reduced", `1`), of("responseObject", x)) + `}}`},
		{"a note already, twice, and last", `{"responseObject":` + x + `,"annotations":{"auditferry.io/reduced":1,"a":"b","auditferry.io/reduced":2}}`,
			`{"responseObject":` + gone + `,"annotations":{"a":"b",` + note(of("annotations.auditferry.io/reduced", `12`), of("responseObject", x)) + `}}`},
		{"a long note already", `{"annotations":{"auditferry.io/reduced":` + y + `,"a":` + x + `}}`,
			`{"annotations":{"a":` + x + `,` + note(of("annotations.auditferry.io/reduced", y)) + `}}`},
		{"the last annotation", `{"annotations":{"a":"b","c\"":` + x + `}}`, `{"annotations":{"a":"b",` + note(of(`annotations.c\"`, x)) + `}}`},
		{"the only annotation", `{"annotations":{"a":` + x + ` } }`, `{"annotations":{ ` + note(of("annotations.a", x)) + `} }`},
		{"annotations of several types", `{"annotations":{"a":[` + x + `],"b":{"c":` + y + `},"d":1}}`,
			`{"annotations":{"d":1,` + note(of("annotations.b", `{"c":`+y+`}`), of("annotations.a", `[`+x+`]`)) + `}}`},
		{"bodies of other types", `{"requestObject":[` + x + `],"responseObject":null,"annotations":{}}`,
			`{"requestObject":` + gone + `,"responseObject":null,"annotations":{` + note(of("requestObject", `[`+x+`]`)) + `}}`},
		{"parts of other types", `{"requestObject":{"metadata":[` + fields + `],"items":{"metadata":{"managedFields":` + fields + `}}},"responseObject":{"items":[1,[],{"metadata":{"managedFields":` + fields + `}},{}],"metadata":{"managedFields":` + x + `,"managedFields":[]}}}`,
			`{"requestObject":{"metadata":[` + fields + `],"items":{"metadata":{"managedFields":` + fields + `}}},"responseObject":{"items":[1,[],{"metadata":{"managedFields":[]}},{}],"metadata":{"managedFields":[],"managedFields":[]}},"annotations":{` +
				note(of("responseObject.metadata.managedFields", x), of("responseObject.items[].metadata.managedFields", fields)) + `}}`},
		{"escapes", `{"a":"` + escaped + `"}`, `{"a":"` + strings.NewReplacer(`\\u0026`, `\\u0026`, `\u0026`, `&`, `\u003e`, `>`).Replace(escaped) + `","annotations":{` + note(writtenOutNote) + `}}`},
		{"annotations twice", `{"annotations":{"a":` + x + `},"annotations":{"b":` + y + `}}`,
			`{"annotations":{"a":` + x + `},"annotations":{` + note(of("annotations.b", y)) + `}}`},
		{"at other depths", `{"a":{"responseObject":` + x + `,"annotations":{"b":` + x + `}},"annotations":{"b":` + y + `}}`,
			`{"a":{"responseObject":` + x + `,"annotations":{"b":` + x + `}},"annotations":{` + note(of("annotations.b", y)) + `}}`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := checkReduced(t, []byte(c.line), len(c.want))
			if string(got.Line) != c.want {
				t.Errorf("of %s\n got %s\nwant %s", c.line, got.Line, c.want)
			}
		})
	}
}

// TestTooLong: what cannot be reduced stays as it is, and so does what cannot be reduced by enough.
func TestTooLong(t *testing.T) {
	for _, line := range []string{
		`{"requestURI":` + long(1000) + `,"responseObject":` + long(5000) + `}`, `{"a":` + strings.Repeat("1", 2000) + `}`,
		`{` + strings.Repeat(" ", 2000) + `}`,
		`{"a":"b"` + strings.Repeat(" ", 2000) + `}`,
		`{"annotations":{` + strings.Repeat(`"a":"b",`, 300) + `"a":"b"}}`,
		`{"annotations":{"a":` + long(2000) + `},"annotations":{"b":"c"}}`,
		`{"responseObject":` + long(5000), `["` + strings.Repeat("x", 2000) + `"]`, strings.Repeat("x", 1025),
	} {
		if got := checkReduced(t, []byte(line), 1024); !got.TooLong {
			t.Errorf("%.100q…: %s", line, got.Line)
		}
	}
}

// TestPiecesThatAreTooLong: of a damaged line each piece counts for itself.
func TestPiecesThatAreTooLong(t *testing.T) {
	d := describerWithin(t, 1000)
	event := eventHead + `"responseObject":` + long(2000) + `}`
	var got []string
	entries := d.Entries([]byte(event[:1500]+event+event[:900]+strings.Repeat("\x00", 10)), before, 1)
	for e, ok := entries.Next(); ok; e, ok = entries.Next() {
		got = append(got, fmt.Sprintf("%d long, %d removed, malformed %v, too long %v", len(e.Line), e.Removed, e.Malformed, e.TooLong))
	}
	whole := checkReduced(t, []byte(event), 1000)
	want := []string{
		"1500 long, 0 removed, malformed true, too long true",
		fmt.Sprintf("%d long, %d removed, malformed false, too long false", len(whole.Line), len(event)-len(whole.Line)),
		"910 long, 0 removed, malformed true, too long false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestReduceCorpus reduces every line of the corpus to every limit.
func TestReduceCorpus(t *testing.T) {
	limits := []int{1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10}
	for _, name := range []string{"sample.log", "metadata.log.gz", "big.log.gz", "mixed.log.gz", "torn-glued.log"} {
		t.Run(name, func(t *testing.T) {
			lines := corpusLines(t, name)
			for at, limit := range limits {
				var reduced, tooLong int
				for i, line := range lines {
					if len(line) <= limit || raceEnabled && i%len(limits) != at { // it takes minutes under the race detector
						continue
					}
					if got := checkReduced(t, line, limit); got.TooLong {
						tooLong++
					} else {
						reduced++
					}
					if t.Failed() {
						t.Fatalf("line %d, limit %d", i, limit)
					}
				}
				t.Logf("limit %d: %d reduced, %d too long", limit, reduced, tooLong)
			}
		})
	}
}

// TestReduceMemory: a line costs no more than its own size again, also one with a body that a client has made to be costly.
func TestReduceMemory(t *testing.T) {
	const size = 6 << 20
	list := func(item string) string {
		return `{"responseObject":{"items":[` + strings.Repeat(item+",", size/(len(item)+1)) + `1]}}`
	}
	var annotations strings.Builder
	for i := range size / 1000 {
		fmt.Fprintf(&annotations, `"%06d":%s,`, i, long(1000))
	}
	for name, line := range map[string]string{
		"a body":          `{"responseObject":` + long(size) + `}`,
		"a URL":           `{"requestURI":` + long(size) + `}`,
		"a list of IPs":   `{"sourceIPs":[` + strings.Repeat(`"1.2.3.4",`, size/10) + `"::1"]}`,
		"long strings":    `{"user":{"groups":[` + strings.Repeat(long(1100)+",", size/1100) + `"a"]}}`,
		"many long keys":  `{"a":{` + strings.Repeat(long(1100)+`:[`+long(1100)+`],`, size/2200) + `"b":1}}`,
		"long everywhere": `{"a":1` + strings.Repeat(`,`+long(60)+`:{"a":["",`+long(1100)+`]}`, size/1180) + `}`,
		"a list":          list(`{"metadata":{"managedFields":` + managed(2000) + `},"spec":` + long(2000) + `}`),
		"many items":      list(`{"metadata":{"managedFields":` + managed(worthNaming+1) + `}}`),
		"empty items":     list(`{"metadata":{"managedFields":[]}}`),
		"annotations":     `{"annotations":{` + annotations.String() + `"a":1}}`,
		"one annotation":  `{"annotations":{"a":` + long(size) + `}}`,
	} {
		t.Run(name, func(t *testing.T) {
			d := describerWithin(t, 256<<10)
			text := []byte(line)
			d.Entry([]byte(`{}`), before, 1)
			var begin, end runtime.MemStats
			runtime.ReadMemStats(&begin)
			got := d.Entry(text, before, 2)
			runtime.ReadMemStats(&end)
			took := end.TotalAlloc - begin.TotalAlloc // also what was let go at once
			t.Logf("%d bytes for a line of %d; %d left, too long %v", took, len(text), len(got.Line), got.TooLong)
			if took > uint64(len(text)) {
				t.Errorf("%d bytes for a line of %d", took, len(text))
			}
		})
	}
}

func FuzzReduce(f *testing.F) {
	x := long(300)
	for _, line := range []string{
		`{"responseObject":` + x + `}`, ` { "responseObject" : ` + x + ` , "annotations" : { "a" : ` + x + ` , "b":1 } } `,
		`{"annotations":null,"requestObject":{"metadata":{"managedFields":` + managed(200) + `},"items":[{"metadata":{"managedFields":` + managed(300) + `}}]}}`,
		`{"annotations":{"auditferry.io/reduced":` + x + `,"a":"b"},"respon\u0073eObject":` + x + `,"responseObject":` + x + `}`,
		`{"requestURI":"` + strings.Repeat(`\u0026\\u0026`, 50) + `","requestObject":[` + x + `]}`,
		`{"requestURI":"` + strings.Repeat(`\u0026\ud83d\ude00é`, 70) + `","sourceIPs":["",` + long(1100) + `,"::1"],"user":{"extra":{"a\"":[` + long(1200) + `]}}}`,
		`{"sourceIPs":[` + strings.Repeat(`"::2", `, 200) + `"::1" ],"a":{` + strings.Repeat(`"a":["b"],`, 1000) + `"b":` + long(1100) + `}}`,
	} {
		for _, limit := range []uint16{200, 400, 600, 1200} {
			f.Add([]byte(line), limit)
		}
	}
	for _, line := range corpusLines(f, "sample.log") {
		if bytes.Contains(line, []byte("managedFields")) && len(line) < 4000 {
			f.Add(line, uint16(len(line)/2))
		}
	}
	f.Fuzz(func(t *testing.T, line []byte, limit uint16) {
		checkReduced(t, line, int(limit)+1)
	})
}
