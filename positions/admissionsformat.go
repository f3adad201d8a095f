package positions

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strconv"
)

// An admissions file is lines of a checksum (CRC-32C of the rest of the line, 8 hexadecimal digits), a space, and JSON:
//
//	1e1a2b3c {"version":1}
//	9f8e7d6c {"path":"/var/log/kubernetes/audit.log","from":123456,"kind":"…","words":["…"]}
//
// The first line tells the version; every version keeps it so. Each other line is an Admission, which counts if it is the first
// of its subject, or lowers the position of that. Empty lines mean nothing: at the end, they are room for more.
const admissionsVersion = 1

// spareAdmissions is how much room a file has at its end whenever it grows, in bytes: for some hundred lines.
const spareAdmissions = 64 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendLine(dst []byte, value any) ([]byte, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encoding an admission: %w", err)
	}
	return fmt.Appendf(dst, "%08x %s\n", crc32.Checksum(text, castagnoli), text), nil
}

type admissionsVersionLine struct {
	Version uint64 `json:"version"`
}

var admissionsHead = func() []byte {
	head, _ := appendLine(nil, admissionsVersionLine{Version: admissionsVersion})
	return head
}()

// encodeAdmissions appends lines.
func encodeAdmissions(dst []byte, admissions []Admission) (_ []byte, err error) {
	for i := range admissions {
		if dst, err = appendLine(dst, &admissions[i]); err != nil {
			return nil, err
		}
	}
	return dst, nil
}

// withSpare appends the room for more.
func withSpare(lines []byte) []byte {
	return append(lines, bytes.Repeat([]byte{'\n'}, spareAdmissions)...)
}

// admissionsFile is what was found in an admissions file.
type admissionsFile struct {
	admissions []Admission
	lines      int   // with an Admission
	end        int64 // offset after the last line that is whole
	cut        bool  // after that there is something else than room
	damage     bool  // so is there before it, or there is no version
	versioned  bool
}

// decodeAdmissions reads an admissions file. The error is a versionError if a newer agent wrote it.
func decodeAdmissions(raw []byte) (found admissionsFile, err error) {
	at := int64(0)
	for line := range bytes.Lines(raw) {
		at += int64(len(line))
		if len(line) == 1 && line[0] == '\n' {
			continue
		}
		text, ok := checkLine(line)
		if ok && found.cut {
			found.damage, found.cut = true, false
		}
		switch {
		case !ok:
			found.cut = true
			continue
		case !found.versioned:
			var head admissionsVersionLine
			if json.Unmarshal(text, &head) == nil && head.Version > admissionsVersion {
				return found, versionError(head.Version)
			}
			found.versioned = head.Version == admissionsVersion
			found.damage = found.damage || !found.versioned
		default:
			var one Admission
			if json.Unmarshal(text, &one) != nil {
				found.damage = true
				continue
			}
			found.admissions = append(found.admissions, one)
			found.lines++
		}
		found.end = at
	}
	found.damage = found.damage || len(raw) > 0 && !found.versioned
	return found, nil
}

// checkLine gives the JSON of a line that is whole.
func checkLine(line []byte) (text []byte, ok bool) {
	const digits = 8
	if len(line) < digits+2 || line[digits] != ' ' || line[len(line)-1] != '\n' {
		return nil, false
	}
	text = line[digits+1 : len(line)-1]
	sum, err := strconv.ParseUint(string(line[:digits]), 16, 32)
	return text, err == nil && uint32(sum) == crc32.Checksum(text, castagnoli)
}
