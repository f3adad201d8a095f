package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

const gapStream = `{event="gap", job="kube-apiserver-audit", node="n1", service_name="kube-apiserver"}`

// gaps gives the lines of the gap entries that a log query shows, and the others.
func (n *node) gaps() (gaps, others []string) {
	for _, e := range n.loki.Entries() {
		if e.Stream == gapStream {
			gaps = append(gaps, e.Line)
		} else {
			others = append(others, e.Line)
		}
	}
	slices.Sort(others)
	return gaps, others
}

// gapText is the line of a gap between two of the events.
func (n *node) gapText(reason string, last, first int, more string) string {
	return fmt.Sprintf(`{"gap":%q,"node":"n1","path":%q,"last_event":"2026-11-23T20:00:00%s","first_event":"2026-11-23T20:00:00%s"%s}`,
		reason, n.path("audit.log"), fraction(last), fraction(first), more)
}

// fraction is how RFC 3339 with nanoseconds writes microseconds.
func fraction(i int) string {
	if i == 0 {
		return "Z"
	}
	return "." + strings.TrimRight(fmt.Sprintf("%06d", i), "0") + "Z"
}

func (n *node) wantGaps(want ...string) {
	n.t.Helper()
	n.until(fmt.Sprintf("%d gaps in Loki", len(want)), func() bool { got, _ := n.gaps(); return len(got) >= len(want) })
	if got, _ := n.gaps(); !slices.Equal(got, want) {
		n.t.Errorf("gaps in Loki:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func (n *node) wantOthers(want []string) {
	n.t.Helper()
	slices.Sort(want)
	n.until(fmt.Sprintf("%d events in Loki", len(want)), func() bool { _, got := n.gaps(); return len(got) >= len(want) })
	if _, got := n.gaps(); !slices.Equal(got, want) {
		n.t.Errorf("%d events in Loki, want %d", len(got), len(want))
	}
}

func (n *node) remove(name string) {
	n.t.Helper()
	if err := os.Remove(n.path(name)); err != nil {
		n.t.Fatal(err)
	}
}

// A file that went with what had not been read of it is told once, with the times of the events around it, and never again.
func TestGapOfALostFile(t *testing.T) {
	n := newNode(t)
	n.listen = freeAddress(t)
	n.write("audit.log", events(0, 10)...)
	n.start()
	n.wantLines(events(0, 10))
	n.stopped()
	n.write("audit.log", events(10, 20)...)
	n.remove("audit.log")
	n.write("audit.log", events(20, 25)...)
	n.start()
	n.wantGaps(n.gapText("position_file_gone", 9, 20, ""))
	n.wantOthers(append(events(0, 10), events(20, 25)...))
	n.waitMetric(`auditferry_gaps_total{path="`+n.path("audit.log")+`"}`, "1")
	n.stopped()
	if !strings.Contains(n.stderr.String(), "gap: events are missing in the audit log") {
		t.Errorf("the log does not tell of the gap:\n%s", n.stderr.String())
	}
	n.write("audit.log", events(25, 30)...)
	n.start()
	n.wantOthers(append(events(0, 10), events(20, 30)...))
	n.wantGaps(n.gapText("position_file_gone", 9, 20, ""))
	for _, e := range n.loki.Entries() {
		if e.Stream == gapStream && (!e.Time.Equal(timeOf(t, 20)) || e.Metadata[0] != (lokitest.Field{Name: "detected_level", Value: "error"})) {
			t.Errorf("the gap is at %v with %v, want the time of the event after it, as an error", e.Time, e.Metadata)
		}
	}
}

// Files that came and went unseen show in the times: the second backup began when one was rotated that is not there.
func TestGapOfUnseenFiles(t *testing.T) {
	n := newNode(t)
	n.write("audit-2026-11-23T20-00-00.001.log", events(0, 10)...) // rotated at 1 ms by event 1,000 at the latest
	n.write("audit-2026-11-23T20-00-00.009.log", events(5000, 5010)...)
	n.write("audit.log", events(8000, 8010)...)
	n.start()
	n.wantOthers(slices.Concat(events(0, 10), events(5000, 5010), events(8000, 8010)))
	n.wantGaps(n.gapText("unseen_files", 9, 5000, ""))
}

// Only what was written as the first line of a file tells when it was begun, not what was glued to the rest of a torn line.
func TestNoGapBeforeAGluedEvent(t *testing.T) {
	n := newNode(t)
	n.write("audit-2026-11-23T20-00-00.001.log", events(0, 10)...)
	n.write("audit-2026-11-23T20-00-00.009.log", `{"kind":"Eve`+events(5000, 5001)[0], events(5001, 5002)[0])
	n.write("audit-2026-11-23T20-00-00.010.log", events(8000, 8001)[0]+events(9500, 9501)[0])
	n.write("audit.log", events(9600, 9601)...)
	n.start()
	n.wantOthers(slices.Concat(events(0, 10), []string{`{"kind":"Eve`}, events(5000, 5002), events(8000, 8001), events(9500, 9501), events(9600, 9601)))
	n.wantGaps()
}

// A gap whose entry Loki has, but whose acknowledgement was lost, is told again in the same words. What is lost after that is
// a gap of its own.
func TestGapIsToldOnce(t *testing.T) {
	for _, more := range []bool{false, true} {
		n := newNode(t)
		n.write("audit.log", events(0, 10)...)
		n.start()
		n.wantLines(events(0, 10))
		n.stopped()
		n.remove("audit.log")
		n.write("audit-2026-11-23T20-00-01.000.log", events(20, 25)...)
		n.write("audit.log", events(30, 35)...)
		n.loki.Answer(func(r lokitest.Request) lokitest.Reply {
			switch {
			case r.Tenant != "first": // what the first agent sent may be read only when it has stopped
				return lokitest.OK()
			case slices.ContainsFunc(r.Entries, func(e lokitest.Entry) bool { return e.Stream == gapStream }):
				return lokitest.StoredCut()
			}
			return lokitest.Hang()
		})
		n.start("--shutdown-timeout=0s", "--loki-timeout=100ms", "--loki-tenant-id=first")
		first := n.gapText("position_file_gone", 9, 20, "")
		n.wantGaps(first)
		n.stopped()
		arrived := n.loki.Arrivals()
		want := append(events(0, 10), events(20, 25)...)
		gaps := []string{first}
		if more {
			n.remove("audit-2026-11-23T20-00-01.000.log")
			want = events(0, 10)
			gaps = append(gaps, n.gapText("position_file_gone", 9, 30, ""))
		}
		n.start()
		n.wantGaps(gaps...)
		n.wantOthers(append(want, events(30, 35)...))
		if n.loki.Arrivals() == arrived {
			t.Error("nothing arrived again: the test tests nothing")
		}
		n.stopped()
	}
}

// A gap is kept before it is told: after a crash, the files that told how it came about may be gone as well.
func TestGapIsKept(t *testing.T) {
	n := newNode(t)
	n.loki.Answer(func(r lokitest.Request) lokitest.Reply {
		if r.Number > 1 {
			return lokitest.Hang() // until the files are gone
		}
		return lokitest.OK()
	})
	args := []string{"--shutdown-timeout=0s", "--loki-timeout=100ms", "--hold-deleted=0", "--batch-size=1KiB"}
	n.write("audit.log", events(0, 1)...)
	n.start(args...)
	n.wantLines(events(0, 1))
	n.write("audit.log", events(1, 30)...) // more than is in flight, so this file stays in hand
	n.until("the reader waits for Loki", func() bool { return n.loki.Requests() > 2 })
	names := []string{"audit-2026-11-23T20-00-01.000.log", "audit-2026-11-23T20-00-02.000.log", "audit-2026-11-23T20-00-03.000.log"}
	for i, name := range names {
		n.rename("audit.log", name)
		n.write("audit.log", events(100*(i+1), 100*(i+1)+5)...)
		n.until(name+" is seen", func() bool { return n.open(name) && n.open("audit.log") })
	}
	n.remove(names[1])
	n.remove(names[2])
	n.until("they are given up", func() bool { return !n.open(names[1]) && !n.open(names[2]) })
	n.loki.Answer(func(r lokitest.Request) lokitest.Reply {
		if slices.ContainsFunc(r.Entries, func(e lokitest.Entry) bool { return e.Stream == gapStream }) {
			return lokitest.StoredCut()
		}
		return lokitest.OK()
	})
	size := 0
	for _, e := range append(events(100, 105), events(200, 205)...) {
		size += len(e) + 1
	}
	want := n.gapText("deleted_unread", 29, 300, fmt.Sprintf(`,"lost_files":2,"lost_bytes":%d`, size))
	n.wantGaps(want)
	n.stopped()
	n.remove(names[0])
	arrived := n.loki.Arrivals()
	n.loki.Answer(nil)
	n.start(args...)
	n.wantOthers(append(events(0, 30), events(300, 305)...))
	n.wantGaps(want)
	if n.loki.Arrivals() < arrived+2 {
		t.Error("the gap did not arrive again: the test tests nothing")
	}
}

// rename is what a rotation does.
func (n *node) rename(from, to string) {
	n.t.Helper()
	if err := os.Rename(n.path(from), n.path(to)); err != nil {
		n.t.Fatal(err)
	}
}

// open reports whether this process has a file of the node open, deleted or not.
func (n *node) open(name string) bool {
	n.t.Helper()
	descriptors, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		n.t.Fatal(err)
	}
	for _, d := range descriptors {
		target, _ := os.Readlink("/proc/self/fd/" + d.Name()) // it may be closed by now
		if strings.TrimSuffix(target, " (deleted)") == n.path(name) {
			return true
		}
	}
	return false
}

// A file that goes before anything of it was acknowledged is missed all the same. Nothing says then when the last event was.
func TestGapBeforeTheFirstAcknowledgement(t *testing.T) {
	n := newNode(t)
	n.loki.Answer(func(lokitest.Request) lokitest.Reply { return lokitest.Hang() })
	n.write("audit.log", events(0, 10)...)
	n.start("--shutdown-timeout=0s")
	n.until("a push", func() bool { return n.loki.Requests() > 0 })
	n.stopped()
	n.remove("audit.log")
	n.write("audit.log", events(20, 25)...)
	n.loki.Answer(nil)
	n.start()
	n.wantOthers(events(20, 25))
	n.wantGaps(fmt.Sprintf(`{"gap":"position_file_gone","node":"n1","path":%q,"first_event":"2026-11-23T20:00:00.00002Z"}`, n.path("audit.log")))
}

// timeOf is the time of an event.
func timeOf(t *testing.T, i int) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, "2026-11-23T20:00:00"+fraction(i))
	if err != nil {
		t.Fatal(err)
	}
	return at
}
