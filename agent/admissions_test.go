package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/auditferry/auditferry/agent/audit"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

// admitting gives a line about a resource that is not built in, of a user of its own, with the code of the answer.
func admitting(i, code int) string {
	line := strings.Replace(event(i), `"resource":"pods"`, `"resource":"things","apiGroup":"x.io"`, 1)
	line = strings.Replace(line, `"alice"`, fmt.Sprintf("%q", fmt.Sprint("u", i/2)), 1)
	return strings.Replace(line, `"code":200`, fmt.Sprintf(`"code":%d`, code), 1)
}

// Lines that are sent again after a crash get the labels that they had, those before an admission as well as those after it: Loki
// has each once. --max-streams is reached on the way.
func TestLabelsAreTheSameAfterACrash(t *testing.T) {
	n := newNode(t)
	flags := []string{"--max-streams=400"}
	var lines []string
	for i := range 800 {
		code := 404
		if i >= 20 && i%3 != 0 {
			code = 200
		}
		line := admitting(i, code)
		if i >= 300 && i < 340 { // another resource, admitted after what is sent again
			line = strings.Replace(admitting(i, map[bool]int{true: 404, false: 200}[i < 320]), `"things"`, `"later"`, 1)
		}
		lines = append(lines, line)
	}
	n.write("audit.log", lines[:100]...)
	n.start(flags...)
	n.wait(100)
	n.stopped()
	early, err := os.ReadFile(n.path("positions.json"))
	if err != nil {
		t.Fatal(err)
	}
	n.write("audit.log", lines[100:]...)
	for back := range 3 {
		if back > 0 { // as after a loss of power
			for _, latest := range []string{"positions.latest.json", "positions.latest2.json"} {
				if err := os.Remove(n.path(latest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(n.path("positions.json"), early, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		n.start(flags...)
		n.until("all lines", func() bool { return n.loki.Arrivals() >= 100+700*(1+back) })
		if code := n.stopped(); code != exitOK {
			t.Fatalf("exit code %d: %s", code, n.stderr.String())
		}
		n.wantLines(lines)
	}
	streams := map[string]bool{}
	for _, e := range n.loki.Entries() {
		streams[e.Stream] = true
		var number int
		if _, err := fmt.Sscanf(e.Line[strings.Index(e.Line, "id-"):], "id-%d", &number); err != nil {
			t.Fatal(err)
		}
		if early := number < 20 || number >= 300 && number < 320; early != (e.Labels["resource"] == "other") {
			t.Errorf("%s of line %d", e.Stream, number)
		}
		if e.Labels["user"] == "other" && !slices.ContainsFunc(e.Metadata, func(f lokitest.Field) bool { return f.Name == "username" }) {
			t.Errorf("who is the user of %s?", e.Line)
		}
	}
	if len(streams) != 361 { // nine tenths by user, and one for all others
		t.Errorf("%d streams", len(streams))
	}
}

// Nothing is pushed while what it needs cannot be made durable, and everything is once it can.
func TestNothingIsPushedWithoutItsAdmissions(t *testing.T) {
	n := newNode(t)
	n.write("audit.log", events(0, 3)...)
	_, cfg, err := parse(n.flags(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{cfg: cfg, logger: slog.New(slog.DiscardHandler), registry: prometheus.NewRegistry()}
	if err := a.open(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.close() }()
	if err := os.MkdirAll(n.path("positions.admissions.tmp/x"), 0o700); err != nil { // in the place of the file
		t.Fatal(err)
	}
	f := a.followers[0]
	f.batch = f.queue.Batch()
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	for range 3 {
		line, err := f.tail.Next(t.Context())
		if err == nil {
			err = f.add(t.Context(), line)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.send(stopped); err == nil || !strings.Contains(err.Error(), "positions.admissions") {
		t.Errorf("error %v", err)
	}
	if a.ready() == nil || n.loki.Requests() != 0 {
		t.Errorf("ready: %v, %d requests", a.ready(), n.loki.Requests())
	}
	if err := os.RemoveAll(n.path("positions.admissions.tmp")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.send(t.Context()), f.queue.Drain(t.Context()), a.ready()); err != nil {
		t.Error(err)
	}
	n.wantLines(events(0, 3))
}

func TestMetricsOfLabels(t *testing.T) {
	n := newNode(t)
	n.listen = freeAddress(t)
	n.write("audit.log", admitting(0, 404), admitting(1, 200), strings.Replace(event(2), `"list"`, `"pwn"`, 1))
	n.start()
	n.wait(3)
	for series, value := range map[string]string{
		"auditferry_streams": "3", "auditferry_streams_admitted_total": "3", "auditferry_resources_admitted_total": "1",
		`auditferry_folded_entries_total{reason="verb"}`: "1", `auditferry_folded_entries_total{reason="resource"}`: "1",
		`auditferry_folded_entries_total{reason="streams_user"}`: "0", `auditferry_folded_entries_total{reason="streams_resource"}`: "0",
		"auditferry_admissions_write_failures_total": "0",
	} {
		n.waitMetric(series, value)
	}
	n.stopped()
	n.start()
	n.waitMetric("auditferry_streams", "3")
	n.waitMetric("auditferry_streams_admitted_total", "0")
}

// A destination that goes on under a key of its own has what was admitted under that of the path alone; a new one does without.
// What belongs to a destination that is not given now is kept.
func TestAdmissionsOfEachDestination(t *testing.T) {
	n := newNode(t)
	first, second := n.alone(), n.second()
	resourceOf := func(of *node, event string) string {
		for _, e := range of.loki.Entries() {
			if e.Line == event {
				return e.Labels["resource"]
			}
		}
		t.Fatalf("Loki does not have %s", event)
		return ""
	}
	n.write("audit.log", admitting(0, 200))
	n.start()
	first.wait(1)
	n.stopped()
	n.write("audit.log", admitting(1, 404))
	n.startWith([]*node{second, first}, "--start-at=end")
	first.wait(2)
	n.stopped()
	n.write("audit.log", admitting(2, 404))
	n.startWith([]*node{second, first})
	first.wait(3)
	second.wait(1)
	n.stopped()
	n.write("audit.log", admitting(3, 404))
	n.url = first.url
	n.start()
	first.wait(4)
	n.stopped()
	for i := range 4 {
		code := 404
		if i == 0 {
			code = 200
		}
		if got := resourceOf(first, admitting(i, code)); got == audit.Other {
			t.Errorf("event %d is of the resource %s for the destination that was there from the start", i, got)
		}
	}
	if got := resourceOf(second, admitting(2, 404)); got != audit.Other {
		t.Errorf("an event is of the resource %s for a destination that has seen no success", got)
	}
}

// A copy of what was read, as copytruncate makes it, is read again as it is found, which may be before all of it is there. What comes
// after that in the log itself gets the labels that it would have got without.
func TestAdmissionsAfterACopyIsRead(t *testing.T) {
	n := newNode(t)
	n.write("audit.log", admitting(0, 404), admitting(1, 200))
	n.start()
	n.wait(2)
	n.write("audit.log.1", "\x00\x00"+admitting(0, 404))
	n.until("the copy is read", func() bool { return n.loki.Arrivals() >= 3 })
	n.write("audit.log", admitting(2, 404))
	n.until("the log is read on", func() bool { return n.loki.Arrivals() >= 4 })
	n.stopped()
	resources := map[string]string{}
	for _, e := range n.loki.Entries() {
		resources[e.Line] = e.Labels["resource"]
	}
	if got := resources[admitting(0, 404)]; got != audit.Other {
		t.Errorf("the event before the one that admits its resource is of %s", got)
	}
	if got := resources[admitting(2, 404)]; got == audit.Other {
		t.Error("an event after the one that admits its resource is of another")
	}
}

// Where reading goes back to a copy, what was read after that copy is left out. What was admitted by an event in it still is, in the
// next file.
func TestAdmissionsByWhatIsLeftOut(t *testing.T) {
	n := newNode(t)
	n.write("audit.log", admitting(0, 404))
	n.start()
	n.wait(1)
	n.write("audit.log.1", admitting(0, 404)) // not read: it has nothing new
	n.write("audit.log", admitting(1, 200))
	n.wait(2)
	if err := os.Truncate(n.path("audit.log"), 0); err != nil {
		t.Fatal(err)
	}
	n.until("the copy is read", func() bool { return n.loki.Arrivals() >= 3 })
	n.write("audit.log", admitting(2, 404))
	for _, e := range n.wait(3) {
		if got, want := e.Labels["resource"], e.Line == admitting(0, 404); (got == audit.Other) != want {
			t.Errorf("%s is of %s", e.Line, got)
		}
	}
}

// In ordinary rotation, labels go by position: an event in the new file has what was admitted in the old one, whatever its time.
func TestAdmissionsAcrossRotation(t *testing.T) {
	n := newNode(t)
	n.write("audit.log", admitting(1, 404), admitting(2, 200))
	n.start()
	n.wait(2)
	n.rotate(3)
	n.write("audit.log", admitting(0, 404))
	for _, e := range n.wait(3) {
		if got, want := e.Labels["resource"], e.Line == admitting(1, 404); (got == audit.Other) != want {
			t.Errorf("%s is of %s", e.Line, got)
		}
	}
	n.stopped()
	text, err := os.ReadFile(n.path("positions.admissions"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte(`"from":-1`)) || !bytes.Contains(text, []byte(`"things"`)) {
		t.Errorf("admitted by position: %s", text)
	}
}

// A destination whose own position is lost, and which is alone by then, sends everything again as it was, though what admitted it
// is not there any more.
func TestAdmissionsOutliveThePositionOfOneOfSeveral(t *testing.T) {
	n := newNode(t)
	first, second := n.alone(), n.second()
	n.write("audit.log", admitting(0, 200))
	n.startWith([]*node{first, second})
	first.wait(1)
	second.wait(1)
	old := n.rotate(1)
	n.write("audit.log", admitting(1, 404))
	first.wait(2)
	second.wait(2)
	n.stopped()
	n.remove(old)
	for _, name := range []string{"positions.json", "positions.latest.json", "positions.latest2.json"} {
		if err := os.WriteFile(n.path(name), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.url = second.url
	n.write("audit.log", admitting(2, 404))
	n.start()
	second.wait(3)
	n.stopped()
	if got := second.loki.Arrivals(); got != 4 {
		t.Errorf("%d entries arrived, want 2, and one of these and one more", got)
	}
	second.wantLines([]string{admitting(0, 200), admitting(1, 404), admitting(2, 404)})
}
