//go:build e2e

package faults

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

// eventStart is how an event begins that may be glued to what is torn.
var eventStart = []byte(`{"kind":"Event","apiVersion":"audit.k8s.io/`)

func init() {
	for _, file := range []string{"torn-glued.log", "nul-hole.log.gz", "legacy-format.log"} {
		register(scenario{side: "damage", name: "recorded: " + file, unordered: true, play: recorded(file)})
	}
	for _, d := range damages {
		register(scenario{side: "damage", name: d.name, flags: d.flags, unordered: true, play: d.play})
	}
}

// damage is what stands among good lines.
type damage struct {
	name  string
	flags []string
	// spoil gives the bytes to write, made of two events, and the entries that they must become: malformed ones and events.
	spoil func(a, b []byte) (text []byte, malformed, events [][]byte)
	blank int // lines, or pieces of lines, that are counted and not shipped, for each
}

const readLimit = 64 << 10

var damages = []damage{
	{name: "a torn line glued to the next event", spoil: func(a, b []byte) ([]byte, [][]byte, [][]byte) {
		torn := a[:len(a)/2]
		return lines(join(torn, b)), [][]byte{torn}, [][]byte{b}
	}},
	{name: "an event inside of another", spoil: func(a, b []byte) ([]byte, [][]byte, [][]byte) {
		head, tail := a[:len(a)/2], a[len(a)/2:]
		return lines(join(head, b), tail), [][]byte{head, tail}, [][]byte{b}
	}},
	{name: "fragments of two events by turns", spoil: func(a, b []byte) ([]byte, [][]byte, [][]byte) {
		rest := join(b[:len(b)/2], a[len(a)/2:], b[len(b)/2:])
		return lines(join(a[:len(a)/2], rest)), [][]byte{a[:len(a)/2], rest}, nil
	}},
	{name: "invalid UTF-8 in a string", spoil: func(a, b []byte) ([]byte, [][]byte, [][]byte) {
		a = bytes.Replace(a, []byte(`"requestURI":"/`), []byte("\"requestURI\":\"/\xff\xfe\xc3("), 1)
		return lines(a, b), nil, [][]byte{a, b}
	}},
	{name: "invalid UTF-8 and nothing else", spoil: func(a, b []byte) ([]byte, [][]byte, [][]byte) {
		noise := join([]byte("\xff\xfe\x80\xc3("), mark(a))
		return lines(noise, b), [][]byte{noise}, [][]byte{b}
	}},
	{name: "a line that is not JSON", spoil: func(a, b []byte) ([]byte, [][]byte, [][]byte) {
		words := join([]byte("E1124 01:40:21 audit.go:99] cannot write "), mark(a))
		return lines(words, b), [][]byte{words}, [][]byte{b}
	}},
	{name: "JSON that is no object", spoil: func(a, b []byte) ([]byte, [][]byte, [][]byte) {
		// It holds an event, at which the rest of it begins anew.
		head, rest := join([]byte(`["`), mark(a), []byte(`",`)), join(a, []byte("]"))
		return lines(join(head, rest), b), [][]byte{head, rest}, [][]byte{b}
	}},
	{name: "a line over the read limit", flags: []string{fmt.Sprintf("--max-read-line=%d", readLimit)}, spoil: func(a, b []byte) ([]byte, [][]byte, [][]byte) {
		long := bytes.Replace(a, []byte(`"requestURI":"/`), []byte(`"requestURI":"/`+strings.Repeat("x", 4*readLimit)), 1)
		return lines(long, b), [][]byte{long[:readLimit]}, [][]byte{b}
	}},
	{name: "empty lines", blank: 2, spoil: func(a, b []byte) ([]byte, [][]byte, [][]byte) {
		return lines(a, nil, nil, b), nil, [][]byte{a, b}
	}},
	{name: "none: an event in the body of another", spoil: func(a, b []byte) ([]byte, [][]byte, [][]byte) {
		whole := withResponse(a, b)
		return lines(whole), nil, [][]byte{whole}
	}},
	{name: "NUL bytes in an event", spoil: func(a, b []byte) ([]byte, [][]byte, [][]byte) {
		holed := slices.Clone(a)
		clear(holed[len(holed)/2 : len(holed)/2+100])
		return lines(holed, b), [][]byte{holed}, [][]byte{b}
	}},
	{name: "NUL bytes between two events", blank: 1, spoil: func(a, b []byte) ([]byte, [][]byte, [][]byte) {
		// The hole belongs to the line of b.
		return lines(a, join(make([]byte, 100<<10), b)), nil, [][]byte{a, b}
	}},
}

// lines gives text of lines, each with its newline.
func lines(of ...[]byte) []byte { return append(bytes.Join(of, []byte{'\n'}), '\n') }

// mark is some text that no other event gives.
func mark(event []byte) []byte { return fmt.Appendf(nil, "%x", sha256.Sum256(event)) }

func join(of ...[]byte) []byte { return bytes.Join(of, nil) }

// play writes the damage three times among good lines: into a file that is read while it grows, and into one that is a packed
// backup when it is read.
func (d damage) play(r *run) {
	w := r.byHand()
	malformed := 0
	spoil := func() {
		r.by(w, 10)
		text, bad, good := d.spoil(r.event(), r.event())
		for _, line := range slices.Concat(bad, good) {
			r.wrote(line)
		}
		malformed += len(bad)
		w.raw(text)
		r.by(w, 10)
	}
	for range 2 {
		spoil()
	}
	compress(r.T, w.rotate(), nil)
	r.start()
	spoil()
	r.allDelivered()
	r.checkDamage(malformed, 3*d.blank)
}

// event gives an event that is not counted as written yet.
func (r *run) event() []byte {
	r.Helper()
	line, err := r.events.line()
	r.must(err)
	return line
}

// checkDamage judges what the agent says of damage, and the labels under which it was shipped.
func (r *run) checkDamage(malformed, blank int) {
	r.Helper()
	if n := int(r.metric("auditferry_malformed_total")); n != malformed {
		r.Errorf("auditferry_malformed_total is %d, want %d", n, malformed)
	}
	if n := int(r.metric("auditferry_blank_total")); n != blank {
		r.Errorf("auditferry_blank_total is %d, want %d", n, blank)
	}
	for _, e := range r.server.Entries() {
		object := json.Valid([]byte(e.Line)) && strings.HasPrefix(e.Line, "{")
		if marked := e.Labels["resource"] == "malformed"; marked == object {
			r.Errorf("an entry of %d bytes, an object: %t, has resource=%q", e.Bytes, object, e.Labels["resource"])
		}
	}
}

// recorded writes a damaged log that was recorded, with good lines before and after it.
func recorded(file string) func(*run) {
	return func(r *run) {
		root, err := rig.RepoRoot()
		r.must(err)
		w := r.byHand()
		r.by(w, 10)
		malformed, blank := 0, 0
		for line, err := range rig.FileLines(filepath.Join(root, "hack", "corpus", file)) {
			r.must(err)
			w.raw(lines(line))
			for _, piece := range pieces(line) {
				switch {
				case len(bytes.Trim(piece, "\x00 \t\r")) == 0:
					blank++
					continue
				case !json.Valid(piece):
					malformed++
				}
				r.wrote(slices.Clone(piece))
			}
		}
		r.by(w, 10)
		if malformed+blank == 0 {
			r.Fatal("nothing is damaged")
		}
		r.start()
		r.allDelivered()
		r.checkDamage(malformed, blank)
		if file == "legacy-format.log" {
			r.checkLegacyTimes()
		}
	}
}

// pieces cuts a line that is no JSON before each event that begins in it.
func pieces(line []byte) [][]byte {
	if json.Valid(line) {
		return [][]byte{line}
	}
	at := -1
	if len(line) > 0 {
		at = bytes.Index(line[1:], eventStart)
	}
	if at < 0 {
		return [][]byte{line}
	}
	return append([][]byte{line[:at+1]}, pieces(line[at+1:])...)
}

// checkLegacyTimes judges the timestamps of lines that begin with one.
func (r *run) checkLegacyTimes() {
	r.Helper()
	for _, e := range r.server.Entries() {
		word, _, _ := strings.Cut(e.Line, " ")
		if at, err := time.Parse(time.RFC3339Nano, word); err == nil && !at.Equal(e.Time) {
			r.Errorf("a line that begins with %s has the time %s", word, e.Time)
		}
	}
}
