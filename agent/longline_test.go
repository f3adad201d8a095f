package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
	"github.com/auditferry/auditferry/shipper"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

const lokiMaxLine = 256 << 10 // Loki's default

// longEvent is an event with members before its timestamps.
func longEvent(i int, members string) string {
	return strings.Replace(event(i), `"requestReceivedTimestamp"`, members+`,"requestReceivedTimestamp"`, 1)
}

// longURL is what an anonymous GET of a URL of as many ampersands leaves.
func longURL(i, ampersands int) string {
	return strings.Replace(event(i), "/api/v1/pods", "/api/v1/pods?"+strings.Repeat(`\u0026`, ampersands), 1)
}

// longLines gives the long lines of the corpus if it is there, and some that are made.
func longLines(t *testing.T) []string {
	t.Helper()
	text := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	lines := []string{
		longEvent(0, `"requestObject":`+text(5000)),
		longEvent(1, `"requestObject":`+text(1<<20)),
		longEvent(2, `"requestObject":{"a":`+text(lokiMaxLine)+`},"responseObject":[`+text(3<<20)+`]`),
		longEvent(3, `"responseObject":{"metadata":{"name":"n","managedFields":[`+text(lokiMaxLine)+`]},"data":`+text(1000)+`}`),
		longURL(4, 60_000),
		longURL(5, 1<<20),
		longEvent(6, `"userAgent":`+text(1<<20)+`,"sourceIPs":[`+strings.Repeat(`"10.1.1.1",`, 100_000)+`"10.0.0.1"]`),
	}
	corpus, err := rig.FindCorpus()
	if err != nil {
		t.Fatal(err)
	}
	if !corpus.Full() {
		return lines
	}
	for line, err := range corpus.Lines(rig.BigLog) {
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(line))
	}
	return lines
}

// TestLongLines: Loki at its default limit refuses nothing, and has every event that can be reduced. A kill while nothing is
// acknowledged, though all is stored, shows no event twice. What is no event lies with the dead letters.
func TestLongLines(t *testing.T) {
	n := newNode(t)
	n.listen = freeAddress(t)
	n.now = func() time.Time { return eventsBegin.Add(time.Hour) } // those of the corpus are of the same evening
	lines := longLines(t)
	malformed := event(101) + strings.Repeat("x", lokiMaxLine)
	n.write("audit.log", append(lines, event(102), malformed, event(103))...)

	var refused atomic.Int64
	var acknowledge atomic.Bool
	take := lokitest.MaxLine(lokiMaxLine)
	n.loki.Answer(func(r lokitest.Request) lokitest.Reply {
		reply := take(r)
		if reply.Status != 204 {
			refused.Add(1)
		} else if !acknowledge.Load() {
			reply.Status = 500
		}
		return reply
	})
	n.start("--shutdown-timeout=0s", "--batch-size=1MiB", "--loki-stream-rate=0")
	n.wait(1)
	n.stopped()
	if p := n.position(); p.Offset != 0 {
		t.Fatalf("the position is %d, and nothing was acknowledged", p.Offset)
	}
	early := len(n.loki.Entries())
	acknowledge.Store(true)
	n.start("--loki-stream-rate=0")
	want := len(lines) + 2
	n.wait(want)
	path := `{path="` + n.path("audit.log") + `"}`
	n.waitMetric("auditferry_lag_bytes"+path, "0")
	n.waitMetric("auditferry_reduced_lines_total"+path, fmt.Sprint(len(lines)-1))
	n.waitMetric(`auditferry_dropped_entries_total{reason="line_too_long"}`, "1")
	n.stopped()

	entries := n.loki.Entries()
	if len(entries) != want || n.loki.Arrivals() < want+early || refused.Load() != 0 {
		t.Errorf("%d lines in Loki, want %d; %d were there before the kill, %d arrived; %d pushes were refused",
			len(entries), want, early, n.loki.Arrivals(), refused.Load())
	}
	n.wantReduced(append(lines, event(102), event(103)), entries)
	if p := n.position(); p.Offset != n.size("audit.log") {
		t.Errorf("the position is %d, want the end, %d", p.Offset, n.size("audit.log"))
	}
	n.wantBuried(malformed)
}

// wantReduced wants an entry for each event, reduced if it is too long.
func (n *node) wantReduced(lines []string, entries []lokitest.Entry) {
	n.t.Helper()
	type id struct{ AuditID, Stage, StageTimestamp string }
	idOf := func(line string) (of id) {
		if err := json.Unmarshal([]byte(line), &of); err != nil {
			n.t.Fatal(err)
		}
		return of
	}
	inLoki := make(map[id]string)
	for _, e := range entries {
		inLoki[idOf(e.Line)] = e.Line
	}
	for i, line := range lines {
		if err := rig.JudgeReduced([]byte(line), []byte(inLoki[idOf(line)]), lokiMaxLine); err != nil {
			n.t.Errorf("line %d of %d bytes: %v", i, len(line), err)
		}
	}
}

// wantBuried wants these lines, and no others, in the dead-letter file; those of two batches may be in any order.
func (n *node) wantBuried(lines ...string) {
	n.t.Helper()
	file, err := os.Open(n.path("dead-letters.jsonl"))
	if err != nil {
		n.t.Fatal(err)
	}
	defer file.Close()
	var got []string
	for letters := json.NewDecoder(file); letters.More(); {
		var letter shipper.DeadLetter
		if err := letters.Decode(&letter); err != nil {
			n.t.Fatal(err)
		}
		if letter.Reason != shipper.ReasonLine || !strings.Contains(letter.Answer, "--max-line-size") {
			n.t.Errorf("%s, %q", letter.Reason, letter.Answer)
		}
		got = append(got, letter.Event)
	}
	slices.Sort(got)
	slices.Sort(lines)
	if !slices.Equal(got, lines) {
		n.t.Errorf("%d dead letters, want %d", len(got), len(lines))
	}
}

func TestMaxLineSizeOfNone(t *testing.T) {
	n := newNode(t)
	lines := []string{longURL(0, 60_000), event(1)}
	n.write("audit.log", lines...)
	n.start("--max-line-size=0")
	n.wantLines(lines)
}

func TestDryRunShowsWhatIsReduced(t *testing.T) {
	n := newNode(t)
	n.write("audit.log", longEvent(0, `"requestObject":"`+strings.Repeat("x", 1<<20)+`"`), longURL(1, 1<<20),
		event(3)+strings.Repeat("x", lokiMaxLine), event(2))
	n.start()
	reduced := n.wait(3)
	n.stopped()
	var out strings.Builder
	if code := run(t.Context(), n.flags("--dry-run"), &out, io.Discard); code != exitOK {
		t.Fatalf("exit code %d", code)
	}
	want := [][]string{
		{"3", fmt.Sprint(reduced[0].Bytes + reduced[1].Bytes + reduced[2].Bytes), "1", "streams"},
		{"1", fmt.Sprint(len(event(3)) + lokiMaxLine), "to", "the", "dead", "letters:"},
	}
	rows := strings.Split(strings.TrimSpace(out.String()), "\n")
	for i, row := range rows[len(rows)-2:] {
		if !strings.HasPrefix(strings.Join(strings.Fields(row), " "), strings.Join(want[i], " ")) {
			t.Errorf("%s\nwant %v", row, want[i])
		}
	}
}
