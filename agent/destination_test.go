package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/auditferry/auditferry/positions"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

// alone is the Loki of n by itself, to compare what is there.
func (n *node) alone() *node { return &node{t: n.t, dir: n.dir, loki: n.loki, url: n.url} }

// second is a Loki of its own for the agent of n.
func (n *node) second() *node {
	other := newNode(n.t)
	other.dir = n.dir
	return other
}

// startWith starts the agent of n with destinations in this order.
func (n *node) startWith(destinations []*node, more ...string) {
	n.t.Helper()
	n.url = destinations[0].url
	for _, d := range destinations[1:] {
		more = append(more, "--loki-url="+d.url)
	}
	n.start(more...)
}

// rotate begins a new audit log and gives the name of the old one.
func (n *node) rotate(i int) string {
	name := fmt.Sprintf("audit-2026-11-23T20-00-0%d.000.log", i)
	n.rename("audit.log", name)
	return name
}

// throughRotation writes 10 events into each of files, of which all but the last two are deleted again, while up gets them.
func throughRotation(n, up *node, files int) {
	var backups []string
	for i := range files {
		n.write("audit.log", events(i*10, i*10+10)...)
		up.wait((i + 1) * 10)
		if i < files-1 {
			backups = append(backups, n.rotate(i))
		}
		if i > 1 {
			n.remove(backups[i-2])
		}
	}
}

// One of two destinations is away for the whole run: the other gets everything, and no gap is told to it.
func TestADestinationThatIsDownHoldsNobodyBack(t *testing.T) {
	for _, downFirst := range []bool{true, false} {
		t.Run(fmt.Sprintf("downFirst=%v", downFirst), func(t *testing.T) {
			n := newNode(t)
			n.listen = freeAddress(t)
			down, up := n.alone(), n.second()
			down.loki.Close()
			both := []*node{down, up}
			if !downFirst {
				slices.Reverse(both)
			}
			args := []string{"--batch-size=1KiB", "--shutdown-timeout=10ms"}
			n.startWith(both, args...)
			throughRotation(n, up, 6)
			n.waitMetric(fmt.Sprintf("auditferry_lag_bytes{loki=%q,path=%q}", up.host(), n.path("audit.log")), "0")
			n.waitMetric(fmt.Sprintf("auditferry_loki_up{loki=%q}", down.host()), "0")
			if code := n.stopped(); code != exitOK {
				t.Fatalf("exit code %d: %s", code, n.stderr.String())
			}
			up.wantOthers(events(0, 60))
			up.wantGaps()

			// It comes back after a restart: it gets what is on disk, and is told of what is not. The other gets nothing again.
			arrived := up.loki.Arrivals()
			if _, err := down.loki.Start(); err != nil {
				t.Fatal(err)
			}
			n.startWith(both, args...)
			down.wantOthers(events(40, 60))
			down.wantGaps(fmt.Sprintf(`{"gap":"position_file_gone","node":"n1","path":%q,"first_event":"2026-11-23T20:00:00.00004Z"}`, n.path("audit.log")))
			n.write("audit.log", events(60, 65)...)
			down.wantOthers(events(40, 65))
			up.wantOthers(events(0, 65))
			up.wantGaps()
			if code := n.stopped(); code != exitOK {
				t.Fatalf("exit code %d: %s", code, n.stderr.String())
			}
			if repeats := up.loki.Arrivals() - arrived - 5; repeats != 0 {
				t.Errorf("%d entries were sent again to the one that has them", repeats)
			}
			for key := range n.positionsOf() {
				if key != n.path("audit.log")+arrow+up.address() && key != n.path("audit.log")+arrow+down.address() {
					t.Errorf("there is a position for %s", key)
				}
			}
		})
	}
}

// Deleted backups are held open for the destination that has not got them.
func TestADestinationThatComesBackGetsWhatWasDeletedMeanwhile(t *testing.T) {
	n := newNode(t)
	up := n.second()
	n.loki.Close()
	n.start("--loki-url="+up.url, "--batch-size=1KiB")
	throughRotation(n, up, 6)
	if _, err := n.loki.Start(); err != nil {
		t.Fatal(err)
	}
	n.wantOthers(events(0, 60))
	n.wantGaps()
	up.wantOthers(events(0, 60))
}

// At a stop, what one destination is waited for does not keep from another what was read.
func TestADestinationThatHangsDoesNotKeepTheOtherFromFinishing(t *testing.T) {
	n := newNode(t)
	slow, up := n.alone(), n.second()
	n.listen = freeAddress(t)
	hold := make(chan struct{})
	slow.loki.Answer(func(lokitest.Request) lokitest.Reply { return lokitest.After(hold, lokitest.OK()) })
	n.startWith([]*node{slow, up}, "--batch-wait=1h", "--shutdown-timeout=1h")
	n.write("audit.log", events(0, 5)...)
	for _, d := range []*node{slow, up} {
		n.waitMetric(fmt.Sprintf(`auditferry_read_lines_total{loki=%q,path=%q}`, d.host(), n.path("audit.log")), "5")
	}
	n.stop()
	up.wantOthers(events(0, 5))
	close(hold)
	if code := n.stopped(); code != exitOK {
		t.Fatalf("exit code %d: %s", code, n.stderr.String())
	}
	for _, d := range []*node{slow, up} {
		if p := n.positionsOf()[n.path("audit.log")+arrow+d.address()]; p.LSN != n.size("audit.log") || p.Destination != d.address() {
			t.Errorf("the position for %s is %+v, want the end, %d", d.url, p, n.size("audit.log"))
		}
	}
}

func (n *node) host() string    { return strings.TrimPrefix(n.url, "http://") }
func (n *node) address() string { return n.url + "/loki/api/v1/push" }

// positionsOf is what a restart would begin with.
func (n *node) positionsOf() map[string]positions.Position {
	n.t.Helper()
	s, err := positions.Open(positions.Config{File: n.path("positions.json"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		n.t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	all := make(map[string]positions.Position)
	for _, key := range s.Paths() {
		all[key], _ = s.Position(key)
	}
	return all
}

// Every row of the table of destination.key.
func TestWhereADestinationGoesOn(t *testing.T) {
	const (
		path = "/var/log/audit.log"
		a    = "http://a/loki/api/v1/push"
		b    = "http://b/loki/api/v1/push"
		c    = "http://c/loki/api/v1/push"
	)
	own := func(address string) string { return path + arrow + address }
	of := func(address string, lsn int64) positions.Position {
		return positions.Position{LSN: lsn, Destination: address}
	}
	for _, tt := range []struct {
		name string
		held map[string]positions.Position
		urls []string
		want map[string]positions.Position // by key, of those that go on; the others begin
		kept map[string]positions.Position // what is held then
	}{
		{"one, own", map[string]positions.Position{path: of(b, 1), own(a): of(a, 2)}, []string{"http://a"},
			map[string]positions.Position{own(a): of(a, 2)}, nil},
		{"one, that of the path", map[string]positions.Position{path: of(a, 1)}, []string{"http://a"},
			map[string]positions.Position{path: of(a, 1)}, nil},
		{"one, that of the path for another", map[string]positions.Position{path: of(b, 1), own(b): of(b, 2)}, []string{"http://a"},
			map[string]positions.Position{path: of(b, 1)}, nil},
		{"one, that of an older agent", map[string]positions.Position{path: of("", 1)}, []string{"http://a"},
			map[string]positions.Position{path: of("", 1)}, nil},
		{"one, none", map[string]positions.Position{own(b): of(b, 2)}, []string{"http://a"},
			map[string]positions.Position{path: {}}, nil},
		{"several, own", map[string]positions.Position{path: of(a, 1), own(a): of(a, 2), own(b): of(b, 3)}, []string{"http://b", "http://a"},
			map[string]positions.Position{own(a): of(a, 2), own(b): of(b, 3)}, nil},
		{"several, own of which an older agent forgot whose it is", map[string]positions.Position{path: of("", 9), own(a): of("", 2), own(b): of("", 3)},
			[]string{"http://b", "http://a"}, map[string]positions.Position{own(a): of("", 2), own(b): of("", 3)}, nil},
		{"several, that of the path", map[string]positions.Position{path: of(b, 1)}, []string{"http://a", "http://b"},
			map[string]positions.Position{own(a): {}, own(b): of(b, 1)},
			map[string]positions.Position{path: of(b, 1), own(b): of(b, 1)}},
		{"several, that of the path for another", map[string]positions.Position{path: of(c, 1)}, []string{"http://a", "http://b"},
			map[string]positions.Position{own(a): {}, own(b): {}},
			map[string]positions.Position{path: of(c, 1)}},
		{"several, that of an older agent", map[string]positions.Position{path: of("", 1)}, []string{"http://b", "http://a"},
			map[string]positions.Position{own(b): of(b, 1), own(a): {}},
			map[string]positions.Position{path: of(b, 1), own(b): of(b, 1)}},
		{"several, that of an older agent beside their own", map[string]positions.Position{path: of("", 1), own(c): of("", 2)}, []string{"http://a", "http://b"},
			map[string]positions.Position{own(a): {}, own(b): {}},
			map[string]positions.Position{path: of("", 1), own(c): of("", 2)}},
		{"several, none", nil, []string{"http://a", "http://b"},
			map[string]positions.Position{own(a): {}, own(b): {}}, map[string]positions.Position{}},
		{"several, another path's", map[string]positions.Position{path + ".2": of(a, 1), path + ".2" + arrow + a: of(a, 1)}, []string{"http://a", "http://b"},
			map[string]positions.Position{own(a): {}, own(b): {}}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t)
			s, err := positions.Open(positions.Config{File: n.path("positions.json"), Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			for key, p := range tt.held {
				if err := s.Commit(key, p); err != nil {
					t.Fatal(err)
				}
			}
			logs := new(syncBuffer)
			agent := &agent{cfg: &Config{pushConfig: pushConfig{LokiURL: tt.urls}, stateConfig: stateConfig{DeadLetterFile: n.path("d.jsonl")}}, store: s,
				logger: slog.New(slog.NewTextHandler(logs, nil)), registry: prometheus.NewRegistry()}
			targets, err := agent.cfg.targets()
			if err != nil {
				t.Fatal(err)
			}
			got := make(map[string]positions.Position)
			for _, target := range targets {
				d, err := agent.newDestination(target)
				if err != nil {
					t.Fatal(err)
				}
				p, err := d.position(path)
				if err != nil {
					t.Fatal(err)
				}
				if p == nil {
					p = &positions.Position{}
				}
				got[d.key(path)] = *p
				d.client.Close()
			}
			if !same(got, tt.want) {
				t.Errorf("they go on from %v, want %v", got, tt.want)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if tt.kept == nil {
				tt.kept = tt.held
			}
			if kept := n.positionsOf(); !same(kept, tt.kept) {
				t.Errorf("then there are %v, want %v", kept, tt.kept)
			}
			guessed := strings.Contains(logs.String(), "the first --loki-url goes on")
			if want := tt.name == "several, that of an older agent"; guessed != want {
				t.Errorf("the log: %s", logs.String())
			}
		})
	}
}

func same(a, b map[string]positions.Position) bool {
	for key, p := range a {
		if q, ok := b[key]; !ok || !p.Equal(q) {
			return false
		}
	}
	return len(a) == len(b)
}

// From one Loki to two, to either alone, and back to both: each gets everything once.
func TestDestinationsComeAndGo(t *testing.T) {
	n := newNode(t)
	a, b := n.alone(), n.second()
	written := 0
	for _, destinations := range [][]*node{{a}, {b, a}, {b}, {a}, {a, b}} {
		n.write("audit.log", events(written, written+10)...)
		written += 10
		n.startWith(destinations)
		for _, d := range destinations {
			d.wantOthers(events(0, written))
		}
		if code := n.stopped(); code != exitOK {
			t.Fatalf("exit code %d: %s", code, n.stderr.String())
		}
	}
	for _, d := range []*node{a, b} {
		d.wantGaps()
		if repeats := d.loki.Arrivals() - len(d.loki.Entries()); repeats != 0 {
			t.Errorf("%d entries were sent again", repeats)
		}
	}
}

func TestStateIsServedOfEachDestination(t *testing.T) {
	n := newNode(t)
	up := n.second()
	n.listen = freeAddress(t)
	n.loki.Answer(func(lokitest.Request) lokitest.Reply { return lokitest.Refused(401, "no org id") })
	n.write("audit.log", event(0))
	n.start("--loki-url="+up.url, "--shutdown-timeout=0s")
	n.waitMetric(fmt.Sprintf("auditferry_loki_up{loki=%q}", n.host()), "0")
	n.waitMetric(fmt.Sprintf("auditferry_lag_bytes{loki=%q,path=%q}", up.host(), n.path("audit.log")), "0")
	n.waitMetric(fmt.Sprintf("auditferry_rotations_total{loki=%q,path=%q}", up.host(), n.path("audit.log")), "0")
	n.waitMetric(fmt.Sprintf("auditferry_loki_up{loki=%q}", up.host()), "1")
	if code, body := n.get("/readyz"); code != 503 || !strings.Contains(body, n.url) || strings.Contains(body, up.url) {
		t.Errorf("/readyz while one refuses: %d %q", code, body)
	}
	n.loki.Answer(nil)
	n.waitMetric(fmt.Sprintf("auditferry_loki_up{loki=%q}", n.host()), "1")
	if code, body := n.get("/readyz"); code != 200 {
		t.Errorf("/readyz: %d %q", code, body)
	}
	n.stopped()
	for _, want := range []string{"loki=\"" + n.url + " " + up.url + "\"", `msg="the first events are shipped" loki=` + up.url} {
		if !strings.Contains(n.stderr.String(), want) {
			t.Errorf("the log does not say %s:\n%s", want, n.stderr.String())
		}
	}
}

// What is wrong with a path is wrong for each destination, and told once.
func TestTroubleWithAPathIsToldOnce(t *testing.T) {
	n := newNode(t)
	n.listen = freeAddress(t)
	dir := n.path("logs")
	n.start("--loki-url=http://127.0.0.1:1", "--audit-log-path="+filepath.Join(dir, "audit.log"))
	n.waitMetric(`auditferry_loki_up{loki="127.0.0.1:1"}`, "1")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file where the directory is to be
		t.Fatal(err)
	}
	for _, loki := range []string{n.host(), "127.0.0.1:1"} {
		n.waitMetric(fmt.Sprintf("auditferry_unreadable{loki=%q,path=%q}", loki, filepath.Join(dir, "audit.log")), "1")
	}
	if _, body := n.get("/readyz"); strings.Count(body, dir) != 1 {
		t.Errorf("/readyz: %q", body)
	}
}

// Each destination has its own dead letters, which are replayed to it.
func TestDeadLettersOfOneDestination(t *testing.T) {
	n := newNode(t)
	up := n.second()
	n.loki.Answer(refusing(behind, `id-1"`))
	n.write("audit.log", events(0, 3)...)
	n.start("--loki-url=" + up.url)
	up.wantLines(events(0, 3))
	letters := n.path("dead-letters." + strings.ReplaceAll(n.host(), ":", "_") + ".jsonl")
	n.until("a dead letter", func() bool {
		text, _ := os.ReadFile(letters)
		return strings.HasSuffix(string(text), "\n")
	})
	n.stopped()
	if files := n.deadLetterFiles(); !slices.Equal(files, []string{letters}) {
		t.Errorf("dead letters in %v", files)
	}
	n.loki.Answer(nil)
	config := write(t, fmt.Sprintf("loki-url: [%q, %q]\n", up.url, n.url))
	if code, stdout, stderr := n.replay("--config="+config, letters); code != exitOK || stdout != letters+": 1 taken\n" {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	n.wantLines(events(0, 3))
}

func TestCheckConfigOfEachDestination(t *testing.T) {
	n := newNode(t)
	for _, dir := range []string{"dead-letters.a.jsonl", "dead-letters.b_1.jsonl"} {
		if err := os.Mkdir(n.path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
		args := []string{"--audit-log-path=" + n.path("audit.log"), "--positions-file=" + n.path("positions.json"), "--check-config",
			"--loki-url=http://a", "--loki-url=http://b:1"}
		var stderr bytes.Buffer
		if code := run(t.Context(), args, io.Discard, &stderr); code != exitFailure || !strings.Contains(stderr.String(), dir) {
			t.Errorf("%s: exit code %d, stderr %q", dir, code, stderr.String())
		}
		n.remove(dir)
		stderr.Reset()
		args = append(args, "--loki-http-config=", "--loki-http-config=/no/such/file")
		if code := run(t.Context(), args, io.Discard, &stderr); code != exitFailure || !strings.Contains(stderr.String(), "--loki-http-config=/no/such/file") {
			t.Errorf("exit code %d, stderr %q", code, stderr.String())
		}
	}
}
