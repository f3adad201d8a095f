package audit

// maxDepth is how deep objects and arrays may nest, the outermost included: encoding/json's maxNestingDepth.
const maxDepth = 10000

// scanner walks over one line of JSON. Its methods start at the byte at and move it past what they read. After a fault
// bad is set, at is the offset of the fault, and nextKey and usual give false; the others are not to be called.
type scanner struct {
	line []byte
	at   int
	bad  bool
	// outer holds, 64 at a time, whether each open container beyond the innermost 64 is an object.
	outer [maxDepth/64 + 1]uint64
	key   []byte // the last key that held escapes, decoded
}

func (s *scanner) fail(at int) {
	s.at, s.bad = at, true
}

// peek gives the next byte that is not white space and moves to it; at the end of the line it faults and gives 0.
func (s *scanner) peek() byte {
	i := skipSpace(s.line, s.at)
	if i == len(s.line) {
		s.fail(i)
		return 0
	}
	s.at = i
	return s.line[i]
}

// firstKey enters the object at which the scanner stands and gives its first key, as nextKey does.
func (s *scanner) firstKey() ([]byte, bool) {
	s.at++
	switch s.peek() {
	case '"':
		return s.readKey()
	case '}':
		s.at++
	default:
		s.fail(s.at)
	}
	return nil, false
}

// nextKey goes from the end of a value to the next member of the same object: it gives the decoded key, valid until
// the next one, and stands at the value. It gives false after the end of the object, and on a fault.
func (s *scanner) nextKey() ([]byte, bool) {
	if s.bad {
		return nil, false
	}
	switch s.peek() {
	case ',':
		s.at++
		if s.peek() == '"' {
			return s.readKey()
		}
	case '}':
		s.at++
		return nil, false
	}
	s.fail(s.at)
	return nil, false
}

func (s *scanner) readKey() ([]byte, bool) {
	start := s.at + 1
	end := plainEnd(s.line, start)
	if end+1 < len(s.line) && s.line[end] == '"' && s.line[end+1] == ':' {
		s.at = end + 2
		s.peek()
		return s.line[start:end], !s.bad
	}
	next := longStringEnd(s.line, end)
	if next < 0 {
		s.fail(^next)
		return nil, false
	}
	s.key = unquote(s.key[:0], s.line[start:next-1])
	s.at = next
	if s.peek() != ':' {
		s.fail(s.at)
		return nil, false
	}
	s.at++
	s.peek()
	return s.key, !s.bad
}

// members calls visit at the value of each member of the object at which the scanner stands, inside of depth containers;
// visit passes over it. Of any other value there are none. The line has to be valid.
func (s *scanner) members(depth int, visit func(key []byte)) {
	if s.line[s.at] != '{' {
		s.skip(depth)
		return
	}
	for key, ok := s.firstKey(); ok; key, ok = s.nextKey() {
		visit(key)
	}
}

// elements is members for those of an array.
func (s *scanner) elements(depth int, visit func()) {
	if s.line[s.at] != '[' {
		s.skip(depth)
		return
	}
	s.at++
	if s.peek() != ']' {
		visit()
		for s.peek() == ',' {
			s.at++
			s.peek()
			visit()
		}
	}
	s.at++
}

// skip passes over the value at which the scanner stands, which lies inside of depth containers.
func (s *scanner) skip(depth int) {
	var end int
	if s.line[s.at] == '"' {
		end = stringEnd(s.line, s.at+1)
	} else {
		end = s.skipValue(s.at, maxDepth-depth)
	}
	if end < 0 {
		s.fail(^end)
	} else {
		s.at = end
	}
}

// skipValue passes over the value that begins at b[i] and may nest up to limit deep. It gives the offset after it, or
// the complement of the offset of the fault. It is most of what the agent does: bodies are most of a log.
//
//nolint:funlen // a state machine whose states jump to one another; split, it is slower and no clearer
func (s *scanner) skipValue(i, limit int) int {
	b := s.line
	depth := 0
	inside := uint64(0) // the innermost containers, the last in bit 0: 1 is an object

value:
	if i >= len(b) {
		return ^i
	}
	switch c := b[i]; c {
	case '"':
		if i = stringEnd(b, i+1); i < 0 {
			return i
		}
	case '{', '[':
		if depth == limit {
			return ^i
		}
		if depth&63 == 0 {
			s.outer[depth>>6] = inside
		}
		depth++
		inside = inside<<1 | uint64(c>>5&1) // '{' is 0x7b, '[' is 0x5b
		if i = skipSpace(b, i+1); i == len(b) {
			return ^i
		}
		if b[i] == c+2 { // the closing bracket
			goto closing
		}
		if c == '{' {
			goto key
		}
		goto value
	default:
		if i = skipScalar(b, i); i < 0 {
			return i
		}
	}

after:
	if depth == 0 {
		return i
	}
	if i < len(b) && b[i] <= ' ' {
		i = skipSpace(b, i)
	}
	if i >= len(b) {
		return ^i
	}
	if b[i] == ',' {
		i++
		if i < len(b) && b[i] <= ' ' {
			i = skipSpace(b, i)
		}
		if inside&1 == 0 {
			goto value
		}
		goto key
	}
	if b[i] != ']'|byte(inside&1)<<5 {
		return ^i
	}

closing:
	i++
	depth--
	inside >>= 1
	if depth&63 == 0 {
		inside = s.outer[depth>>6]
	}
	goto after

key:
	if i >= len(b) || b[i] != '"' {
		return ^i
	}
	if i = stringEnd(b, i+1); i < 0 {
		return i
	}
	if i+1 < len(b) && b[i] == ':' && b[i+1] > ' ' {
		i++
		goto value
	}
	if i = skipSpace(b, i); i == len(b) || b[i] != ':' {
		return ^i
	}
	i = skipSpace(b, i+1)
	goto value
}

// skipSpace gives the offset of the first byte from i on that is not JSON white space.
func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	return i
}

// skipScalar passes over a number, true, false or null.
func skipScalar(b []byte, i int) int {
	switch b[i] {
	case 't':
		return skipWord(b, i, "true")
	case 'f':
		return skipWord(b, i, "false")
	case 'n':
		return skipWord(b, i, "null")
	}
	return skipNumber(b, i)
}

func skipWord(b []byte, i int, word string) int {
	if len(b)-i < len(word) || string(b[i:i+len(word)]) != word {
		return ^i
	}
	return i + len(word)
}

func skipNumber(b []byte, i int) int {
	if b[i] == '-' {
		i++
	}
	switch {
	case i < len(b) && b[i] == '0':
		i++
	default:
		if i = skipDigits(b, i); i < 0 {
			return i
		}
	}
	if i < len(b) && b[i] == '.' {
		if i = skipDigits(b, i+1); i < 0 {
			return i
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		return skipDigits(b, i)
	}
	return i
}

// skipDigits passes over one digit or more.
func skipDigits(b []byte, i int) int {
	start := i
	for i < len(b) && b[i]-'0' < 10 {
		i++
	}
	if i == start {
		return ^i
	}
	return i
}
