package audit

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// checkPieces describes a line by Entries and gives the pieces; alone is a second Describer.
func checkPieces(t *testing.T, d, alone *Describer, line []byte) []Entry {
	t.Helper()
	var pieces []Entry
	var joined []byte
	previous := before
	at := lastEarlier.Add(-1 << 30)
	entries := d.Entries(line, before, at)
	for {
		piece, ok := entries.Next()
		if !ok {
			break
		}
		want := alone.Entry(piece.Line, previous, at+int64(len(joined)))
		if piece.Stream != want.Stream || !piece.Time.Equal(want.Time) || piece.Malformed != want.Malformed ||
			len(piece.Metadata) != len(want.Metadata) {
			t.Errorf("piece %q\n got %+v\nwant %+v", piece.Line, piece, want)
		}
		if len(pieces) > 0 && !bytes.HasPrefix(piece.Line, []byte(eventStart)) {
			t.Errorf("piece %q does not begin an event", piece.Line)
		}
		joined = append(joined, piece.Line...)
		previous = piece.Time
		piece.Metadata = nil
		pieces = append(pieces, *piece)
	}
	if !bytes.Equal(joined, line) {
		t.Errorf("the pieces are %q, the line is %q", joined, line)
	}
	if consult(line).ok && len(pieces) != 1 || len(pieces) == 0 {
		t.Errorf("%d pieces of %q", len(pieces), line)
	}
	return pieces
}

func TestPieces(t *testing.T) {
	const a = `{"kind":"Event","apiVersion":"audit.k8s.io/v1","stageTimestamp":"2026-11-23T20:33:05.000001Z"}`
	const b = `{"kind":"Event","apiVersion":"audit.k8s.io/v1","stageTimestamp":"2026-11-23T20:33:05.000002Z"}`
	const body = `{"kind":"Event","apiVersion":"audit.k8s.io/v1","requestObject":` + b + `}`
	const core = `{"kind":"Event","apiVersion":"v1"`
	cases := []struct {
		name, line string
		want       []string // the kinds of the pieces: event, malformed, blank
		lengths    []int
	}{
		{"an event", a, []string{"event"}, []int{len(a)}},
		{"an event in a body", body, []string{"event"}, []int{len(body)}},
		{"nothing", "", []string{"blank"}, []int{0}},
		{"white space", " \t\r", []string{"blank"}, []int{3}},
		{"words", "hello", []string{"malformed"}, []int{5}},
		{"torn", a[:70], []string{"malformed"}, []int{70}},
		{"torn in a string, glued", a[:70] + b, []string{"malformed", "event"}, []int{70, len(b)}},
		{"torn before a value, glued", a[:63] + b, []string{"malformed", "event"}, []int{63, len(b)}},
		{"torn in the mark, glued", a[:20] + b, []string{"malformed", "event"}, []int{20, len(b)}},
		{"whole, glued", a + b, []string{"event", "event"}, []int{len(a), len(b)}},
		{"whole, glued, torn", a + b[:80], []string{"event", "malformed"}, []int{len(a), 80}},
		{"torn twice", a[:70] + b[:80] + a, []string{"malformed", "malformed", "event"}, []int{70, 80, len(a)}},
		{"hole", "\x00\x00\x00" + a, []string{"blank", "event"}, []int{3, len(a)}},
		{"hole in the middle", a[:70] + "\x00\x00" + b, []string{"malformed", "event"}, []int{72, len(b)}},
		{"a hole alone", "\x00\x00\x00", []string{"blank"}, []int{3}},
		{"torn at an event of core/v1", a[:70] + core, []string{"malformed"}, []int{70 + len(core)}},
		{"torn event with one in its body", body[:len(body)-1], []string{"malformed", "event"}, []int{len(body) - 1 - len(b), len(b)}},
	}
	d, alone := newDescriber(t), newDescriber(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			pieces := checkPieces(t, d, alone, []byte(c.line))
			if len(pieces) != len(c.want) {
				t.Fatalf("%d pieces, want %d", len(pieces), len(c.want))
			}
			for i, piece := range pieces {
				kind := "event"
				if piece.Blank {
					kind = "blank"
				} else if piece.Malformed {
					kind = "malformed"
				}
				if kind != c.want[i] || len(piece.Line) != c.lengths[i] {
					t.Errorf("piece %d: %s of %d bytes, want %s of %d", i, kind, len(piece.Line), c.want[i], c.lengths[i])
				}
			}
		})
	}
}

// TestPieceTime: a piece without a time has that of the piece before it in the line.
func TestPieceTime(t *testing.T) {
	const whole = `{"kind":"Event","apiVersion":"audit.k8s.io/v1","stageTimestamp":"2026-11-23T20:33:05.000001Z"}`
	d := newDescriber(t)
	pieces := checkPieces(t, d, newDescriber(t), []byte("torn"+whole+whole[:60]))
	at := time.Date(2026, 11, 23, 20, 33, 5, 1000, time.UTC)
	for i, want := range []time.Time{before, at, at} {
		if !pieces[i].Time.Equal(want) {
			t.Errorf("piece %d at %v, want %v", i, pieces[i].Time, want)
		}
	}
}

// TestDamagedFiles takes apart what a full disk and an external truncate left behind.
func TestDamagedFiles(t *testing.T) {
	cases := []struct {
		name                     string
		events, malformed, blank int
	}{
		{"torn-glued.log", 21, 1, 0},
		{"nul-hole.log.gz", 10, 0, 1},
		{"legacy-format.log", 0, 20, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d, alone := newDescriber(t), newDescriber(t)
			var events, malformed, blank int
			for _, line := range corpusLines(t, c.name) {
				for _, piece := range checkPieces(t, d, alone, line) {
					switch {
					case piece.Blank:
						blank++
					case piece.Malformed:
						malformed++
					default:
						events++
					}
				}
			}
			if events != c.events || malformed != c.malformed || blank != c.blank {
				t.Errorf("%d events, %d malformed, %d blank; want %+v", events, malformed, blank, c)
			}
		})
	}
}

// TestLegacyTime: a line of the legacy format has its own time.
func TestLegacyTime(t *testing.T) {
	line := corpusLines(t, "legacy-format.log")[0]
	got := newDescriber(t).Entry(line, before, 0).Time
	if want := time.Date(2026, 11, 23, 20, 44, 35, 811994352, time.UTC); !got.Equal(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestNestedBeginnings: a torn line that holds thousands of beginnings of an event, each within the other, is given up
// after a bounded amount of work, and is still whole.
func TestNestedBeginnings(t *testing.T) {
	line := []byte(strings.Repeat(eventStart+`v1","a":`, 9000) + `"` + strings.Repeat("x", 4<<20))
	d := newDescriber(t)
	entries := d.Entries(line, before, 0)
	pieces, size := 0, 0
	for piece, ok := entries.Next(); ok; piece, ok = entries.Next() {
		pieces++
		size += len(piece.Line)
	}
	if pieces < 2 || pieces > maxRereads+2 || size != len(line) {
		t.Errorf("%d pieces of %d bytes, the line has %d", pieces, size, len(line))
	}
}
