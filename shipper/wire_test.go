package shipper

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/grafana/loki/pkg/push"
)

// asLoki is what Loki's own types make of entries, in the streams' order of first appearance.
func asLoki(entries []Entry) push.PushRequest {
	var request push.PushRequest
	index := make(map[string]int)
	for _, e := range entries {
		i, known := index[e.Stream]
		if !known {
			i = len(request.Streams)
			index[e.Stream] = i
			request.Streams = append(request.Streams, push.Stream{Labels: e.Stream})
		}
		entry := push.Entry{Timestamp: e.Time, Line: string(e.Line)}
		for _, f := range e.Metadata {
			entry.StructuredMetadata = append(entry.StructuredMetadata, push.LabelAdapter{Name: f.Name, Value: string(f.Value)})
		}
		request.Streams[i].Entries = append(request.Streams[i].Entries, entry)
	}
	return request
}

// checkBody encodes entries and compares, byte for byte, with Loki's own types and one call of snappy. What those cannot encode,
// the encoder must refuse.
func checkBody(t *testing.T, entries []Entry) {
	t.Helper()
	var b Batch
	e := newEncoder()
	defer e.close()
	for _, entry := range entries {
		b.Add(entry)
	}
	b.group(together)
	body, err := e.encode(nil, &b, 0, b.Len())
	request := asLoki(entries)
	want, wantErr := request.Marshal()
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("encoding: %v, Loki's types: %v", err, wantErr)
	}
	if err == nil && !bytes.Equal(body, snappy.Encode(nil, want)) {
		got, err := snappy.Decode(nil, body)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("the message of %d bytes differs from that of Loki's types of %d bytes", len(got), len(want))
		}
		t.Fatal("the body differs from what snappy makes of the message")
	}
	for i := range b.records {
		checkReadBack(t, &b, i, entries[b.grouped[i]])
	}
}

func checkReadBack(t *testing.T, b *Batch, i int, want Entry) {
	t.Helper()
	got, err := b.entry(i)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Time.Equal(want.Time) || got.Stream != want.Stream || !bytes.Equal(got.Line, want.Line) || len(got.Metadata) != len(want.Metadata) {
		t.Fatalf("%+v was read back as %+v", want, got)
	}
	for j, f := range want.Metadata {
		if f.Name != got.Metadata[j].Name || !bytes.Equal(f.Value, got.Metadata[j].Value) {
			t.Fatalf("%+v was read back as %+v", want, got)
		}
	}
}

func TestBodyIsThatOfLokisTypes(t *testing.T) {
	long := []byte(strings.Repeat("a long line, ", 1<<20/13))
	field := func(name, value string) []Field { return []Field{{name, []byte(value)}} }
	for _, row := range []struct {
		name    string
		entries []Entry
	}{
		{"nothing", nil},
		{"an empty entry", []Entry{{}}},
		{"one", []Entry{{Stream: "{}", Time: testTime, Line: []byte("line"), Metadata: field("a", "b")}}},
		{"empty names and values", []Entry{{Stream: "{}", Time: testTime, Metadata: append(field("", "b"), append(field("a", ""), field("", "")...)...)}}},
		{"streams in turn", []Entry{{Stream: "A", Time: testTime, Line: []byte("1")}, {Stream: "B", Time: testTime, Line: []byte("2")},
			{Stream: "A", Time: testTime.Add(1), Line: []byte("3")}}},
		{"lengths of two and three bytes", []Entry{{Stream: strings.Repeat("s", 200), Time: testTime, Line: long[:127], Metadata: field("a", string(long[:120]))},
			{Stream: "{}", Time: testTime, Line: long[:128], Metadata: field("a", string(long[:20_000]))}, {Stream: "{}", Line: long[:16_384]}}},
		{"longer than a block", []Entry{{Stream: "{}", Time: testTime, Line: long[:blockSize]}, {Stream: "{}", Time: testTime, Line: long[:blockSize+1]},
			{Stream: "{}", Time: testTime, Line: long}, {Stream: strings.Repeat("s", 3*blockSize), Time: testTime, Line: long}}},
		{"1970", []Entry{{Time: time.Unix(0, 0)}, {Time: time.Unix(0, 1)}, {Time: time.Unix(1, 0)}, {Time: time.Unix(-1, 999_999_999)}}},
		{"the first year", []Entry{{Time: time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)}}},
		{"before it", []Entry{{Time: time.Date(0, 12, 31, 23, 59, 59, 999_999_999, time.UTC)}}},
		{"the last year", []Entry{{Time: time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)}}},
		{"after it", []Entry{{Time: testTime}, {Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}}},
	} {
		t.Run(row.name, func(t *testing.T) { checkBody(t, row.entries) })
	}
}

// FuzzBody makes entries of any bytes, and compares the body with that of Loki's types.
func FuzzBody(f *testing.F) {
	f.Add("{}", "line", "a", "b", int64(0), int64(0), uint16(1))
	f.Add(`{a="b"}`, "", "", "", int64(-1), int64(5), uint16(1000))
	f.Fuzz(func(t *testing.T, stream, line, name, value string, seconds, nanos int64, times uint16) {
		cut := func(s string) string { return s[:min(len(s), 1000)] } // so that an input takes no second
		stream, line, name, value = cut(stream), cut(line), cut(name), cut(value)
		var entries []Entry
		for i := range int(times % 400) {
			entries = append(entries, Entry{Stream: stream[:len(stream)*(i%3)/2], Time: time.Unix(seconds, nanos+int64(i)),
				Line: bytes.Repeat([]byte(line), 1+i%7), Metadata: []Field{{name, []byte(value)}, {value, []byte(name)}}[:i%3]})
		}
		checkBody(t, entries)
	})
}

// A piece of an entry is none, and nothing panics.
func TestReadBackOfPieces(t *testing.T) {
	var b Batch
	b.Add(Entry{Stream: "{}", Time: testTime, Line: []byte("line"), Metadata: []Field{{"a", []byte("b")}}})
	b.group(together)
	if _, err := b.entry(0); err != nil {
		t.Fatal(err)
	}
	wire := b.records[0].wire
	for n := range wire {
		if _, err := readEntry(wire[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are read as an entry", n, len(wire))
		}
	}
}
