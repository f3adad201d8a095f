package audit

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// ErrMalformed says that a line is not one JSON object. [Describer.Describe] wraps it with the offset of the fault.
var ErrMalformed = errors.New("not one JSON object")

// Event is what matters of one audit event (k8s.io/apiserver/pkg/apis/audit/v1). The slices point into the line or into
// the Describer and are valid until its next call. A field that is missing, or that has the wrong JSON type, is zero. Of
// a key that comes twice the last counts, as for encoding/json.
type Event struct {
	// Time is stageTimestamp in UTC, zero if it is missing or not RFC 3339.
	Time time.Time

	AuditID, Stage, Level, Verb    []byte
	Username, ImpersonatedUsername []byte // user.username, impersonatedUser.username

	// HasObjectRef is false for a request to a non-resource URL. The client chooses what is in objectRef.
	HasObjectRef                                     bool
	APIGroup, Resource, Subresource, Namespace, Name []byte

	// Code is responseStatus.code, 0 if there is none yet. Decision is annotations["authorization.k8s.io/decision"].
	Code     int
	Decision []byte

	// SourceIP is the last of sourceIPs, the peer itself: those before it are claims of the client.
	SourceIP, UserAgent []byte

	code  []byte // Code as it is written
	plain bool   // all strings above are ASCII that stood in the line without escapes
}

// maxScratch is how large a buffer for decoded strings may stay between two lines, in bytes.
const maxScratch = 64 << 10

// reuse empties a buffer, and gives up one that a single odd line has made large.
func reuse(buffer []byte) []byte {
	if cap(buffer) > maxScratch {
		return nil
	}
	return buffer[:0]
}

// Describe reads the fields of one line, which has no newline. It reads all of the line: it gives an error that wraps
// ErrMalformed unless encoding/json's Valid would accept the line and its value is an object. The Event is valid until
// the next call.
func (d *Describer) Describe(line []byte) (*Event, error) {
	if !d.describe(line) {
		return nil, fmt.Errorf("at offset %d: %w", d.scan.at, ErrMalformed)
	}
	return &d.event, nil
}

// describe is Describe without an error to allocate: after false, the fault is at d.scan.at.
func (d *Describer) describe(line []byte) bool {
	d.scratch = reuse(d.scratch)
	d.scan.key = reuse(d.scan.key)
	d.event = Event{plain: true}
	s := &d.scan
	s.line, s.at, s.bad = line, 0, false
	if s.peek() != '{' {
		s.fail(s.at)
		return false
	}
	d.readEvent(s, &d.event)
	if s.bad {
		return false
	}
	if s.at = skipSpace(line, s.at); s.at != len(line) {
		s.fail(s.at)
	}
	return !s.bad
}

// readEvent reads the fields in any order.
func (d *Describer) readEvent(s *scanner, e *Event) {
	var key []byte
	var ok bool
	if d.readUsual(s, e) {
		key, ok = s.nextKey()
	} else {
		key, ok = s.firstKey()
	}
	for ; ok; key, ok = s.nextKey() {
		switch string(key) {
		case "level":
			e.Level = d.text(1)
		case "auditID":
			e.AuditID = d.text(1)
		case "stage":
			e.Stage = d.text(1)
		case "verb":
			e.Verb = d.text(1)
		case "user":
			e.Username = d.member("username")
		case "impersonatedUser":
			e.ImpersonatedUsername = d.member("username")
		case "sourceIPs":
			e.SourceIP = d.lastElement()
		case "userAgent":
			e.UserAgent = d.text(1)
		case "objectRef":
			d.readObjectRef(s, e)
		case "responseStatus":
			d.readStatus(s, e)
		case "stageTimestamp":
			e.Time = parseTime(d.text(1))
		case "annotations":
			e.Decision = d.member("authorization.k8s.io/decision")
		default:
			s.skip(1)
		}
	}
}

// readUsual reads fields as long as they come as kube-apiserver writes them. It says whether it has read any: then the
// scanner stands after the value of one. It only saves time: readEvent would do as well.
func (d *Describer) readUsual(s *scanner, e *Event) bool {
	if !s.usual(`{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":`) {
		return false
	}
	e.Level = d.text(1)
	if s.usual(`,"auditID":`) {
		e.AuditID = d.text(1)
	}
	if s.usual(`,"stage":`) {
		e.Stage = d.text(1)
	}
	if s.usual(`,"requestURI":`) {
		s.skip(1)
	}
	if s.usual(`,"verb":`) {
		e.Verb = d.text(1)
	}
	if s.usual(`,"user":`) {
		e.Username = d.member("username")
	}
	if s.usual(`,"sourceIPs":`) {
		e.SourceIP = d.lastElement()
	}
	if s.usual(`,"userAgent":`) {
		e.UserAgent = d.text(1)
	}
	if s.usual(`,"objectRef":`) {
		d.readObjectRef(s, e)
	}
	if s.usual(`,"responseStatus":`) {
		d.readStatus(s, e)
	}
	if s.usual(`,"requestObject":`) {
		s.skip(1)
	}
	if s.usual(`,"responseObject":`) {
		s.skip(1)
	}
	if s.usual(`,"requestReceivedTimestamp":`) {
		s.skip(1)
	}
	if s.usual(`,"stageTimestamp":`) {
		e.Time = parseTime(d.text(1))
	}
	if s.usual(`,"annotations":`) {
		e.Decision = d.member("authorization.k8s.io/decision")
	}
	return true
}

func (d *Describer) readObjectRef(s *scanner, e *Event) {
	e.HasObjectRef = false
	e.APIGroup, e.Resource, e.Subresource, e.Namespace, e.Name = nil, nil, nil, nil, nil
	if s.line[s.at] != '{' {
		s.skip(1)
		return
	}
	e.HasObjectRef = true
	for key, ok := s.firstKey(); ok; key, ok = s.nextKey() {
		switch string(key) {
		case "resource":
			e.Resource = d.text(2)
		case "namespace":
			e.Namespace = d.text(2)
		case "name":
			e.Name = d.text(2)
		case "apiGroup":
			e.APIGroup = d.text(2)
		case "subresource":
			e.Subresource = d.text(2)
		default:
			s.skip(2)
		}
	}
}

func (d *Describer) readStatus(s *scanner, e *Event) {
	e.Code, e.code = 0, nil
	if s.line[s.at] != '{' {
		s.skip(1)
		return
	}
	for key, ok := s.firstKey(); ok; key, ok = s.nextKey() {
		start, isCode := s.at, string(key) == "code"
		s.skip(2)
		if isCode && !s.bad {
			e.code = s.line[start:s.at]
			if e.Code = parseInt(e.code); e.Code == 0 {
				e.code = nil
			}
		}
	}
}

// member gives the string that an object of the event's own level has under a key; nil if there is none.
func (d *Describer) member(want string) []byte {
	s := &d.scan
	var found []byte
	if s.line[s.at] != '{' {
		s.skip(1)
		return nil
	}
	for key, ok := s.firstKey(); ok; key, ok = s.nextKey() {
		if string(key) == want {
			found = d.text(2)
		} else {
			s.skip(2)
		}
	}
	return found
}

// lastElement gives the last element of an array of the event's own level, if it is a string.
func (d *Describer) lastElement() []byte {
	s := &d.scan
	if s.line[s.at] != '[' {
		s.skip(1)
		return nil
	}
	s.at++
	if s.peek() == ']' {
		s.at++
		return nil
	}
	for !s.bad {
		last := d.text(2)
		if s.bad {
			break
		}
		switch s.peek() {
		case ',':
			s.at++
			s.peek()
		case ']':
			s.at++
			return last
		default:
			s.fail(s.at)
		}
	}
	return nil
}

// text gives the string at which the scanner stands, decoded; of a value of another type it gives nil. The value lies
// inside of depth containers.
func (d *Describer) text(depth int) []byte {
	s := &d.scan
	if s.line[s.at] != '"' {
		s.skip(depth)
		return nil
	}
	start := s.at + 1
	end := plainEnd(s.line, start)
	if end < len(s.line) && s.line[end] == '"' {
		s.at = end + 1
		return s.line[start:end]
	}
	next := longStringEnd(s.line, end)
	if next < 0 {
		s.fail(^next)
		return nil
	}
	s.at = next
	d.event.plain = false
	inside := s.line[start : next-1]
	if bytes.IndexByte(inside, '\\') < 0 && utf8.Valid(inside) {
		return inside
	}
	from := len(d.scratch)
	d.scratch = unquote(d.scratch, inside)
	return d.scratch[from:len(d.scratch):len(d.scratch)]
}

// parseInt gives the integer that a JSON number is, 0 if it is something else or does not fit.
func parseInt(b []byte) int {
	if len(b) == 3 && b[0] >= '1' && b[0] <= '9' && b[1]-'0' < 10 && b[2]-'0' < 10 {
		return int(b[0]-'0')*100 + int(b[1]-'0')*10 + int(b[2]-'0')
	}
	n, err := strconv.Atoi(string(b))
	if err != nil {
		return 0
	}
	return n
}
