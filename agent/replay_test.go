package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/auditferry/auditferry/shipper"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

// refusing is a script that refuses, with Loki's word for it, the entries whose lines hold one of the words.
func refusing(text string, words ...string) func(lokitest.Request) lokitest.Reply {
	return func(request lokitest.Request) lokitest.Reply {
		return lokitest.Refusing(request, func(e lokitest.Entry) string {
			if slices.ContainsFunc(words, func(w string) bool { return strings.Contains(e.Line, w) }) {
				return text
			}
			return ""
		})
	}
}

const behind = "entry with timestamp 2026 ignored, reason: 'entry too far behind'"

// deadNode is a node whose agent ships events 0 to 9, of which Loki refuses the even ones, and is stopped then.
func deadNode(t *testing.T) (n *node, letters string) {
	t.Helper()
	n = newNode(t)
	n.loki.Answer(refusing(behind, `id-0"`, `id-2"`, `id-4"`, `id-6"`, `id-8"`))
	n.write("audit.log", events(0, 10)...)
	n.start()
	letters = n.path("dead-letters.jsonl")
	n.wait(5)
	n.until("5 dead letters", func() bool {
		text, _ := os.ReadFile(letters)
		return bytes.Count(text, []byte("\n")) == 5
	})
	n.stopped()
	n.loki.Answer(nil)
	return n, letters
}

// replay runs the command, and gives what it says.
func (n *node) replay(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	if !slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "--loki-url=") }) {
		args = append([]string{"--loki-url=" + n.url}, args...)
	}
	code = run(n.t.Context(), append([]string{"replay", "--backoff-min=1ms", "--backoff-max=5ms"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func (n *node) deadLetterFiles() []string {
	n.t.Helper()
	files, err := filepath.Glob(n.path("dead-letters*"))
	if err != nil {
		n.t.Fatal(err)
	}
	return files
}

// What was refused, and is replayed, is what the agent would have pushed had Loki taken it at once.
func TestReplayBringsWhatWasRefused(t *testing.T) {
	n, letters := deadNode(t)
	code, stdout, stderr := n.replay(letters)
	if code != exitOK || stdout != letters+": 5 taken\n" {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if files := n.deadLetterFiles(); len(files) > 0 {
		t.Errorf("%v are left", files)
	}
	fine := newNode(t)
	fine.write("audit.log", events(0, 10)...)
	fine.start()
	want := fine.wait(10)
	fine.stopped()
	got := n.loki.Entries()
	for _, entries := range [][]lokitest.Entry{want, got} {
		slices.SortFunc(entries, func(a, b lokitest.Entry) int { return strings.Compare(a.Line, b.Line) })
		for i := range entries {
			entries[i].Count, entries[i].Acked = 0, 0 // the agent pushes a stream again if it has something refused
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("in Loki are\n%+v\nwant\n%+v", got, want)
	}
}

func TestReplayKeepsWhatIsRefusedAgain(t *testing.T) {
	n, letters := deadNode(t)
	n.write("dead-letters.jsonl", `{"time":"torn`)
	n.loki.Answer(func(request lokitest.Request) lokitest.Reply {
		if strings.Contains(request.Entries[0].Line, `id-4"`) {
			return refusing("max entry size '1' bytes exceeded", `id-4"`)(request)
		}
		return refusing(behind, `id-2"`, `id-4"`, `id-6"`)(request)
	})
	code, stdout, stderr := n.replay(letters)
	said := regexp.MustCompile(`^` + letters + `: 2 taken, 3 refused again \(line_too_long 1, too_far_behind 2\), lines that are no whole letter: 1, kept in (.*)\n$`).FindStringSubmatch(stdout)
	if code != exitFailure || said == nil || !strings.Contains(stderr, "auditferry: not all dead letters were taken: 4 are left\n") {
		t.Fatalf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if files := n.deadLetterFiles(); len(files) != 1 || files[0] != said[1] {
		t.Fatalf("the letters are in %v, said to be in %s", files, said[1])
	}
	text, err := os.ReadFile(said[1])
	if err != nil || !strings.Contains(string(text), "max entry size") || !strings.HasSuffix(string(text), "\n{\"time\":\"torn\n") {
		t.Errorf("it holds %s (%v)", text, err)
	}
	n.loki.Answer(nil)
	code, stdout, _ = n.replay(said[1])
	if code != exitFailure || !strings.HasPrefix(stdout, said[1]+": 3 taken, lines that are no whole letter: 1, kept in ") {
		t.Errorf("the second time: exit code %d, stdout %q", code, stdout)
	}
	n.wantLines(events(0, 10))
}

func TestReplayIntoNewStreams(t *testing.T) {
	n, letters := deadNode(t)
	n.replay("--add-label=replayed=x", "--add-label=node=other", letters) // refused, so nothing happens
	if code, stdout, stderr := n.replay("--add-label=replayed=x", letters); code != exitOK {
		t.Fatalf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	for _, e := range n.wait(10) {
		even := strings.ContainsAny(e.Line[strings.Index(e.Line, "id-"):][:4], "02468")
		if (e.Labels["replayed"] == "x") != even || e.Labels["node"] != "n1" {
			t.Errorf("labels %v of %.120s", e.Labels, e.Line)
		}
	}
}

// A crash between the last acknowledgement and the deletion leaves the file: it is replayed again, and Loki drops it all.
func TestReplayAgainAfterACrash(t *testing.T) {
	n, letters := deadNode(t)
	text, err := os.ReadFile(letters)
	if err != nil {
		t.Fatal(err)
	}
	n.replay(letters)
	aside := n.path("dead-letters-2026-11-24T01-40-20.123-ABCDEF.jsonl")
	if err := os.WriteFile(aside, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := n.replay(aside); code != exitOK || stdout != aside+": 5 taken\n" {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	n.wantLines(events(0, 10))
}

// A replay is stopped while Loki hangs, having refused something again before that: all letters are in the one file that it names.
func TestReplayStopped(t *testing.T) {
	n, letters := deadNode(t)
	ctx, stop := context.WithCancel(t.Context())
	n.loki.Answer(func(request lokitest.Request) lokitest.Reply {
		switch first := request.Entries[0].Line; {
		case strings.Contains(first, `id-0"`):
			return refusing("max entry size", `id-0"`)(request)
		case strings.Contains(first, `id-2"`): // so id-0 is a dead letter again
			stop()
		}
		return lokitest.Hang()
	})
	var stdout, stderr bytes.Buffer
	code := run(ctx, []string{"replay", "--loki-url=" + n.url, "--batch-size=1024", letters}, &stdout, &stderr)
	files := n.deadLetterFiles()
	if code != exitFailure || stdout.Len() > 0 || len(files) != 1 || files[0] == letters {
		t.Fatalf("exit code %d, stdout %q, files %v", code, stdout.String(), files)
	}
	want := "auditferry: " + letters + ": stopped before the end; 0 were taken, but all letters are still in " + files[0] + ": replay that file\n"
	if !strings.HasSuffix(stderr.String(), want) {
		t.Errorf("stderr %q, want %q", stderr.String(), want)
	}
	n.loki.Answer(nil)
	if code, stdout, stderr := n.replay(files...); code != exitOK || stdout != files[0]+": 5 taken\n" {
		t.Errorf("then: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	n.wantLines(events(0, 10))
}

// Letters of one stream, hours apart and more than one push may hold of it, go one after the other: side by side, a newer one could
// make Loki refuse an older one.
func TestReplayKeepsTheOrderOfWhatIsFarApart(t *testing.T) {
	n := newNode(t)
	var file bytes.Buffer
	for hour := 10; hour < 20; hour += 2 {
		err := json.NewEncoder(&file).Encode(shipper.DeadLetter{Reason: "too_old", Labels: `{job="x"}`, Event: strings.Repeat("x", 200),
			Timestamp: fmt.Sprintf("2026-11-23T%d:00:00Z", hour)})
		if err != nil {
			t.Fatal(err)
		}
	}
	letters := n.path("dead-letters.jsonl")
	if err := os.WriteFile(letters, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	like := lokitest.LikeLoki(10)
	arrived := make(chan struct{}, 10)
	n.loki.Answer(func(request lokitest.Request) lokitest.Reply {
		if request.Entries[0].Time.Hour() > 10 {
			arrived <- struct{}{}
			return like(request)
		}
		select { // let a later one pass, if there is one
		case <-arrived:
		case <-time.After(300 * time.Millisecond):
		}
		return like(request)
	})
	if code, stdout, stderr := n.replay("--loki-stream-rate=1KiB", letters); code != exitOK || stdout != letters+": 5 taken\n" {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestReplayWaitsForLoki(t *testing.T) {
	n, letters := deadNode(t)
	n.loki.Close()
	var logs syncBuffer
	exit := make(chan int, 1)
	go func() {
		args := []string{"replay", "--loki-url=" + n.url, "--backoff-min=1ms", "--backoff-max=5ms", letters}
		exit <- run(t.Context(), args, io.Discard, &logs)
	}()
	n.exit = exit
	n.until("a word about Loki", func() bool { return strings.Contains(logs.String(), "Loki does not take pushes") })
	if _, err := n.loki.Start(); err != nil {
		t.Fatal(err)
	}
	if code := <-exit; code != exitOK || !strings.Contains(logs.String(), "Loki takes pushes again") {
		t.Errorf("exit code %d, stderr %q", code, logs.String())
	}
	exit <- 0
	n.wantLines(events(0, 10))
}

// The agent runs on, and gets more refused, while what it had refused is replayed.
func TestReplayBesideARunningAgent(t *testing.T) {
	n, letters := deadNode(t)
	n.loki.Answer(refusing(behind, `id-12"`, `id-14"`))
	n.start()
	n.write("audit.log", events(10, 15)...)
	n.wait(8)
	n.until("more dead letters", func() bool {
		text, _ := os.ReadFile(letters)
		return bytes.Count(text, []byte("\n")) == 7
	})
	n.loki.Answer(refusing(behind, `id-17"`))
	if code, stdout, _ := n.replay(letters); code != exitOK || stdout != letters+": 7 taken\n" {
		t.Errorf("exit code %d, stdout %q", code, stdout)
	}
	n.write("audit.log", events(15, 19)...)
	n.wait(18)
	n.until("a new file", func() bool {
		text, _ := os.ReadFile(letters)
		return bytes.Count(text, []byte("\n")) == 1
	})
	n.stopped()
	n.loki.Answer(nil)
	if code, stdout, _ := n.replay(letters); code != exitOK || stdout != letters+": 1 taken\n" {
		t.Errorf("the new file: exit code %d, stdout %q", code, stdout)
	}
	n.wantLines(events(0, 19))
}

// What the agent's file and environment say is taken as far as it is for replay too.
func TestReplayTakesTheConfigurationOfTheAgent(t *testing.T) {
	n, letters := deadNode(t)
	file := write(t, "audit-log-path: [/no/such.log]\nloki-url: http://wrong:1\nloki-tenant-id: mine\nlabel: {env: prod}\nlisten-address: nonsense\n")
	t.Setenv("AUDITFERRY_LOKI_URL", n.url)
	t.Setenv("AUDITFERRY_DRY_RUN", "true")
	tenant := ""
	n.loki.Answer(func(request lokitest.Request) lokitest.Reply {
		tenant = request.Tenant
		return lokitest.OK()
	})
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"--config=" + file, "replay", letters}, &stdout, &stderr); code != exitOK || tenant != "mine" {
		t.Errorf("exit code %d, tenant %q, stderr %q", code, tenant, stderr.String())
	}
	for _, e := range n.wait(10) {
		if e.Labels["env"] != "" {
			t.Errorf("a label of the configuration was added: %v", e.Labels)
		}
	}
}

func TestReplayUsedWronglyTouchesNothing(t *testing.T) {
	n, letters := deadNode(t)
	empty := n.path("empty.jsonl")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	file := write(t, "add-lable: {a: b}\n")
	before := n.deadLetterFiles()
	for _, tt := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"no file", nil, exitUsage, []string{"<file>", "auditferry replay --help"}},
		{"no Loki", []string{"--loki-url=", letters}, exitUsage, []string{"--loki-url is missing"}},
		{"a flag of the agent", []string{"--dry-run", letters}, exitUsage, []string{"--dry-run"}},
		{"a label of ours", []string{"--add-label=verb=x", letters}, exitUsage, []string{"--add-label", "verb"}},
		{"a label that Loki refuses", []string{"--add-label=a-b=x", letters}, exitUsage, []string{"--add-label", "a-b"}},
		{"too small", []string{"--batch-size=1", letters}, exitUsage, []string{"--batch-size"}},
		{"unknown key", []string{"--config=" + file, letters}, exitUsage, []string{file + ":1", "add-lable"}},
		{"missing", []string{letters, n.path("absent")}, exitFailure, []string{"absent", "no such file"}},
		{"directory", []string{letters, n.dir}, exitFailure, []string{n.dir, "not a file"}},
		{"empty", []string{empty}, exitFailure, []string{empty, "empty"}},
		{"audit log", []string{letters, n.path("audit.log")}, exitFailure, []string{"audit.log", "not a dead-letter file"}},
		{"HTTP configuration", []string{"--loki-http-config=" + n.path("absent"), letters}, exitFailure, []string{"--loki-http-config", "absent"}},
		{"a certificate that is missing", []string{"--loki-http-config=" + write(t, "tls_config: {ca_file: /no/such/ca}\n"), letters}, exitFailure, []string{"/no/such/ca"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := n.replay(tt.args...)
			if code != tt.code || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "auditferry: ") {
				t.Errorf("exit code %d, want %d; stdout %q, stderr %q", code, tt.code, stdout, stderr)
			}
			for _, word := range tt.want {
				if !strings.Contains(stderr, word) {
					t.Errorf("%q does not say %q", stderr, word)
				}
			}
			if after := n.deadLetterFiles(); !slices.Equal(before, after) {
				t.Errorf("there were %v, there are %v", before, after)
			}
		})
	}
}

// Files that have nothing, as a replay or a full disk leaves them, do not keep the others of a glob from being replayed.
func TestReplayPassesOverFilesWithoutLetters(t *testing.T) {
	n, letters := deadNode(t)
	empty, torn := n.path("dead-letters-2026-11-23T20-00-00.000.jsonl"), n.path("dead-letters-2026-11-23T20-00-00.000-ABCDEF.jsonl")
	for path, text := range map[string]string{empty: "", torn: `{"time":"2026`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	code, stdout, stderr := n.replay(empty, torn, letters)
	if code != exitFailure || stdout != letters+": 5 taken\n" || !strings.Contains(stderr, empty) || !strings.Contains(stderr, torn) {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	for _, path := range []string{empty, torn} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

func TestReplayHelpIsItsOwn(t *testing.T) {
	for _, args := range [][]string{{"replay", "--help"}, {"--loki-url=http://loki:3100", "replay", "--help"}} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), args, &stdout, &stderr); code != exitOK || stderr.Len() > 0 {
			t.Fatalf("exit code %d, stderr %q", code, stderr.String())
		}
		help := stdout.String()
		for _, want := range []string{"auditferry replay <file> ...", "--loki-url=", "--add-label=", "too_far_behind", "Default: 10s", "--config="} {
			if !strings.Contains(help, want) {
				t.Errorf("it does not say %q", want)
			}
		}
		for _, other := range []string{"--audit-log-path", "--check-config", "--positions-file", "--node"} {
			if strings.Contains(help, other) {
				t.Errorf("it tells %q, which means nothing to replay", other)
			}
		}
	}
}

// A syncBuffer is written by one goroutine and read by another.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
