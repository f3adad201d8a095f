package audit

import "encoding/binary"

// usual is a text that kube-apiserver usually writes at some place: from the end of a value to the first byte of the next.
// It has 8 bytes at least; most have no more than 16, so that two words are all of it.
type usual struct {
	text       string
	head, tail uint64 // its first and its last 8 bytes
}

func usually(text string) usual {
	b := []byte(text)
	return usual{text, binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[len(b)-8:])}
}

// usual moves to the last byte of a text, if it stands here. It is asked for so often that it would take much of the
// processor's cache of instructions if it were inlined: that is slower than the calls.
//
//go:noinline
func (s *scanner) usual(u *usual) bool {
	if s.bad {
		return false
	}
	b, n := s.line[s.at:], len(u.text)
	if n < 8 || len(b) < n || binary.LittleEndian.Uint64(b) != u.head || binary.LittleEndian.Uint64(b[n-8:]) != u.tail {
		return false
	}
	if n > 16 && string(b[:n]) != u.text {
		return false
	}
	s.at += n - 1
	return true
}

// The texts of the event, of objectRef and of responseStatus.
var (
	usualLevel                    = usually(`{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"`)
	usualAuditID                  = usually(`,"auditID":"`)
	usualStage                    = usually(`,"stage":"`)
	usualRequestURI               = usually(`,"requestURI":"`)
	usualVerb                     = usually(`,"verb":"`)
	usualUser                     = usually(`,"user":{`)
	usualSourceIPs                = usually(`,"sourceIPs":[`)
	usualUserAgent                = usually(`,"userAgent":"`)
	usualObjectRef                = usually(`,"objectRef":{`)
	usualResponseStatus           = usually(`,"responseStatus":{`)
	usualRequestObject            = usually(`,"requestObject":{`)
	usualResponseObject           = usually(`,"responseObject":{`)
	usualRequestReceivedTimestamp = usually(`,"requestReceivedTimestamp":"`)
	usualStageTimestamp           = usually(`,"stageTimestamp":"`)
	usualAnnotations              = usually(`,"annotations":{`)
	usualResource                 = usually(`{"resource":"`)
	usualNamespace                = usually(`,"namespace":"`)
	usualName                     = usually(`,"name":"`)
	usualUID                      = usually(`,"uid":"`)
	usualAPIGroup                 = usually(`,"apiGroup":"`)
	usualAPIVersion               = usually(`,"apiVersion":"`)
	usualResourceVersion          = usually(`,"resourceVersion":"`)
	usualSubresource              = usually(`,"subresource":"`)
	usualMetadata                 = usually(`{"metadata":{`)
	usualCode                     = usually(`{"metadata":{},"code":2`)
)

// usualFailure comes before the code of a request that was refused.
var usualFailure = [...]usual{usually(`,"status":"`), usually(`,"message":"`), usually(`,"reason":"`), usually(`,"details":{`)}
