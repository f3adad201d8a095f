package audit

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	everyByte = 0x0101010101010101
	topBits   = 0x8080808080808080
)

// special marks, by its top bit, the lowest of eight bytes that ends the plain run of a JSON string: a quote, a
// backslash or a control character. Marks above the lowest may be wrong (borrows of the subtraction).
//
// Exchanging 0x22 and 0x20 by the XOR puts the quote next to the control characters: one comparison finds both.
func special(w uint64) uint64 {
	return (((w ^ 0x02*everyByte) - 0x21*everyByte) | ((w ^ '\\'*everyByte) - everyByte)) &^ w & topBits
}

// specialOrWide is special, and marks bytes outside ASCII too.
func specialOrWide(w uint64) uint64 {
	return (((w ^ 0x02*everyByte) - 0x21*everyByte) | ((w ^ '\\'*everyByte) - everyByte) | w) & topBits
}

// stringEnd passes over a JSON string whose opening quote is just before i. It gives the offset after the closing quote,
// or the complement (^) of the offset of the fault. Like encoding/json it does not look at the UTF-8.
//
// Most strings are shorter than 16 bytes: those are passed without a loop.
func stringEnd(b []byte, i int) int {
	if i+16 <= len(b) {
		s := (*[16]byte)(b[i : i+16])
		at, marks := i, special(binary.LittleEndian.Uint64(s[:]))
		if marks == 0 {
			at, marks = i+8, special(binary.LittleEndian.Uint64(s[8:]))
		}
		if marks == 0 {
			return longStringEnd(b, i+16)
		}
		i = at + bits.TrailingZeros64(marks)>>3
		if b[i] == '"' {
			return i + 1
		}
	}
	return longStringEnd(b, i)
}

// longStringEnd is stringEnd without the short cut, for what is left of a string from i on.
func longStringEnd(b []byte, i int) int {
	for {
		for i+8 <= len(b) {
			if m := special(binary.LittleEndian.Uint64(b[i : i+8])); m != 0 {
				i += bits.TrailingZeros64(m) >> 3
				goto found
			}
			i += 8
		}
		for i < len(b) && b[i] >= 0x20 && b[i] != '"' && b[i] != '\\' {
			i++
		}
		if i == len(b) {
			return ^i
		}
	found:
		switch {
		case b[i] == '"':
			return i + 1
		case b[i] != '\\':
			return ^i
		case i+1 == len(b):
			return ^(i + 1)
		}
		size := escapeSize[b[i+1]]
		if size == 6 {
			if bad := badHex(b, i+2); bad >= 0 {
				return ^bad
			}
		}
		if size == 0 {
			return ^(i + 1)
		}
		i += int(size)
	}
}

// badHex gives the offset of the first of the four bytes from i on that is not a hexadecimal digit; -1 if all are.
func badHex(b []byte, i int) int {
	for n := i; n < i+4; n++ {
		if n >= len(b) || hexDigits[b[n]] < 0 {
			return n
		}
	}
	return -1
}

// escapeSize gives the length of the escape that has a letter after its backslash, 0 if there is none.
var escapeSize = [256]uint8{'u': 6, '"': 2, '\\': 2, '/': 2, 'b': 2, 'f': 2, 'n': 2, 'r': 2, 't': 2}

// plainEnd passes over the beginning of a JSON string as long as it is ASCII without escapes. It gives the offset of
// the first byte that is not: at best that of the closing quote.
func plainEnd(b []byte, i int) int {
	if i+16 <= len(b) {
		s := (*[16]byte)(b[i : i+16])
		at, marks := i, specialOrWide(binary.LittleEndian.Uint64(s[:]))
		if marks == 0 {
			at, marks = i+8, specialOrWide(binary.LittleEndian.Uint64(s[8:]))
		}
		if marks != 0 {
			return at + bits.TrailingZeros64(marks)>>3
		}
		i += 16
	}
	for i+8 <= len(b) {
		if m := specialOrWide(binary.LittleEndian.Uint64(b[i : i+8])); m != 0 {
			return i + bits.TrailingZeros64(m)>>3
		}
		i += 8
	}
	for i < len(b) && b[i] >= 0x20 && b[i] < utf8.RuneSelf && b[i] != '"' && b[i] != '\\' {
		i++
	}
	return i
}

// unquote appends to dst what the inside of a valid JSON string stands for, as encoding/json decodes it: bytes that are
// not UTF-8 and surrogates that are alone become U+FFFD.
func unquote(dst, s []byte) []byte {
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == '\\' && s[i+1] == 'u':
			r := hexRune(s[i+2:])
			i += 6
			if utf16.IsSurrogate(r) {
				pair := rune(utf8.RuneError)
				if i+6 <= len(s) && s[i] == '\\' && s[i+1] == 'u' {
					pair = utf16.DecodeRune(r, hexRune(s[i+2:]))
				}
				if r = pair; r != utf8.RuneError {
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, r)
		case c == '\\':
			dst = append(dst, unescaped(s[i+1]))
			i += 2
		case c < utf8.RuneSelf:
			dst = append(dst, c)
			i++
		default:
			r, size := utf8.DecodeRune(s[i:])
			dst = utf8.AppendRune(dst, r)
			i += size
		}
	}
	return dst
}

// unescaped gives the character for which a letter stands after a backslash.
func unescaped(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}

// hexRune reads four hexadecimal digits.
func hexRune(s []byte) rune {
	return rune(hexDigits[s[0]])<<12 | rune(hexDigits[s[1]])<<8 | rune(hexDigits[s[2]])<<4 | rune(hexDigits[s[3]])
}

// hexDigits gives the value of each hexadecimal digit, and -1 for every other byte.
var hexDigits = func() (t [256]int8) {
	for c := range t {
		switch {
		case c >= '0' && c <= '9':
			t[c] = int8(c - '0')
		case c >= 'a' && c <= 'f':
			t[c] = int8(c - 'a' + 10)
		case c >= 'A' && c <= 'F':
			t[c] = int8(c - 'A' + 10)
		default:
			t[c] = -1
		}
	}
	return t
}()
