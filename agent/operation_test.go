package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/auditferry/auditferry/positions"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

func TestLagIsTheAgeOfTheOldestUnacknowledgedEvent(t *testing.T) {
	m := newPathMetrics(prometheus.NewRegistry(), "a", positions.Position{}, func() int64 { return 0 },
		func(time.Time) time.Duration { return 0 }, nil)
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
	if code := n.run(t.Context(), &stdout, &stderr, "--dry-run"); code != exitOK {
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
	dir := t.TempDir()
	for _, wrong := range []string{
		"--positions-file=" + dir, "--dead-letter-file=" + dir,
		"--loki-http-config=" + write(t, "basic_auth: {username: a, password_file: /no/such/password}\n"),
		"--loki-http-config=" + write(t, "tls_config: {ca_file: /no/such/ca}\n"),
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
	for _, file := range []string{"positions.json", "positions.latest.json", "positions.latest2.json"} {
		if err := os.WriteFile(n.path(file), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.write("audit.log", event(3))
	n.start()
	n.wantLines(events(0, 4))
	n.waitMetric("auditferry_positions_lost", "1")
}

// Positions that cannot be written, here for directories in their place, cost repeats after a crash:
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
	for _, file := range []string{"positions.latest.json/x", "positions.latest2.json/x"} {
		if err := os.MkdirAll(n.path(file), 0o700); err != nil {
			t.Fatal(err)
		}
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
