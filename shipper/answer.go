package shipper

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxWords      = 4 << 10          // bytes of an answer's body that are read for their meaning
	maxDrained    = 256 << 10        // bytes that are read beyond, so that the connection can be used again
	maxRetryAfter = 10 * time.Minute // longer demands are taken for this
)

// A meaning is what an answer says about the entries of a push (DESIGN section 7).
type meaning int

const (
	stored        meaning = iota // all of them are in Loki
	notStored                    // a 2xx that is not 204 nor accepted: Loki dropped them
	unavailable                  // 5xx or no answer: anything may have been stored
	limited                      // 429: some may have been stored
	misconfigured                // it is not the entries' fault: the same for any push
	refused                      // at least one of them is refused for good, the others are stored
	tooLarge                     // the request, not an entry, is too large
)

// An answer is what one attempt to push came to.
type answer struct {
	meaning meaning
	status  int           // 0 if there was no answer
	after   time.Duration // Retry-After, 0 if not given
	words   string        // one line for people: the status and what Loki says
	scope   string        // whose limit a 429 is about
	known   string        // the reason of a refusal that was known before Loki was asked
	err     error         // why there was no answer
}

// code is the value of the label code of auditferry_pushes_total.
func (a answer) code() string {
	if a.status == 0 {
		return "error"
	}
	return strconv.Itoa(a.status)
}

// noAnswer is the outcome of an attempt that ended with err.
func noAnswer(err error) answer {
	return answer{meaning: unavailable, words: oneLine(err.Error()), err: err}
}

// oneLine makes a line of what another server says, within bounds.
func oneLine(text string) string {
	text = text[:min(len(text), maxWords)]
	return strings.ToValidUTF8(strings.Join(strings.Fields(text), " "), "\uFFFD")
}

// read makes an answer of a response and reads its body to the end, within bounds. Accepted are codes that acknowledge beside 204.
func read(r *http.Response, now time.Time, accepted []int) answer {
	text, err := io.ReadAll(io.LimitReader(r.Body, maxWords))
	if err == nil {
		_, err = io.CopyN(io.Discard, r.Body, maxDrained)
	}
	if err != nil && !errors.Is(err, io.EOF) && r.StatusCode/100 == 2 {
		return noAnswer(fmt.Errorf("reading the answer %d: %w", r.StatusCode, err))
	}
	body := oneLine(string(text))
	a := answer{status: r.StatusCode, meaning: meaningOf(r, body)}
	if a.meaning == notStored && slices.Contains(accepted, r.StatusCode) && !blamesConfiguration(r, body) {
		a.meaning = stored
	}
	if a.meaning == limited {
		a.scope = scopeOf(body)
	}
	a.words = strings.TrimSpace(fmt.Sprintf("%d %s", r.StatusCode, http.StatusText(r.StatusCode)))
	if body != "" {
		a.words += ": " + body
	}
	if a.meaning == misconfigured || a.meaning == notStored {
		a.words += " (" + hintOf(r, body) + ")"
	}
	if a.meaning == limited || a.meaning == unavailable {
		a.after = retryAfter(r.Header.Get("Retry-After"), now)
	}
	return a
}

// grpcTooLarge begins the answer 500 to a push that the distributor cannot pass to an ingester (4 MiB by default). It is the
// same at every retry, so it means 413.
const grpcTooLarge = "rpc error: code = ResourceExhausted desc = grpc: received message larger than max"

func meaningOf(r *http.Response, body string) meaning {
	switch {
	case r.StatusCode == http.StatusNoContent:
		return stored
	case r.StatusCode/100 == 2:
		return notStored
	case r.StatusCode == http.StatusTooManyRequests:
		return limited
	case r.StatusCode == http.StatusRequestEntityTooLarge:
		return tooLarge
	case r.StatusCode == http.StatusBadRequest || r.StatusCode == http.StatusUnprocessableEntity:
		if blamesConfiguration(r, body) {
			return misconfigured
		}
		return refused
	case r.StatusCode/100 == 5 && strings.HasPrefix(body, grpcTooLarge):
		return tooLarge
	case r.StatusCode/100 == 5:
		return unavailable
	default:
		return misconfigured
	}
}

// The values of the label scope of auditferry_rate_limited_total.
const (
	scopeTenant = "tenant"
	scopeStream = "stream"
	scopeOther  = "other"
)

// tenantLimit begins Loki's answer 429 that is about the tenant (pkg/validation/validate.go; before 3.0 with a capital letter).
// That about a stream is a list, each line of which quotes the limit (pkg/ingester/stream.go). A client of the apiserver
// chooses some of the labels that both it and other texts end with.
const (
	tenantLimit       = "ingestion rate limit exceeded for user "
	streamLimitBegins = "entry with timestamp "
	streamLimit       = "ignored, reason: 'Per stream rate limit exceeded "
)

// scopeOf says whose limit an answer 429 is about.
func scopeOf(body string) string {
	switch {
	case len(body) >= len(tenantLimit) && strings.EqualFold(body[:len(tenantLimit)], tenantLimit):
		return scopeTenant
	case strings.HasPrefix(body, streamLimitBegins) && strings.Contains(body, streamLimit):
		return scopeStream
	default:
		return scopeOther
	}
}

// configurationWords begin answers with status 400 that no event is to blame for: each push would be answered so, and the
// dead-letter file would fill with good events. They are compared with the beginning only, because Loki's texts go on with
// labels, of which a client of the apiserver chooses some.
var configurationWords = []string{
	"Client sent an HTTP request to an HTTPS server", // net/http
	"tenant ID ",                 // Loki: X-Scope-OrgID is not one (dskit tenant.ValidTenantID)
	"no org id",                  // Loki: no X-Scope-OrgID (dskit user.ErrNoOrgID)
	"ingestion blocked for user", // Loki pkg/validation/validate.go: block_ingestion_status_code may be 400
	"missing required labels",    // the same: enforced_labels of the tenant
}

// disallowedMetadata ends the 400 of a tenant with allow_structured_metadata off (pkg/validation/validate.go).
const disallowedMetadata = "contact your Loki administrator to enable it"

// blamesConfiguration tells such a 400 from one about entries. Loki answers in plain text, so a page of HTML is a proxy's.
func blamesConfiguration(r *http.Response, body string) bool {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && kind == "text/html" {
		return true
	}
	begins := func(words string) bool { return strings.HasPrefix(body, words) }
	return slices.ContainsFunc(configurationWords, begins) || strings.HasSuffix(body, disallowedMetadata)
}

// hintOf says what the operator can do about an answer that has to do with the configuration.
func hintOf(r *http.Response, body string) string {
	switch {
	case r.StatusCode/100 == 2 && blamesConfiguration(r, body):
		return "Loki answers 204 to what it has stored; check --loki-url and Loki's configuration"
	case r.StatusCode/100 == 2:
		return "Loki answers 204 to what it has stored; if this is another server, whose code for that is " + strconv.Itoa(r.StatusCode) +
			", give --loki-accept-status=" + strconv.Itoa(r.StatusCode)
	case r.StatusCode/100 == 3:
		// Followed, a 301 or 302 would turn the push into a GET.
		return "it redirects to " + destination(r) + ": give that address as --loki-url"
	case r.StatusCode == http.StatusUnauthorized || r.StatusCode == http.StatusForbidden:
		return "check the credentials and --loki-tenant-id"
	case r.StatusCode == http.StatusNotFound || r.StatusCode == http.StatusMethodNotAllowed:
		return "check the path of --loki-url"
	default:
		return "check --loki-url, --loki-tenant-id and Loki's limits for the tenant"
	}
}

// destination is where a redirect points, without query and credentials, which can hold secrets.
func destination(r *http.Response) string {
	u, err := r.Location()
	if err != nil {
		return "nowhere"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// retryAfter reads the header in both of its forms, seconds and HTTP date; 0 if it says nothing.
func retryAfter(header string, now time.Time) time.Duration {
	wait := time.Duration(0)
	if seconds, err := strconv.ParseUint(header, 10, 32); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}

// The reasons under which an entry is counted as dropped and lies in the dead-letter file. Those that are exported can be known
// before Loki is asked.
const (
	ReasonLine        = "line_too_long"
	ReasonOld         = "too_old"
	ReasonFuture      = "too_far_in_future"
	reasonBehind      = "too_far_behind"
	reasonLabels      = "labels"
	reasonMetadata    = "structured_metadata"
	reasonRequestSize = "request_too_large"
	reasonUnencodable = "unencodable"
	reasonRefused     = "refused"
)

var reasons = []string{ReasonLine, ReasonOld, reasonBehind, ReasonFuture, reasonLabels, reasonMetadata, reasonRequestSize,
	reasonUnencodable, reasonRefused}

// refusals maps Loki's texts (pkg/validation/validate.go, pkg/chunkenc/interface.go, pkg/loghttp/push/push.go) to reasons;
// the first that occurs counts, so that labels, which occur in most texts, come last.
var refusals = []struct{ text, reason string }{
	{"max entry size", ReasonLine},
	{"entry too far behind", reasonBehind},
	{"entry out of order", reasonBehind},
	{"has timestamp too old", ReasonOld},
	{"has timestamp too new", ReasonFuture},
	{"structured metadata too large", reasonMetadata},
	{"too many structured metadata labels", reasonMetadata},
	{"label name", reasonLabels},
	{"label value too long", reasonLabels},
	{"parsing labels", reasonLabels},
	{"parse labels", reasonLabels},
	{"at least one label pair is required", reasonLabels},
}

// reason names why the one entry of a push was refused.
func (a answer) reason() string {
	if a.known != "" {
		return a.known
	}
	if a.status == 0 {
		return reasonUnencodable
	}
	if a.meaning == tooLarge {
		return reasonRequestSize
	}
	for _, r := range refusals {
		if strings.Contains(a.words, r.text) {
			return r.reason
		}
	}
	return reasonRefused
}
