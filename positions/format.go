package positions

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A positions file, durable or latest, is this JSON, indented by two spaces, paths sorted, with a newline at its end:
//
//	{
//	  "version": 1,
//	  "checksum": "…64 hexadecimal digits…",
//	  "generation": 17,
//	  "paths": {
//	    "/var/log/kubernetes/audit.log": {
//	      "first_line": "…",
//	      …
//
// The checksum is the SHA-256 of the file without its third line, the checksum's own: what
// `sed 3d positions.json | sha256sum` prints. Every version keeps the first two lines, so that an older agent can tell
// that it does not understand the rest. The generation orders the files of one store (Store.generation); agents before it
// was there wrote none and do not mind it. More newlines may follow at the end, under the checksum too.
const formatVersion = 1

const (
	versionKey   = "{\n  \"version\": "
	versionEnd   = ",\n"
	checksumKey  = "  \"checksum\": \""
	checksumEnd  = "\",\n"
	checksumSize = 2 * sha256.Size
)

// Where the checksum's line begins, its digits begin, and its line ends, in a file of this version.
var (
	checksumLine   = len(versionKey) + len(strconv.Itoa(formatVersion)) + len(versionEnd)
	checksumDigits = checksumLine + len(checksumKey)
	checksumNext   = checksumDigits + checksumSize + len(checksumEnd)
)

var (
	noChecksum = strings.Repeat("0", checksumSize)
	padding    = bytes.Repeat([]byte{'\n'}, 512)
)

// versionError says that a positions file is of a format that this agent does not know.
type versionError uint64

func (e versionError) Error() string {
	return fmt.Sprintf("is of version %d, this agent knows version %d: a newer agent wrote it, so run that one, "+
		"or start without positions by moving the file away", uint64(e), formatVersion)
}

type document struct {
	Version    int                 `json:"version"`
	Checksum   string              `json:"checksum"`
	Generation uint64              `json:"generation,omitempty"`
	Paths      map[string]Position `json:"paths"`
}

// encode replaces what is in buf by the content of a positions file, not sealed yet.
func encode(buf *bytes.Buffer, generation uint64, paths map[string]Position) error {
	buf.Reset()
	e := json.NewEncoder(buf)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	d := document{Version: formatVersion, Checksum: noChecksum, Generation: generation, Paths: paths}
	if err := e.Encode(d); err != nil {
		return fmt.Errorf("encoding positions: %w", err)
	}
	return nil
}

// pad lengthens what is in buf to size, if it is shorter.
func pad(buf *bytes.Buffer, size int) {
	for missing := size - buf.Len(); missing > 0; missing = size - buf.Len() {
		buf.Write(padding[:min(missing, len(padding))])
	}
}

// seal sets the checksum of raw, a positions file of this version.
func seal(raw []byte) {
	sum := checksum(raw)
	hex.Encode(raw[checksumDigits:], sum[:])
}

func checksum(raw []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write(raw[:checksumLine])
	h.Write(raw[checksumNext:])
	h.Sum(sum[:0])
	return sum
}

// decode gives what is in a positions file. The error is a versionError if a newer agent wrote it, and any other if it is
// not whole.
func decode(raw []byte) (document, error) {
	if err := checkVersion(raw); err != nil {
		return document{}, err
	}
	if len(raw) < checksumNext ||
		string(raw[checksumLine:checksumDigits]) != checksumKey ||
		string(raw[checksumDigits+checksumSize:checksumNext]) != checksumEnd {
		return document{}, errors.New("the checksum is missing")
	}
	sum := checksum(raw)
	if hex.EncodeToString(sum[:]) != string(raw[checksumDigits:checksumDigits+checksumSize]) {
		return document{}, errors.New("the checksum is wrong")
	}
	var d document
	if err := json.Unmarshal(raw, &d); err != nil {
		return document{}, fmt.Errorf("decoding positions: %w", err)
	}
	if d.Generation > math.MaxInt64 { // counting on from there would not stay ahead of it
		return document{}, fmt.Errorf("generation %d is not one that an agent reaches", d.Generation)
	}
	for path, p := range d.Paths {
		if err := validate(path, p); err != nil {
			return document{}, err
		}
	}
	return d, nil
}

func checkVersion(raw []byte) error {
	rest, ok := bytes.CutPrefix(raw, []byte(versionKey))
	digits, _, terminated := bytes.Cut(rest, []byte(versionEnd))
	if !ok || !terminated {
		return errors.New("the version is missing")
	}
	version, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil {
		return fmt.Errorf("reading the version: %w", err)
	}
	if version != formatVersion {
		return versionError(version)
	}
	if len(digits) != len(strconv.Itoa(formatVersion)) {
		return errors.New("the version is not written as this agent writes it")
	}
	return nil
}

// validate reports what could not be written and read back as it is.
func validate(path string, p Position) error {
	var gap Gap
	if p.Gap != nil {
		gap = *p.Gap
	}
	times := append([]time.Time{p.EventTime, gap.Last, gap.First}, p.Old.times()...)
	for _, t := range append(times, p.Restamp.times()...) {
		if year := t.UTC().Year(); year < 0 || year > 9999 {
			return fmt.Errorf("event time of %s is in the year %d", path, year)
		}
	}
	for _, offset := range p.Others {
		if offset < 0 {
			return fmt.Errorf("offset %d beside %s is negative", offset, path)
		}
	}
	switch {
	case !utf8.ValidString(path), !utf8.ValidString(gap.Reason), !utf8.ValidString(p.Destination):
		return fmt.Errorf("path %q is not UTF-8", path)
	case p.Offset < 0:
		return fmt.Errorf("offset %d of %s is negative", p.Offset, path)
	case p.LSN < 0:
		return fmt.Errorf("lsn %d of %s is negative", p.LSN, path)
	case p.Old.negative():
		return fmt.Errorf("a count of old events of %s is negative", path)
	}
	return nil
}
