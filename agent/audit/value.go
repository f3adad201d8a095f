package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"unicode/utf8"
)

// maxValue is how long a label value may be in bytes, and how long we let a value of structured metadata be: Loki's
// default max_label_value_length (Loki pkg/validation/limits.go).
const maxValue = 2048

// What an entry may have of structured metadata, in bytes of names and values, and in fields that are configured: less than
// Loki's default max_structured_metadata_size and max_structured_metadata_entries_count of 64 KB and 128 (Loki
// pkg/validation/limits.go), so that there is room for what else an entry needs.
const (
	maxMetadata = 63 << 10
	maxFields   = 120
)

// ellipsis stands between what is left of a value that was cut and the first 16 hexadecimal digits of its SHA-256.
const ellipsis = "…"

// replacement is U+FFFD in UTF-8.
const replacement = "\uFFFD"

// appendValue appends v, which is UTF-8, as Loki can hold it.
//
// A value longer than maxValue is cut at a rune and gets the hash of the whole, so that two of them stay two. U+FFFD
// becomes a question mark: Loki accepts it escaped in a label, writes it out raw, and then its ingester refuses what it
// parses ("invalid UTF-8 rune" of the Prometheus lexer); in structured metadata it puts a space for it
// (Loki pkg/distributor/distributor.go).
func appendValue(dst, v []byte) []byte { return appendCut(dst, v, maxValue) }

// appendCut is appendValue for another length than maxValue.
func appendCut(dst, v []byte, limit int) []byte {
	from := len(dst)
	if len(v) <= limit {
		dst = append(dst, v...)
	} else {
		sum := sha256.Sum256(v)
		end := limit - len(ellipsis) - 16
		for !utf8.RuneStart(v[end]) {
			end--
		}
		dst = append(dst, v[:end]...)
		dst = append(dst, ellipsis...)
		dst = hex.AppendEncode(dst, sum[:8])
	}
	return append(dst[:from], withoutReplacement(dst[from:])...)
}

// withoutReplacement puts a question mark for each U+FFFD, in place.
func withoutReplacement(v []byte) []byte {
	i := bytes.Index(v, []byte(replacement))
	if i < 0 {
		return v
	}
	kept := v[:i]
	for len(v) > i {
		if bytes.HasPrefix(v[i:], []byte(replacement)) {
			kept = append(kept, '?')
			i += len(replacement)
			continue
		}
		kept = append(kept, v[i])
		i++
	}
	return kept
}

// fits says whether appendValue would not change v.
func fits(v []byte) bool {
	return len(v) <= maxValue && !bytes.Contains(v, []byte(replacement))
}

// appendPair appends name="value" as the label parser of Prometheus reads it, which is Go's syntax. The value holds no
// U+FFFD.
func appendPair(dst []byte, name, value string) []byte {
	dst = append(dst, name...)
	dst = append(dst, '=')
	return strconv.AppendQuote(dst, value)
}
