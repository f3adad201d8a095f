package main

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

func TestEventsArriveWithTheirLabels(t *testing.T) {
	n := newNode(t)
	n.start("--cluster=c1", "--label=env=prod")
	n.write("audit.log", events(0, 3)...)
	entry := n.wait(3)[0]
	want := `{cluster="c1", env="prod", job="kube-apiserver-audit", node="n1", resource="pods", service_name="kube-apiserver", user="alice", verb="list"}`
	if entry.Stream != want || entry.Line != event(0) {
		t.Errorf("got %s %s", entry.Stream, entry.Line)
	}
	if got := entry.Time.UTC().Format("2006-01-02T15:04:05.000000Z"); got != "2026-11-23T20:00:00.000000Z" {
		t.Errorf("timestamp %s", got)
	}
	if !slices.Contains(entry.Metadata, lokitest.Field{Name: "audit_id", Value: "id-0"}) {
		t.Errorf("structured metadata %v", entry.Metadata)
	}
	if code := n.stopped(); code != exitOK {
		t.Errorf("exit code %d: %s", code, n.stderr.String())
	}
}

func TestOneLogThroughRotationRestartAndGzip(t *testing.T) {
	n := newNode(t)
	n.write("audit.log", events(0, 10)...)
	n.start()
	n.wait(10)
	n.write("audit.log", events(10, 20)...)
	n.wait(20)
	if code := n.stopped(); code != exitOK {
		t.Fatalf("exit code %d: %s", code, n.stderr.String())
	}
	// While the agent is down: more is written, the file is rotated and compressed, and rotated again.
	n.write("audit.log", events(20, 30)...)
	pack(t, n.path("audit.log"), n.path("audit-2026-11-23T20-00-01.000.log.gz"))
	n.write("audit-2026-11-23T20-00-02.000.log", events(30, 40)...)
	n.write("audit.log", events(40, 50)...)
	n.start()
	n.wantLines(events(0, 50))
	if repeats := n.loki.Arrivals() - len(n.loki.Entries()); repeats != 0 {
		t.Errorf("%d lines were sent again after a clean stop", repeats)
	}
}

func TestPositionMovesOnlyWhenLokiAcknowledges(t *testing.T) {
	n := newNode(t)
	n.loki.Answer(func(lokitest.Request) lokitest.Reply { return lokitest.Stored(500, "stored, but the answer is lost") })
	n.write("audit.log", events(0, 5)...)
	n.start("--shutdown-timeout=0s")
	n.wait(5)
	if code := n.stopped(); code != exitOK {
		t.Fatalf("exit code %d", code)
	}
	if p := n.position(); p.Offset != 0 || p.LSN != 0 {
		t.Errorf("the position moved to %+v without an acknowledgement", p)
	}
	n.loki.Answer(func(lokitest.Request) lokitest.Reply { return lokitest.OK() })
	n.write("audit.log", events(5, 6)...)
	n.start()
	n.wantLines(events(0, 6))
	n.stopped()
	if p := n.position(); p.Offset != n.size("audit.log") || p.LSN != p.Offset {
		t.Errorf("the position is %+v, want the end of the file, %d", p, n.size("audit.log"))
	}
}

func TestWhatWasReadIsPushedBeforeTheAgentStops(t *testing.T) {
	n := newNode(t)
	n.listen = freeAddress(t)
	n.write("audit.log", events(0, 5)...)
	n.start("--batch-wait=1h")
	n.waitMetric(`auditferry_read_lines_total{path="`+n.path("audit.log")+`"}`, "5")
	if got := len(n.loki.Entries()); got != 0 {
		t.Fatalf("%d lines were pushed before the batch was due", got)
	}
	n.stopped()
	n.wantLines(events(0, 5))
	if p := n.position(); p.Offset != n.size("audit.log") {
		t.Errorf("the position is %d, want %d", p.Offset, n.size("audit.log"))
	}
}

func TestBatchesKeepToTheirSize(t *testing.T) {
	n := newNode(t)
	n.write("audit.log", events(0, 100)...)
	var most int
	n.loki.Answer(func(r lokitest.Request) lokitest.Reply {
		most = max(most, len(r.Entries)) // one push at a time
		return lokitest.OK()
	})
	n.start("--batch-size=4KiB", "--pushes-in-flight=1", "--batch-wait=1s")
	n.wantLines(events(0, 100))
	n.stopped()
	if most < 2 || most > 4096/len(event(0)) {
		t.Errorf("a push had %d entries of %d bytes, want at most 4 KiB", most, len(event(0)))
	}
}

func TestDamageIsSentAsMalformedAndNothingAfterItIsLost(t *testing.T) {
	n := newNode(t)
	torn := event(1)[:100]
	n.write("audit.log", event(0), torn+event(2), strings.Repeat("\x00", 1000)+event(3), "", "not JSON", event(4))
	n.start()
	n.wantLines([]string{event(0), torn, event(2), event(3), "not JSON", event(4)})
	for _, e := range n.loki.Entries() {
		malformed := e.Line == torn || e.Line == "not JSON"
		if got := e.Labels["resource"] == "malformed"; got != malformed {
			t.Errorf("%q has the labels %s", e.Line, e.Stream)
		}
		// A line without a time has that of the line before it.
		if e.Line == "not JSON" && e.Time.Nanosecond() != 3000 || e.Line == torn && e.Time.Nanosecond() != 0 {
			t.Errorf("%q has the time %v", e.Line, e.Time)
		}
	}
}

func TestStartAt(t *testing.T) {
	for _, tt := range []struct {
		at   string
		want []string
	}{
		{"beginning", events(0, 40)},
		{"end", events(30, 40)},
		{"2026-11-23T20:00:00.000015Z", events(15, 40)},
		{"2026-11-23T20:00:00.000015Z after damage", events(15, 40)},
	} {
		t.Run(tt.at, func(t *testing.T) {
			n := newNode(t)
			n.listen = freeAddress(t)
			at, damaged := strings.CutSuffix(tt.at, " after damage")
			tt.at = at
			if damaged {
				n.write("audit.log", event(9)[50:]) // has no time of its own, and is the first
			}
			n.write("audit-2026-11-23T20-00-00.000.log", events(0, 10)...) // as a rotation before the time
			n.write("audit.log", events(10, 30)...)
			n.start("--start-at=" + tt.at)
			n.waitMetric(`auditferry_lag_bytes{path="`+n.path("audit.log")+`"}`, "0")
			n.write("audit.log", events(30, 40)...)
			n.wantLines(tt.want)
		})
	}
}

func TestTwoPathsDoNotHoldEachOtherBack(t *testing.T) {
	n := newNode(t)
	hold := make(chan struct{})
	n.loki.Answer(func(r lokitest.Request) lokitest.Reply {
		if strings.Contains(r.Entries[0].Line, "id-0") {
			return lokitest.After(hold, lokitest.OK())
		}
		return lokitest.OK()
	})
	n.write("audit.log", event(0))
	n.write("other.log", events(1, 4)...)
	n.start("--audit-log-path="+n.path("other.log"), "--pushes-in-flight=1")
	n.wantLines(events(0, 4)) // event 0 is stored, its answer waits
	n.write("other.log", events(4, 8)...)
	n.wantLines(events(0, 8))
	close(hold)
	if code := n.stopped(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	// Loki refuses what is far behind the newest entry of a stream, so paths must not share one.
	for _, e := range n.loki.Entries() {
		want := n.path("other.log")
		if e.Line == event(0) {
			want = n.path("audit.log")
		}
		if e.Labels["filename"] != want {
			t.Errorf("the label filename is %q, want %q", e.Labels["filename"], want)
		}
	}
}

func TestWhatIsNotPushedMovesThePositionToo(t *testing.T) {
	n := newNode(t)
	n.listen = freeAddress(t)
	n.write("audit.log", event(0), strings.Repeat("\x00", 100), "")
	n.start()
	n.wait(1)
	n.waitMetric(`auditferry_lag_bytes{path="`+n.path("audit.log")+`"}`, "0")
	n.stopped()
	if p := n.position(); p.Offset != n.size("audit.log") {
		t.Errorf("the position is %d, want the end, %d", p.Offset, n.size("audit.log"))
	}
}

// TestStopReadsOn stops agents before they have read anything: they read on, but leave a backlog of more than a batch.
func TestStopReadsOn(t *testing.T) {
	for _, test := range []struct {
		name     string
		flag     string
		min, max int // entries
	}{
		{"all that is written", "--batch-size=1MiB", 100, 100},
		{"a batch of it", "--batch-size=10KiB", 10, 50},
		{"nothing without time", "--shutdown-timeout=0s", 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newNode(t)
			n.write("audit.log", events(0, 100)...)
			stopped, stop := context.WithCancel(t.Context())
			stop()
			var stderr bytes.Buffer
			if code := n.run(stopped, io.Discard, &stderr, test.flag); code != 0 {
				t.Fatalf("exit code %d: %s", code, &stderr)
			}
			if got := len(n.loki.Entries()); got < test.min || got > test.max {
				t.Errorf("%d events are shipped, want %d to %d", got, test.min, test.max)
			}
			n.start()
			want := events(0, 100)
			slices.Sort(want)
			if got := linesOf(n.wait(100)); !slices.Equal(got, want) {
				t.Errorf("%d lines after another start, want all 100 once", len(got))
			}
		})
	}
}

// TestStopReadsOnAfterARotation stops agents that have not seen yet that the log was rotated.
func TestStopReadsOnAfterARotation(t *testing.T) {
	n := newNode(t)
	n.write("audit.log", events(0, 10)...)
	n.start()
	n.wait(10)
	n.rotate(1)
	n.write("audit.log", events(10, 11)...)
	if code := n.stopped(); code != 0 {
		t.Fatalf("exit code %d: %s", code, n.stderr.String())
	}
	if got := len(n.loki.Entries()); got != 11 {
		t.Errorf("%d events are shipped, want 11", got)
	}
}
