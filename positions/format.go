package positions

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
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
//	  "paths": {
//	    "/var/log/kubernetes/audit.log": {
//	      "first_line": "…",
//	      …
//
// The checksum is the SHA-256 of the file without its third line, the checksum's own: what
// `sed 3d positions.json | sha256sum` prints. Every version keeps the first two lines, so that an older agent can tell
// that it does not understand the rest.
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

var noChecksum = strings.Repeat("0", checksumSize)

// versionError says that a positions file is of a format that this agent does not know.
type versionError uint64

func (e versionError) Error() string {
	return fmt.Sprintf("is of version %d, this agent knows version %d: a newer agent wrote it, so run that one, "+
		"or start without positions by moving the file away", uint64(e), formatVersion)
}

type document struct {
	Version  int                 `json:"version"`
	Checksum string              `json:"checksum"`
	Paths    map[string]Position `json:"paths"`
}

// encode replaces what is in buf by the content of a positions file.
func encode(buf *bytes.Buffer, paths map[string]Position) error {
	buf.Reset()
	e := json.NewEncoder(buf)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(document{Version: formatVersion, Checksum: noChecksum, Paths: paths}); err != nil {
		return fmt.Errorf("encoding positions: %w", err)
	}
	seal(buf.Bytes())
	return nil
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

// decode gives the positions in the content of a positions file. The error is a versionError if a newer agent wrote it,
// and any other if it is not whole.
func decode(raw []byte) (map[string]Position, error) {
	if err := checkVersion(raw); err != nil {
		return nil, err
	}
	if len(raw) < checksumNext ||
		string(raw[checksumLine:checksumDigits]) != checksumKey ||
		string(raw[checksumDigits+checksumSize:checksumNext]) != checksumEnd {
		return nil, errors.New("the checksum is missing")
	}
	sum := checksum(raw)
	if hex.EncodeToString(sum[:]) != string(raw[checksumDigits:checksumDigits+checksumSize]) {
		return nil, errors.New("the checksum is wrong")
	}
	var d document
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, fmt.Errorf("decoding positions: %w", err)
	}
	for path, p := range d.Paths {
		if err := validate(path, p); err != nil {
			return nil, err
		}
	}
	return d.Paths, nil
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
	for _, t := range []time.Time{p.EventTime, gap.Last, gap.First} {
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
	case !utf8.ValidString(path), !utf8.ValidString(gap.Reason):
		return fmt.Errorf("path %q is not UTF-8", path)
	case p.Offset < 0:
		return fmt.Errorf("offset %d of %s is negative", p.Offset, path)
	case p.LSN < 0:
		return fmt.Errorf("lsn %d of %s is negative", p.LSN, path)
	}
	return nil
}
