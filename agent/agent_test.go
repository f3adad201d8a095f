package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/auditferry/auditferry/positions"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

// node is a control-plane node: a directory of audit logs, a Loki, and an agent that runs in this process.
type node struct {
	t      *testing.T
	dir    string
	loki   *lokitest.Server
	url    string
	listen string

	stop   context.CancelFunc
	exit   chan int
	stderr bytes.Buffer // read after stopped
}

func newNode(t *testing.T) *node {
	n := &node{t: t, dir: t.TempDir(), loki: lokitest.New()}
	url, err := n.loki.Start()
	if err != nil {
		t.Fatal(err)
	}
	n.url = url
	t.Cleanup(n.loki.Close)
	return n
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

func (n *node) flags(more ...string) []string {
	return append([]string{
		"--audit-log-path=" + n.path("audit.log"), "--loki-url=" + n.url, "--positions-file=" + n.path("positions.json"),
		"--node=n1", "--batch-wait=10ms", "--poll-interval=10ms", "--backoff-min=1ms", "--backoff-max=5ms", "--listen-address=" + n.listen,
	}, more...)
}

func (n *node) start(more ...string) {
	n.t.Helper()
	ctx, cancel := context.WithCancel(n.t.Context())
	n.stop, n.exit = cancel, make(chan int, 1)
	n.stderr.Reset()
	go func() { n.exit <- run(ctx, n.flags(more...), io.Discard, &n.stderr) }()
	n.t.Cleanup(func() { n.stopped() })
}

// stopped asks the agent to stop and gives its exit code.
func (n *node) stopped() int {
	n.stop()
	code := <-n.exit
	n.exit <- code
	return code
}

func (n *node) write(name string, lines ...string) {
	n.t.Helper()
	f, err := os.OpenFile(n.path(name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(strings.Join(lines, "\n") + "\n"); err != nil {
		n.t.Fatal(err)
	}
}

// wait returns when Loki shows as many lines, and gives them in the order of their arrival.
func (n *node) wait(lines int) []lokitest.Entry {
	n.t.Helper()
	n.until(fmt.Sprintf("%d lines in Loki", lines), func() bool { return len(n.loki.Entries()) >= lines })
	return n.loki.Entries()
}

// until polls for what happens in the agent's own time.
func (n *node) until(what string, happened func() bool) {
	n.t.Helper()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	patience := time.NewTimer(time.Minute)
	defer patience.Stop()
	for !happened() {
		select {
		case <-poll.C:
		case code := <-n.exit:
			n.exit <- code
			n.t.Fatalf("waiting for %s: the agent ended with exit code %d: %s", what, code, n.stderr.String())
		case <-patience.C:
			n.t.Fatalf("waited in vain for %s; %d lines are in Loki", what, len(n.loki.Entries()))
		}
	}
}

func event(i int) string {
	return fmt.Sprintf(`{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"id-%d","stage":"ResponseComplete",`+
		`"requestURI":"/api/v1/pods","verb":"list","user":{"username":"alice"},"sourceIPs":["10.0.0.1"],"objectRef":{"resource":"pods","apiVersion":"v1"},`+
		`"responseStatus":{"code":200},"requestReceivedTimestamp":"2026-11-23T20:00:00.%06dZ","stageTimestamp":"2026-11-23T20:00:00.%06dZ"}`, i, i, i)
}

func events(from, to int) []string {
	var lines []string
	for i := from; i < to; i++ {
		lines = append(lines, event(i))
	}
	return lines
}

func linesOf(entries []lokitest.Entry) []string {
	var lines []string
	for _, e := range entries {
		lines = append(lines, e.Line)
	}
	slices.Sort(lines)
	return lines
}

func (n *node) wantLines(want []string) {
	n.t.Helper()
	got := linesOf(n.wait(len(want)))
	want = slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		n.t.Errorf("Loki has %d lines, want %d:\n%s\nwant\n%s", len(got), len(want), strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

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

// pack compresses a file as lumberjack does.
func pack(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(content)
	_ = z.Close()
	if err := os.WriteFile(to, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(from); err != nil {
		t.Fatal(err)
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

// position is what a restart would begin at.
func (n *node) position() (p struct{ Offset, LSN int64 }) {
	n.t.Helper()
	text, err := os.ReadFile(n.path("positions.json"))
	if err != nil {
		n.t.Fatal(err)
	}
	var file struct {
		Paths map[string]struct{ Offset, LSN int64 }
	}
	if err := json.Unmarshal(text, &file); err != nil {
		n.t.Fatal(err)
	}
	return file.Paths[n.path("audit.log")]
}

func (n *node) size(name string) int64 {
	n.t.Helper()
	info, err := os.Stat(n.path(name))
	if err != nil {
		n.t.Fatal(err)
	}
	return info.Size()
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

func TestLagIsTheAgeOfTheOldestUnacknowledgedEvent(t *testing.T) {
	m := newPathMetrics(prometheus.NewRegistry(), "a", positions.Position{}, func() int64 { return 0 },
		func(time.Time) time.Duration { return 0 })
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	for _, step := range []struct {
		do   func()
		want time.Duration
	}{
		{func() {}, 0},
		{func() { m.began(ago(time.Hour)) }, time.Hour},
		{func() { m.began(ago(time.Minute)) }, time.Hour},
		{func() { m.acknowledged(positions.Position{}, 5) }, time.Minute},
		{func() { m.acknowledged(positions.Position{}, 0) }, time.Minute}, // nothing in it was pushed
		{func() { m.acknowledged(positions.Position{}, 1) }, 0},
	} {
		step.do()
		if got := m.lagSeconds(); got < step.want.Seconds() || got > step.want.Seconds()+30 {
			t.Errorf("lag of %v s, want %v", got, step.want)
		}
	}
}

func TestStateIsServed(t *testing.T) {
	n := newNode(t)
	n.listen = freeAddress(t)
	n.loki.Answer(func(lokitest.Request) lokitest.Reply { return lokitest.Refused(401, "no org id") })
	n.write("audit.log", event(0))
	n.start("--shutdown-timeout=0s")
	n.until("a second try", func() bool { return n.loki.Requests() > 1 })
	if code, body := n.get("/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("/healthz: %d %q", code, body)
	}
	if code, body := n.get("/readyz"); code != 503 || !strings.Contains(body, "no org id") {
		t.Errorf("/readyz while Loki refuses: %d %q", code, body)
	}
	n.loki.Answer(func(lokitest.Request) lokitest.Reply { return lokitest.OK() })
	n.waitMetric(`auditferry_lag_bytes{path="`+n.path("audit.log")+`"}`, "0")
	if code, body := n.get("/readyz"); code != 200 {
		t.Errorf("/readyz: %d %q", code, body)
	}
	_, metrics := n.get("/metrics")
	for _, want := range []string{`auditferry_build_info{version="dev"} 1`, "auditferry_gaps_total", "process_resident_memory_bytes", `auditferry_dropped_entries_total{reason=`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics does not have %s", want)
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	return address
}

func (n *node) get(path string) (int, string) {
	response, err := http.Get("http://" + n.listen + path)
	if err != nil {
		return 0, ""
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

// waitMetric scrapes until a series has the value.
func (n *node) waitMetric(series, value string) {
	n.t.Helper()
	n.until(series+" "+value, func() bool {
		_, metrics := n.get("/metrics")
		return strings.Contains(metrics, "\n"+series+" "+value+"\n")
	})
}

func TestFailuresToStartAreOneLine(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want []string
	}{
		{"positions in a missing directory", []string{"--positions-file=/no/such/dir/p.json"}, []string{"--positions-file", "/no/such/dir"}},
		{"dead letters in a missing directory", []string{"--dead-letter-file=/no/such/dir/d"}, []string{"--dead-letter-file", "/no/such/dir"}},
		{"HTTP configuration missing", []string{"--loki-http-config=/no/such/file"}, []string{"--loki-http-config", "/no/such/file"}},
		{"log file in a missing directory", []string{"--log-file=/no/such/dir/l"}, []string{"--log-file", "/no/such/dir"}},
		{"address of another", []string{"--listen-address=192.0.2.1:1"}, []string{"--listen-address", "192.0.2.1:1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t)
			stopped, cancel := context.WithCancel(t.Context())
			cancel()
			var stderr bytes.Buffer
			if code := run(stopped, n.flags(tt.args...), io.Discard, &stderr); code != exitFailure {
				t.Errorf("exit code %d, want %d", code, exitFailure)
			}
			message := stderr.String()
			if strings.Count(message, "\n") != 1 || !strings.HasPrefix(message, "auditferry: ") {
				t.Errorf("want one line, got %q", message)
			}
			for _, word := range tt.want {
				if !strings.Contains(message, word) {
					t.Errorf("%q does not say %q", message, word)
				}
			}
		})
	}
}

func TestDryRunTouchesNothing(t *testing.T) {
	n := newNode(t)
	n.write("audit.log", append(events(0, 3), strings.ReplaceAll(event(3), `"list"`, `"watch"`))...)
	before, _ := os.ReadDir(n.dir)
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), n.flags("--dry-run"), &stdout, &stderr); code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr.String())
	}
	after, _ := os.ReadDir(n.dir)
	if len(after) != len(before) || n.loki.Requests() != 0 {
		t.Errorf("%d files were made and %d requests", len(after)-len(before), n.loki.Requests())
	}
	rows := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	if len(rows) != 4 || !strings.Contains(rows[1], "3  ") || !strings.Contains(rows[1], `verb="list"`) || !strings.Contains(rows[3], "2 streams") {
		t.Errorf("got\n%s", stdout.String())
	}
}

func TestDryRunCanBeInterrupted(t *testing.T) {
	n := newNode(t)
	n.write("audit.log", events(0, 3)...)
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	if code := run(stopped, n.flags("--dry-run"), &stdout, &stderr); code != exitFailure || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("exit code %d: %s", code, stderr.String())
	}
}

func TestCheckConfig(t *testing.T) {
	n := newNode(t)
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), n.flags("--check-config"), &stdout, &stderr); code != exitOK || !strings.Contains(stdout.String(), "does not exist yet") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout.String(), stderr.String())
	}
	for _, wrong := range []string{
		"--positions-file=/no/such/dir/p", "--dead-letter-file=/no/such/dir/d", "--log-file=/no/such/dir/l",
		"--listen-address=127.0.0.1:99999", "--loki-http-config=/no/such/file",
	} {
		stderr.Reset()
		flag, _, _ := strings.Cut(wrong, "=")
		if code := run(t.Context(), n.flags("--check-config", wrong), &stdout, &stderr); code != exitFailure || !strings.Contains(stderr.String(), flag) {
			t.Errorf("%s: exit code %d, stderr %q", wrong, code, stderr.String())
		}
	}
	if left, _ := os.ReadDir(n.dir); len(left) != 0 {
		t.Errorf("it left %v behind", left)
	}
	if n.loki.Requests() != 0 {
		t.Error("it pushed")
	}
}

func TestLostPositionsAreToldAndCostRepeatsOnly(t *testing.T) {
	n := newNode(t)
	n.listen = freeAddress(t)
	n.write("audit.log", events(0, 3)...)
	n.start()
	n.wait(3)
	n.stopped()
	for _, file := range []string{"positions.json", "positions.latest.json"} {
		if err := os.WriteFile(n.path(file), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.write("audit.log", event(3))
	n.start()
	n.wantLines(events(0, 4))
	n.waitMetric("auditferry_positions_lost", "1")
}

// Positions that cannot be written, here for a directory in the place of the temporary file, cost repeats after a crash:
// no reason not to follow.
func TestPositionsThatCannotBeWrittenDoNotStopAFirstStart(t *testing.T) {
	n := newNode(t)
	n.write("audit.log", events(0, 3)...)
	_, cfg, err := parse(n.flags(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{cfg: cfg, logger: slog.New(slog.DiscardHandler), registry: prometheus.NewRegistry()}
	if err := a.openStore(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(n.path("positions.latest.json.tmp/x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := a.openPaths(); err != nil {
		t.Error(err)
	}
	if err := a.close(); err != nil {
		t.Error(err)
	}
}

// A stop while Loki is away, both pushes are under way and more was read, must leave nothing running: it would push, and
// move positions, after they were closed.
func TestAStopDuringAnOutageLeavesNothingRunning(t *testing.T) {
	n := newNode(t)
	n.loki.Answer(func(lokitest.Request) lokitest.Reply { return lokitest.Refused(503, "away") })
	n.write("audit.log", events(0, 100)...)
	n.start("--batch-size=1KiB", "--backoff-min=1m", "--backoff-max=1m", "--shutdown-timeout=1ms")
	n.until("two pushes", func() bool { return n.loki.Requests() >= 2 })
	if code := n.stopped(); code != exitOK {
		t.Errorf("exit code %d: %s", code, n.stderr.String())
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	if bytes.Contains(stacks, []byte("(*Queue).deliver")) {
		t.Errorf("a push is still under way:\n%s", stacks)
	}
}
