package shipper

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/grafana/loki/pkg/push"
)

func decoded(t *testing.T, body []byte) push.PushRequest {
	t.Helper()
	plain, err := snappy.Decode(nil, body)
	if err != nil {
		t.Fatal(err)
	}
	var request push.PushRequest
	if err := request.Unmarshal(plain); err != nil {
		t.Fatal(err)
	}
	return request
}

// shown writes a push as one line: each stream with its entries.
func shown(request push.PushRequest) string {
	var b strings.Builder
	for _, s := range request.Streams {
		fmt.Fprintf(&b, "%s:", s.Labels)
		for _, e := range s.Entries {
			fmt.Fprintf(&b, " %s@%d", e.Line, e.Timestamp.Nanosecond())
			for _, m := range e.StructuredMetadata {
				fmt.Fprintf(&b, ",%s=%s", m.Name, m.Value)
			}
		}
		b.WriteString("; ")
	}
	return b.String()
}

func TestEncodeRangesOfABatch(t *testing.T) {
	var b Batch
	e := newEncoder()
	defer e.close()
	line := []byte("x")
	for round := range 3 { // a batch that was used before gives the same
		for i, stream := range []string{"A", "B", "A", "C", "B", "A"} {
			line[0] = byte('0' + i)
			b.Add(Entry{Stream: stream, Time: time.Unix(0, int64(i)), Line: line, Metadata: []Field{{"m", line}}})
		}
		line[0] = '!' // what was added is a copy
		if b.Len() != 6 || b.Bytes() != 6+2*6 {
			t.Errorf("round %d: %d entries, %d bytes", round, b.Len(), b.Bytes())
		}
		b.group(together)
		for _, row := range []struct {
			lo, hi int
			want   string
		}{
			{0, 6, "A: 0@0,m=0 2@2,m=2 5@5,m=5; B: 1@1,m=1 4@4,m=4; C: 3@3,m=3; "},
			{0, 2, "A: 0@0,m=0 2@2,m=2; "},
			{2, 4, "A: 5@5,m=5; B: 1@1,m=1; "},
			{5, 6, "C: 3@3,m=3; "},
		} {
			body, err := e.encode(nil, &b, row.lo, row.hi)
			if err != nil {
				t.Fatal(err)
			}
			if got := shown(decoded(t, body)); got != row.want {
				t.Errorf("round %d, %d to %d: %s, want %s", round, row.lo, row.hi, got, row.want)
			}
		}
		b.Reset()
		if b.Len() != 0 || b.Bytes() != 0 {
			t.Errorf("after Reset: %d entries, %d bytes", b.Len(), b.Bytes())
		}
	}
}

// An entry goes to the stream of its labels, whatever came before: also one without labels.
func TestStreamsOfEntries(t *testing.T) {
	var b Batch
	for range 2 { // after Reset nothing is remembered
		for i, labels := range []string{`{a="b"}`, "", `{a="b"}`, "", `{a="c"}`} {
			b.Add(Entry{Stream: labels, Time: testTime, Line: []byte("x")})
			if got := b.streams[b.records[i].stream].labels; got != labels {
				t.Errorf("entry %d is in stream %q, want %q", i, got, labels)
			}
		}
		if len(b.streams) != 3 {
			t.Errorf("%d streams, want 3", len(b.streams))
		}
		b.Reset()
	}
}

// Lines of any length come out as they went in, also across chunks.
func TestLinesOfAnyLength(t *testing.T) {
	var b Batch
	e := newEncoder()
	defer e.close()
	var want [][]byte
	for i, n := range []int{0, 1, chunkSize - 1, 1, 1, chunkSize, chunkSize + 1, 3 << 20, 0, 5000, chunkSize / 2, chunkSize / 2, chunkSize / 2} {
		line := bytes.Repeat([]byte{byte('a' + i)}, n)
		want = append(want, bytes.Clone(line))
		b.Add(Entry{Stream: "{}", Time: testTime, Line: line})
		clear(line)
	}
	b.group(together)
	body, err := e.encode(nil, &b, 0, b.Len())
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range decoded(t, body).Streams[0].Entries {
		if got.Line != string(want[i]) {
			t.Errorf("line %d of %d bytes came out with %d bytes, or others", i, len(want[i]), len(got.Line))
		}
	}
	for i, chunk := range b.arena.chunks {
		if cap(chunk) != chunkSize {
			t.Errorf("chunk %d has grown to %d bytes", i, cap(chunk))
		}
	}
	if cap(e.block) > blockSize || e.body != nil {
		t.Errorf("the encoder keeps a block of %d bytes and a body of %d", cap(e.block), cap(e.body))
	}
}

func TestResetLetsGo(t *testing.T) {
	var b Batch
	for i := range 2 * keptEntries {
		b.Add(Entry{Stream: fmt.Sprint(i)})
	}
	b.group(together)
	b.Reset()
	if len(b.arena.chunks) > 0 || cap(b.records) > keptEntries || cap(b.grouped) > keptEntries || b.index != nil {
		t.Errorf("kept %d chunks, %d entries, %d grouped, %d streams", len(b.arena.chunks), cap(b.records), cap(b.grouped), len(b.index))
	}
}

// A long entry takes the memory of one before it, which is let go when there is none for long, or if it was longer than usual.
func TestLongEntriesShareMemory(t *testing.T) {
	var store spares
	b := &Batch{arena: arena{store: &store}}
	fill := func(sizes ...int) {
		for _, n := range sizes {
			b.Add(Entry{Stream: "{}", Line: bytes.Repeat([]byte("x"), n)})
		}
		pieces := make(map[*byte]bool)
		for _, p := range b.arena.long {
			pieces[&p[0]] = true
		}
		if len(pieces) != len(b.arena.long) {
			t.Error("two entries have the same memory")
		}
		b.Reset()
	}
	for _, row := range []struct {
		name  string
		times int
		sizes []int
		want  int // bytes of a line that are kept, or as before
	}{
		{"the longest of a batch", 1, []int{1 << 20, 2 << 20, 1 << 20}, 2 << 20},
		{"it serves shorter ones, beside chunks", 3 * spareAfter, []int{1, 1 << 20, 5}, 2 << 20},
		{"a longer one takes its place", 1, []int{3 << 20}, 3 << 20},
		{"too long to be kept", 1, []int{keptLong + 1}, 3 << 20},
		{"unused for a while", spareAfter, []int{chunkSize / 2}, 3 << 20},
		{"unused for longer", 1, []int{chunkSize / 2}, 0},
	} {
		was := store.long
		for range row.times {
			fill(row.sizes...)
		}
		kept := len(store.long)
		if kept < row.want || kept > row.want+100 {
			t.Errorf("%s: %d bytes are kept, want %d", row.name, kept, row.want)
		}
		if kept > 0 && kept == len(was) && &store.long[0] != &was[0] {
			t.Errorf("%s: it was made anew", row.name)
		}
	}
}

// Batches that are filled in turns take the memory of those that were open at a time, and what a burst took is let go.
func TestBatchesShareChunks(t *testing.T) {
	var store spares
	line := bytes.Repeat([]byte("x"), chunkSize/2)
	filled := func(chunks int) *Batch {
		b := &Batch{arena: arena{store: &store}}
		for range chunks {
			b.Add(Entry{Stream: "{}", Line: line})
		}
		return b
	}
	first := filled(10)
	if len(first.arena.chunks) != 10 {
		t.Fatalf("%d chunks, want 10", len(first.arena.chunks))
	}
	second := filled(1)
	first.Reset()
	second.Reset()
	for _, b := range []*Batch{first, second} {
		for range 11 {
			b.Add(Entry{Stream: "{}", Line: line})
		}
		if len(store.free) != 0 {
			t.Errorf("%d chunks are free beside a batch of 11", len(store.free))
		}
		b.Reset()
	}
	for range 2 * spareAfter {
		b := filled(3)
		b.Reset()
	}
	if len(store.free) != 3 {
		t.Errorf("%d chunks are kept for batches of 3", len(store.free))
	}
}

// fill adds about 1 MiB in lines of about 1 KB to 200 streams, from memory that is used again, as the agent does.
func fill(b *Batch, line []byte, metadata []Field, streams []string) {
	for i := 0; b.Bytes() < 1<<20; i++ {
		b.Add(Entry{Stream: streams[i%len(streams)], Time: testTime, Line: line, Metadata: metadata})
	}
}

func filling() (line []byte, metadata []Field, streams []string) {
	for i := range 200 {
		streams = append(streams, fmt.Sprintf(`{job="kube-apiserver-audit", user="u%d"}`, i))
	}
	for i := range 10 {
		metadata = append(metadata, Field{fmt.Sprint("name", i), []byte("some value of it")})
	}
	return bytes.Repeat([]byte(`{"kind":"Event"},`), 56), metadata, streams
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	var b Batch
	e := newEncoder()
	defer e.close()
	line, metadata, streams := filling()
	var body []byte
	round := func() {
		fill(&b, line, metadata, streams)
		b.group(together)
		var err error
		if body, err = e.encode(body[:0], &b, 0, b.Len()); err != nil {
			t.Fatal(err)
		}
		b.Reset()
	}
	round()
	if allocs := testing.AllocsPerRun(20, round); allocs > 0 {
		t.Errorf("%v allocations for a batch of 1 MiB", allocs)
	}
}

func BenchmarkBatch(b *testing.B) {
	var batch Batch
	e := newEncoder()
	defer e.close()
	line, metadata, streams := filling()
	var body []byte
	b.ReportAllocs()
	b.SetBytes(1 << 20)
	for b.Loop() {
		fill(&batch, line, metadata, streams)
		batch.group(together)
		var err error
		if body, err = e.encode(body[:0], &batch, 0, batch.Len()); err != nil {
			b.Fatal(err)
		}
		batch.Reset()
	}
}

// together puts all streams of a batch into one push.
func together(*stream) bool { return false }
