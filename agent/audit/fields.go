package audit

import (
	"bytes"
	"errors"
	"fmt"
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

	code []byte // Code as it is written
	// userAt and annotationsAt are where their values begin in the line, 0 if they are missing.
	userAt, annotationsAt int
	plain                 bool // all strings above are ASCII that stood in the line without escapes
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
	if len(s.line) > maxScratch {
		clear(d.metadata.fields) // else a rare field keeps the memory of a long line
	}
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
			e.userAt = s.at
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
			e.Time = d.readTime()
		case "annotations":
			e.annotationsAt = s.at
			e.Decision = d.member("authorization.k8s.io/decision")
		default:
			s.skip(1)
		}
	}
}

// readUsual reads fields as long as they come as kube-apiserver writes them. It says whether it has read any: then the
// scanner stands after the value of one. It only saves time: readEvent would do as well.
func (d *Describer) readUsual(s *scanner, e *Event) bool {
	if !s.usual(&usualLevel) {
		return false
	}
	e.Level = d.text(1)
	if s.usual(&usualAuditID) {
		e.AuditID = d.text(1)
	}
	if s.usual(&usualStage) {
		e.Stage = d.text(1)
	}
	if s.usual(&usualRequestURI) {
		s.skip(1)
	}
	if s.usual(&usualVerb) {
		e.Verb = d.text(1)
	}
	if s.usual(&usualUser) {
		e.userAt = s.at
		e.Username = d.readUser()
	}
	if s.usual(&usualSourceIPs) {
		e.SourceIP = d.lastElement()
	}
	if s.usual(&usualUserAgent) {
		e.UserAgent = d.text(1)
	}
	if s.usual(&usualObjectRef) {
		d.readObjectRef(s, e)
	}
	if s.usual(&usualResponseStatus) {
		d.readStatus(s, e)
	}
	if s.usual(&usualRequestObject) {
		s.skip(1)
	}
	if s.usual(&usualResponseObject) {
		s.skip(1)
	}
	if s.usual(&usualRequestReceivedTimestamp) {
		s.skip(1)
	}
	if s.usual(&usualStageTimestamp) {
		e.Time = d.readTime()
	}
	if s.usual(&usualAnnotations) {
		e.annotationsAt = s.at
		e.Decision = d.readDecision()
	}
	return true
}

// readUser gives the user name of the object at hand. Users differ near the beginning.
func (d *Describer) readUser() []byte {
	rest := d.scan.line[d.scan.at:]
	if len(rest) < 64 {
		return d.member("username")
	}
	return d.remembered(d.users.slot(rest[24:64]), "username")
}

// readDecision gives the decision of the annotations at hand. They end the line, and differ near the end.
func (d *Describer) readDecision() []byte {
	const key = "authorization.k8s.io/decision"
	rest := d.scan.line[d.scan.at:]
	if len(rest) < memoSample {
		return d.member(key)
	}
	return d.remembered(d.annotations.slot(rest[len(rest)-memoSample:]), key)
}

func (d *Describer) readObjectRef(s *scanner, e *Event) {
	e.HasObjectRef = false
	e.APIGroup, e.Resource, e.Subresource, e.Namespace, e.Name = nil, nil, nil, nil, nil
	if s.line[s.at] != '{' {
		s.skip(1)
		return
	}
	e.HasObjectRef = true
	var key []byte
	var ok bool
	if d.readUsualRef(s, e) {
		key, ok = s.nextKey()
	} else {
		key, ok = s.firstKey()
	}
	for ; ok; key, ok = s.nextKey() {
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

// readUsualRef is to readObjectRef what readUsual is to readEvent.
func (d *Describer) readUsualRef(s *scanner, e *Event) bool {
	if !s.usual(&usualResource) {
		return false
	}
	e.Resource = d.text(2)
	if s.usual(&usualNamespace) {
		e.Namespace = d.text(2)
	}
	if s.usual(&usualName) {
		e.Name = d.text(2)
	}
	if s.usual(&usualUID) {
		s.skip(2)
	}
	if s.usual(&usualAPIGroup) {
		e.APIGroup = d.text(2)
	}
	if s.usual(&usualAPIVersion) {
		s.skip(2)
	}
	if s.usual(&usualResourceVersion) {
		s.skip(2)
	}
	if s.usual(&usualSubresource) {
		e.Subresource = d.text(2)
	}
	return true
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

// readTime gives the time that the value at hand is, a string or not.
func (d *Describer) readTime() time.Time {
	s := &d.scan
	const size = len("2006-01-02T15:04:05.000000Z")
	if rest := s.line[s.at:]; len(rest) > size+1 && rest[0] == '"' && rest[size+1] == '"' {
		if t, ok := parseMicro(rest[1 : size+1]); ok { // which says as well that it holds no escapes and no quotes
			s.at += size + 2
			return t
		}
	}
	return parseTime(d.text(1))
}
