package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

// node is a control-plane node: a directory of audit logs, a Loki, and an agent that runs in this process.
type node struct {
	t      *testing.T
	dir    string
	loki   *lokitest.Server
	url    string
	listen string
	now    func() time.Time

	stop   context.CancelFunc
	exit   chan int
	stderr bytes.Buffer // read after stopped
}

func newNode(t *testing.T) *node {
	n := &node{t: t, dir: t.TempDir(), loki: lokitest.New(), now: func() time.Time { return eventsBegin.Add(time.Minute) }}
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
	go func() { n.exit <- n.run(ctx, io.Discard, &n.stderr, more...) }()
	n.t.Cleanup(func() { n.stopped() })
}

// run runs the program by the clock of the node.
func (n *node) run(ctx context.Context, stdout, stderr io.Writer, more ...string) int {
	return runAt(ctx, n.now, n.flags(more...), stdout, stderr)
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

// eventsBegin is the time of event 0; each is a microsecond after the one before it.
var eventsBegin = time.Date(2026, 11, 23, 20, 0, 0, 0, time.UTC)

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
