package shipper

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxLetter is the longest line that is taken for a dead letter. An event has up to 16 MiB (--max-read-line), of which each
// byte can take six in JSON (\u0000); labels, structured metadata and Loki's words take less than a MiB. With the batches it
// bounds the memory of a replay: reading a letter takes five to seven times its length.
const maxLetter = 128 << 20

// A letterReader reads dead letters one after the other. What is none, it passes over and remembers where it is.
type letterReader struct {
	in     *bufio.Reader
	max    int    // maxLetter; tests read shorter ones
	line   []byte // the one at hand
	start  int64  // of the line at hand
	offset int64  // of what is read next
	ended  bool   // the line at hand has a newline

	others []extent // neighbours are one
	pieces int      // lines in others that are no dead letters
	late   int      // dead letters in others, with a time that cannot be read: no push can hold it
}

// An extent is a part of a file.
type extent struct{ offset, length int64 }

func newLetterReader(r io.Reader) *letterReader {
	return &letterReader{in: bufio.NewReaderSize(r, 64<<10), max: maxLetter}
}

// next gives the entry of the next dead letter that can be pushed, or io.EOF.
func (r *letterReader) next() (Entry, error) {
	for {
		line, err := r.readLine()
		if err != nil {
			return Entry{}, err
		}
		letter, whole := parseLetter(line)
		if !whole {
			r.pass(&r.pieces)
			continue
		}
		if e, ok := letter.entry(); ok {
			return e, nil
		}
		r.pass(&r.late)
	}
}

// pass counts and remembers the line at hand, unless it is empty.
func (r *letterReader) pass(count *int) {
	e := extent{r.start, r.offset - r.start}
	if e.length == 1 && r.ended {
		return
	}
	*count++
	if n := len(r.others); n > 0 && r.others[n-1].offset+r.others[n-1].length == e.offset {
		r.others[n-1].length += e.length
		return
	}
	r.others = append(r.others, e)
}

// readLine gives the next line without its newline, which the last one need not have; one that is too long is passed over and
// given as an empty one.
func (r *letterReader) readLine() ([]byte, error) {
	r.line, r.start = r.line[:0], r.offset
	long := false
	for {
		part, err := r.in.ReadSlice('\n')
		r.offset += int64(len(part))
		if long = long || len(r.line)+len(part) > r.max; !long {
			r.line = append(r.line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && r.offset > r.start:
		case err != nil:
			return nil, err
		}
		if r.ended = err == nil; long {
			return nil, nil
		}
		return bytes.TrimSuffix(r.line, []byte{'\n'}), nil
	}
}

// parseLetter reads a line of a dead-letter file. It is strict, because a letter that was taken is deleted: one that says
// more than is understood here, as that of a later version may, is none.
func parseLetter(line []byte) (d DeadLetter, whole bool) {
	if !utf8.Valid(line) { // encoding/json would put U+FFFD in its place
		return d, false
	}
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if decoder.Decode(&d) != nil {
		return d, false
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return d, false
	}
	return d, d.Reason != "" && d.Labels != "" && d.Timestamp != ""
}

// entry is what the letter is about, as it was pushed; not ok if the time is none that a push can hold, or not as it is
// written in a letter: then it may be more exact than is understood here.
func (d *DeadLetter) entry() (e Entry, ok bool) {
	at, err := time.Parse(time.RFC3339Nano, d.Timestamp)
	if err != nil || at.UTC().Format(time.RFC3339Nano) != d.Timestamp {
		return Entry{}, false
	}
	e = Entry{Stream: d.Labels, Time: at, Line: bytesOf(d.Event, d.EventBytes)}
	for _, f := range d.Metadata {
		e.Metadata = append(e.Metadata, Field{Name: f.Name, Value: bytesOf(f.Value, f.Bytes)})
	}
	return e, true
}

// bytesOf undoes textOrBytes.
func bytesOf(text string, bytes []byte) []byte {
	if bytes != nil {
		return bytes
	}
	return []byte(text)
}

// withLabels adds labels to a label set in Loki's text form, instead of those that have the same names.
func withLabels(set string, add map[string]string) (string, error) {
	rest, begins := strings.CutPrefix(set, "{")
	if !begins {
		return "", fmt.Errorf("the label set %q does not begin with {", set)
	}
	var pairs []string
	for rest = strings.TrimSpace(rest); rest != "}"; {
		name, after, found := strings.Cut(rest, "=")
		value, err := strconv.QuotedPrefix(after)
		if !found || err != nil {
			return "", fmt.Errorf("the label set %q is not of the form {name=\"value\"}", set)
		}
		name = strings.TrimSpace(name)
		if _, replaced := add[name]; !replaced {
			pairs = append(pairs, name+"="+value)
		}
		rest = strings.TrimSpace(after[len(value):])
		if more, comma := strings.CutPrefix(rest, ","); comma {
			rest = strings.TrimSpace(more)
		} else if rest != "}" {
			return "", fmt.Errorf("the label set %q does not end with }", set)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(add)) {
		pairs = append(pairs, name+"="+strconv.Quote(add[name]))
	}
	return "{" + strings.Join(pairs, ", ") + "}", nil
}
