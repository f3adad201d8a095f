package shipper

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

// refusing is a script as Loki's: entries whose line begins with "bad" are refused, the others are stored.
func refusing(text string) func(lokitest.Request) lokitest.Reply {
	return func(request lokitest.Request) lokitest.Reply {
		return lokitest.Refusing(request, func(e lokitest.Entry) string {
			if strings.HasPrefix(e.Line, "bad") {
				return text
			}
			return ""
		})
	}
}

func noMoreThan(entries, status int) func(lokitest.Request) lokitest.Reply {
	return func(request lokitest.Request) lokitest.Reply {
		if len(request.Entries) > entries {
			return lokitest.Refused(status, "too much at once")
		}
		return lokitest.OK()
	}
}

func withHeader(reply lokitest.Reply, name, value string) lokitest.Reply {
	reply.Header = http.Header{name: {value}}
	return reply
}

// Each row is a script of answers; at its end everything is acknowledged, which is checked for all rows.
func TestAnswers(t *testing.T) {
	once := lokitest.Sequence
	limited := func(times int) func(lokitest.Request) lokitest.Reply {
		return once(slices.Repeat([]lokitest.Reply{lokitest.RateLimited("")}, times)...)
	}
	const slow = 30 * time.Second // the shortest pause where only a person can help: one minute, less half of it
	rows := []struct {
		name     string
		script   func(lokitest.Request) lokitest.Reply
		lines    string
		requests int           // that the server saw
		arrivals int           // entries stored, repeats included
		dead     string        // lines in the dead-letter file, in order
		reason   string        // of all of them
		pauses   int           // between attempts
		atLeast  time.Duration // each of them
		trouble  bool          // the log says that Loki does not take pushes, and that it does again
	}{
		{name: "204", script: nil, lines: "a b c", requests: 1, arrivals: 3},
		{name: "500, nothing stored", script: once(lokitest.Refused(500, "x")), lines: "a b c", requests: 2, arrivals: 3, pauses: 1},
		{name: "500, all stored", script: once(lokitest.Stored(500, "x")), lines: "a b c", requests: 2, arrivals: 6, pauses: 1},
		{name: "503 three times", script: once(lokitest.Refused(503, "x"), lokitest.Refused(503, "x"), lokitest.Refused(503, "x")),
			lines: "a b c", requests: 4, arrivals: 3, pauses: 3, trouble: true},
		{name: "cut", script: once(lokitest.Cut()), lines: "a b c", requests: 2, arrivals: 3, pauses: 1},
		{name: "cut, all stored", script: once(lokitest.StoredCut()), lines: "a b c", requests: 2, arrivals: 6, pauses: 1},
		{name: "200 is not an acknowledgement", script: once(lokitest.Refused(200, "ok")), lines: "a b", requests: 2, arrivals: 2, pauses: 1, trouble: true},
		{name: "260", script: once(lokitest.Refused(260, "ingestion blocked")), lines: "a b", requests: 2, arrivals: 2, pauses: 1, trouble: true},
		{name: "401", script: once(lokitest.Refused(401, "no org id")), lines: "a", requests: 2, arrivals: 1, pauses: 1, atLeast: slow, trouble: true},
		{name: "403", script: once(lokitest.Refused(403, "")), lines: "a", requests: 2, arrivals: 1, pauses: 1, atLeast: slow, trouble: true},
		{name: "404", script: once(lokitest.Refused(404, "")), lines: "a", requests: 2, arrivals: 1, pauses: 1, atLeast: slow, trouble: true},
		{name: "418", script: once(lokitest.Refused(418, "")), lines: "a", requests: 2, arrivals: 1, pauses: 1, atLeast: slow, trouble: true},
		{name: "301 is not followed", script: once(withHeader(lokitest.Refused(301, ""), "Location", "/ready")), lines: "a", requests: 2, arrivals: 1,
			pauses: 1, atLeast: slow, trouble: true},
		{name: "307 is not followed", script: once(withHeader(lokitest.Refused(307, ""), "Location", "/loki/api/v1/push")), lines: "a", requests: 2, arrivals: 1,
			pauses: 1, atLeast: slow, trouble: true},
		{name: "429", script: once(lokitest.RateLimited("")), lines: "a b", requests: 2, arrivals: 2, pauses: 1},
		{name: "429 while the pace is found", script: limited(limitTroubleAfter - 1), lines: "a", requests: 6, arrivals: 1, pauses: 5},
		{name: "429 and no end", script: limited(limitTroubleAfter), lines: "a", requests: 7, arrivals: 1, pauses: 6, trouble: true},
		{name: "429, Retry-After in seconds", script: once(lokitest.RateLimited("7")), lines: "a", requests: 2, arrivals: 1, pauses: 1, atLeast: 7 * time.Second},
		{name: "429, Retry-After as a date", script: once(lokitest.RateLimited(testTime.Add(9 * time.Second).Format(http.TimeFormat))), lines: "a",
			requests: 2, arrivals: 1, pauses: 1, atLeast: 8 * time.Second},
		{name: "429 beyond the burst", script: noMoreThan(2, 429), lines: "a b c d", requests: 6, arrivals: 4, pauses: 3, trouble: true},
		{name: "413", script: noMoreThan(2, 413), lines: "a b c d", requests: 3, arrivals: 4},
		{name: "413 for one entry", script: noMoreThan(0, 413), lines: "a", requests: 1, dead: "a", reason: reasonRequestSize},
		{name: "500 because an ingester cannot take the size", script: once(lokitest.Refused(500, grpcTooLarge+" (5 vs. 4)")), lines: "a b", requests: 3, arrivals: 2},
		{name: "422", script: once(lokitest.Refused(422, "no streams")), lines: "a b", requests: 3, arrivals: 2},
		{name: "400, one bad", script: refusing("max entry size '1' bytes exceeded"), lines: "a b bad1 c", requests: 4, arrivals: 6, dead: "bad1", reason: ReasonLine},
		{name: "400, all bad", script: refusing("entry for stream '{}' has timestamp too old: x"), lines: "bad1 bad2", requests: 3, dead: "bad1 bad2", reason: ReasonOld},
		{name: "400, unknown text", script: refusing("the moon is full"), lines: "bad1", requests: 1, dead: "bad1", reason: reasonRefused},
		{name: "400 for all, then for none", script: once(lokitest.Refused(400, "x")), lines: "a b", requests: 3, arrivals: 2},
		{name: "400 from a proxy", script: once(withHeader(lokitest.Refused(400, "<html>"), "Content-Type", "text/html")), lines: "a", requests: 2, arrivals: 1,
			pauses: 1, atLeast: slow, trouble: true},
		{name: "400 about the tenant", script: once(lokitest.Refused(400, "tenant ID 'a b' contains unsupported character ' '")), lines: "a", requests: 2,
			arrivals: 1, pauses: 1, atLeast: slow, trouble: true},
		{name: "400 that only quotes such a text", script: refusing("entry for stream '{user=\"tenant ID x\"}' has timestamp too new: x"), lines: "bad1",
			requests: 1, dead: "bad1", reason: ReasonFuture},
		{name: "400, structured metadata off", script: once(lokitest.Refused(400, "stream '{}' includes structured metadata, but this feature is disallowed. Please see `limits_config.allow_structured_metadata` or contact your Loki administrator to enable it")),
			lines: "a", requests: 2, arrivals: 1, pauses: 1, atLeast: slow, trouble: true},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.server.Answer(row.script)
			lines := strings.Fields(row.lines)
			r.send(lines...)

			var dead []string
			for _, d := range deadLettersOf(t, r.client.cfg.DeadLetterFile) {
				dead = append(dead, d.Event)
				if d.Reason != row.reason {
					t.Errorf("dead letter for %s, want %s", d.Reason, row.reason)
				}
			}
			if got := strings.Join(dead, " "); got != row.dead {
				t.Errorf("dead letters %q, want %q", got, row.dead)
			}
			for _, line := range lines {
				if in := strings.Count(r.inLoki(), " "+line+" "); in+strings.Count(" "+row.dead+" ", " "+line+" ") != 1 {
					t.Errorf("%s is %d times in Loki, and the dead letters are %q", line, in, row.dead)
				}
			}
			if got := r.server.Requests(); got != row.requests {
				t.Errorf("%d requests, want %d", got, row.requests)
			}
			if got := r.server.Arrivals(); got != row.arrivals {
				t.Errorf("%d arrivals, want %d", got, row.arrivals)
			}
			if len(r.pauses()) != row.pauses {
				t.Errorf("paused %v, want %d pauses", r.pauses(), row.pauses)
			}
			for _, p := range r.pauses() {
				if p < max(row.atLeast, 250*time.Millisecond) || p > 90*time.Second {
					t.Errorf("paused %v, want at least %v", p, row.atLeast)
				}
			}
			said, saidAgain := r.log.count("Loki does not take pushes"), r.log.count("Loki takes pushes again")
			if want := map[bool]int{true: 1}[row.trouble]; said != want || saidAgain != want {
				t.Errorf("the log says %d times that Loki takes no pushes, %d times that it does again; want %d", said, saidAgain, want)
			}
			if err := r.client.State(); err != nil || r.metric("loki_up", "") != 1 {
				t.Errorf("state %v, loki_up %v", err, r.metric("loki_up", ""))
			}
			if want := float64(len(dead)); row.reason != "" && r.metric("dropped_entries_total", row.reason) != want {
				t.Errorf("dropped_entries_total %v, want %v", r.metric("dropped_entries_total", row.reason), want)
			}
			if got := r.metric("sent_entries_total", ""); got != float64(len(lines)-len(dead)) {
				t.Errorf("sent_entries_total %v", got)
			}
			if got := r.metric("push_retries_total", ""); got != float64(row.pauses) {
				t.Errorf("push_retries_total %v", got)
			}
			if got := r.log.count("please report this bug"); (got == 1) != (row.name == "422") {
				t.Errorf("%d reports of a bug", got)
			}
		})
	}
}

func TestHalvingFindsExactlyTheBad(t *testing.T) {
	r := newRig(t, nil)
	r.server.Answer(refusing("entry too far behind"))
	var lines []string
	bad := map[string]string{} // by line, the labels
	for i := range 200 {
		line := fmt.Sprintf("good%d", i)
		if i%37 == 5 {
			line = fmt.Sprintf("bad%d", i)
			bad[line] = testEntry(i, line).Stream
		}
		lines = append(lines, line)
	}
	r.send(lines...)
	letters := deadLettersOf(t, r.client.cfg.DeadLetterFile)
	if len(letters) != len(bad) {
		t.Fatalf("%d dead letters, want %d", len(letters), len(bad))
	}
	for _, d := range letters {
		if bad[d.Event] != d.Labels {
			t.Errorf("%q of %s is a dead letter", d.Event, d.Labels)
		}
	}
	if got := len(r.server.Entries()); got != len(lines)-len(bad) {
		t.Errorf("%d entries in Loki, want %d", got, len(lines)-len(bad))
	}
	if r.log.count("level=WARN") != 1 || r.log.count("level=ERROR") != 0 {
		t.Error("not one warning for the stretch")
	}
}

// A stretch of refusals is three lines of log, however many entries: it begins, it is a flood, it is over.
func TestRefusalsAreLoggedByStretch(t *testing.T) {
	r := newRig(t, nil)
	r.server.Answer(refusing("entry for stream '{}' has timestamp too old: x"))
	tens := strings.Fields(strings.Repeat("bad ", 10))
	for i := range tens {
		tens[i] += fmt.Sprint(i)
	}
	r.send("a", "bad1")
	r.send("bad2")
	r.send(tens...)
	r.send(tens...)
	r.send("a")
	r.send("b")
	if r.log.count("level=WARN") != 1 || r.log.count("level=ERROR") != 1 || r.log.count("the last batch had no entry that Loki refuses") != 1 {
		t.Errorf("log:\n%s", r.log.buf.String())
	}
	if r.log.count("refused_before=22") != 1 || r.log.count("has timestamp too old") != 2 {
		t.Errorf("log:\n%s", r.log.buf.String())
	}
	if r.log.count("bad") != 0 {
		t.Error("the log holds event content")
	}
}

func TestPausesGrowToTheLongest(t *testing.T) {
	r := newRig(t, nil)
	var replies []lokitest.Reply
	for range 12 {
		replies = append(replies, lokitest.Refused(503, ""))
	}
	r.server.Answer(lokitest.Sequence(replies...))
	r.send("a")
	interval := 500 * time.Millisecond
	for i, p := range r.pauses() {
		if p < interval/2 || p > interval*3/2+time.Nanosecond {
			t.Errorf("pause %d is %v, want %v and half of it either way", i, p, interval)
		}
		interval = min(2*interval, time.Minute)
	}
	if len(r.pauses()) != 12 {
		t.Errorf("%d pauses", len(r.pauses()))
	}
}

// Once Loki has decided about entries, earlier failures do not count any more, neither for the pauses nor for the state.
func TestProgressForgetsFailures(t *testing.T) {
	r := newRig(t, nil)
	r.server.Answer(lokitest.Sequence(lokitest.Refused(503, ""), lokitest.Refused(503, ""), lokitest.Refused(413, ""), lokitest.Refused(503, "")))
	r.send("a", "b")
	if p := r.pauses(); len(p) != 3 || p[2] > 751*time.Millisecond {
		t.Errorf("paused %v", p)
	}
	if r.log.count("Loki does not take pushes") != 0 {
		t.Error("the log says that Loki takes no pushes")
	}
}

// The state says what is wrong as long as it is, and the log says it once for each kind of trouble.
func TestStateWhileInTrouble(t *testing.T) {
	r := newRig(t, nil)
	var states []string
	script := lokitest.Sequence(lokitest.Refused(503, "x"), lokitest.Refused(503, "x"), lokitest.Refused(503, "x"),
		lokitest.Refused(401, "no org id"), lokitest.Refused(503, "x"), withHeader(lokitest.Refused(302, ""), "Location", "https://sso.example/login?token=secret"))
	r.server.Answer(func(request lokitest.Request) lokitest.Reply {
		state := ""
		if trouble, ok := errors.AsType[*Trouble](r.client.State()); ok {
			state = trouble.Reason
			if r.metric("loki_up", "") != 0 {
				t.Error("loki_up is not 0")
			}
			if !strings.Contains(trouble.Error(), "Loki at http://127.0.0.1:") || strings.Contains(trouble.Error(), "secret") {
				t.Errorf("state %q", trouble)
			}
		}
		states = append(states, state)
		return script(request)
	})
	r.send("a")
	if got, want := strings.Join(states, " "), "   unavailable http_401 unavailable http_302"; got != want {
		t.Errorf("states %q, want %q", got, want)
	}
	if got := r.log.count("Loki does not take pushes"); got != 3 {
		t.Errorf("said %d times that Loki takes no pushes, want once for each of three reasons", got)
	}
	if r.log.count("https://sso.example/login: give that address") != 1 || r.log.count("secret") != 0 {
		t.Errorf("log:\n%s", r.log.buf.String())
	}
}

// Which 2xx acknowledge, and what is said of those that do not.
func TestAcceptStatus(t *testing.T) {
	html := withHeader(lokitest.Refused(200, "<html>Please log in</html>"), "Content-Type", "text/html; charset=utf-8")
	for _, row := range []struct {
		name   string
		accept []int
		reply  lokitest.Reply
		said   string // of what does not acknowledge
	}{
		{"accepted", []int{206, 200}, lokitest.Stored(200, `{"errors":false}`), ""},
		{"204 need not be named", []int{200}, lokitest.OK(), ""},
		{"not accepted", nil, lokitest.Refused(200, "ok"), "give --loki-accept-status=200"},
		{"another one is accepted", []int{200}, lokitest.Refused(202, ""), "give --loki-accept-status=202"},
		{"Loki's word for a tenant that is blocked", []int{200, 260}, lokitest.Refused(260, "ingestion blocked for user 'fake' until '2026-11-24T00:00:00Z' with status code '260'"), "check --loki-url"},
		{"the page of a portal", []int{200}, html, "check --loki-url"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.AcceptStatus = row.accept })
			r.server.Answer(lokitest.Sequence(row.reply))
			r.send("a")
			if r.inLoki() != " a " {
				t.Errorf("in Loki:%s", r.inLoki())
			}
			if row.said == "" && (r.server.Requests() != 1 || r.log.count("does not take pushes") != 0) {
				t.Errorf("%d requests, the log:\n%s", r.server.Requests(), r.log.buf.String())
			}
			if row.said != "" && (r.server.Requests() != 2 || r.log.count(row.said) != 1 || r.log.count("reason=not_stored") != 1) {
				t.Errorf("%d requests, the log:\n%s", r.server.Requests(), r.log.buf.String())
			}
			if strings.HasPrefix(row.said, "check") && r.log.count("accept-status") != 0 {
				t.Errorf("it is said that what was not stored can be accepted:\n%s", r.log.buf.String())
			}
		})
	}
	for _, status := range []int{0, 199, 300, 429} {
		if _, err := New(Config{URL: "http://loki", DeadLetterFile: t.TempDir() + "/x", AcceptStatus: []int{200, status}}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("status %d cannot", status)) {
			t.Errorf("%d: %v", status, err)
		}
	}
}
