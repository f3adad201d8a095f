package positions

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	testFile    = "/data/positions.json"
	latestFile  = "/data/positions.latest.json"
	latest2File = "/data/positions.latest2.json"
)

var testTime = time.Date(2026, 11, 23, 20, 33, 23, 92_000_000, time.UTC)

func testNow() time.Time { return testTime }

func testConfig() Config {
	return Config{File: testFile, Logger: slog.New(slog.DiscardHandler)}
}

// at gives the position of a path after n of its bytes.
func at(path string, n int64) Position {
	return Position{
		FirstLine: Hash{byte(len(path)), byte(n >> 8)},
		Offset:    n % 1000,
		LSN:       n,
		Name:      "audit.log",
		Inode:     uint64(7 + n/1000),
		EventTime: testTime.Add(time.Duration(n) * time.Microsecond),
		Others:    map[Hash]int64{{1, byte(n)}: n, {2}: 1 << 40},
		Gap:       &Gap{Reason: "deleted", Last: testTime, Files: 1, Bytes: n},
		Old:       &Stretch{Last: testTime, Skipped: n, Files: 1},
		Restamp:   &Restamp{Old: testTime.Add(time.Duration(n) * time.Microsecond)},
	}
}

func same(a, b map[string]Position) bool { return maps.EqualFunc(a, b, Position.Equal) }

// step is one act of the agent: "open", "kill" (of the process, then open), "close", "sync", or "commit" of a path.
type step struct {
	act  string
	path string
	lsn  int64
}

const pathA, pathB = "/audit/a.log", "/audit/bb.log"

// life is two lives of an agent, one ended by SIGKILL.
var life = []step{
	{act: "open"},
	{act: "commit", path: pathA, lsn: 100},
	{act: "commit", path: pathB, lsn: 900},
	{act: "sync"},
	{act: "commit", path: pathA, lsn: 1200},
	{act: "commit", path: pathA, lsn: 1300},
	{act: "sync"},
	{act: "commit", path: pathB, lsn: 2000},
	{act: "kill"},
	{act: "commit", path: pathA, lsn: 2400},
	{act: "sync"},
	{act: "sync"},
	{act: "commit", path: pathB, lsn: 2500},
	{act: "close"},
}

// ledger is what a crash may not take back.
type ledger struct {
	// acknowledged are the LSNs ever given to Commit: nothing else may come up.
	acknowledged map[string][]int64
	// committed are those of the Commits that returned nil, which SIGKILL must not lose; synced those of the Syncs that
	// did, which power loss must not lose.
	committed, synced map[string]int64
}

func newLedger() *ledger {
	return &ledger{map[string][]int64{}, map[string]int64{}, map[string]int64{}}
}

func (l *ledger) opened(s *Store) {
	for path, p := range s.held {
		l.committed[path], l.synced[path] = p.LSN, p.LSN
	}
}

// check compares what a new agent finds in a directory with the least that it must find.
func (l *ledger) check(content map[string][]byte, least map[string]int64) error {
	s, err := open(testConfig(), newMemFS(content), testNow)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if s.Lost() && len(least) > 0 {
		return fmt.Errorf("positions lost, want at least %v", least)
	}
	for path, lsn := range least {
		if s.held[path].LSN < lsn {
			return fmt.Errorf("lsn %d of %s, want at least %d", s.held[path].LSN, path, lsn)
		}
	}
	for path, p := range s.held {
		if !slices.Contains(l.acknowledged[path], p.LSN) || !p.Equal(at(path, p.LSN)) {
			return fmt.Errorf("position %+v of %s was never acknowledged", p, path)
		}
	}
	return nil
}

// live goes through the steps until one fails, as all do after a crash.
func live(m *memFS, steps []step, l *ledger) error {
	var s *Store
	for _, step := range steps {
		var err error
		switch step.act {
		case "kill":
			clear(m.locked)
			fallthrough
		case "open":
			if s, err = open(testConfig(), m, testNow); err == nil {
				l.opened(s)
			}
		case "commit":
			l.acknowledged[step.path] = append(l.acknowledged[step.path], step.lsn)
			if err = s.Commit(step.path, at(step.path, step.lsn)); err == nil {
				l.committed[step.path] = step.lsn
			}
		case "sync":
			if err = s.Sync(); err == nil {
				l.synced = maps.Clone(l.committed)
			}
		case "close":
			if err = s.Close(); err == nil {
				l.synced = maps.Clone(l.committed)
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", step.act, err)
		}
	}
	return nil
}

// crashes runs the steps once for each call that they make, crashes before that call, and hands over what is then there.
// It gives the number of crashes.
func crashes(content map[string][]byte, before *ledger, steps []step, lying string, examine func(*memFS, *ledger)) int {
	for n := 0; ; n++ {
		m := newMemFS(content)
		m.lying = lying
		m.intercept = func(i int, _, _ string) error {
			if i >= n {
				return errCrash
			}
			return nil
		}
		l := &ledger{maps.Clone(before.acknowledged), maps.Clone(before.committed), maps.Clone(before.synced)}
		err := live(m, steps, l)
		examine(m, l)
		if err == nil {
			return n
		}
	}
}

func TestSIGKILLAtEveryCall(t *testing.T) {
	n := crashes(nil, newLedger(), life, "", func(m *memFS, l *ledger) {
		if err := l.check(m.killed(), l.committed); err != nil {
			t.Errorf("killed after %q: %v", last(m), err)
		}
	})
	if n < 60 {
		t.Errorf("only %d crashes: the script does not reach the file system", n)
	}
}

func TestPowerLossAtEveryCall(t *testing.T) {
	states := 0
	n := crashes(nil, newLedger(), life, "", func(m *memFS, l *ledger) {
		for content := range m.powerLosses {
			states++
			if err := l.check(content, l.synced); err != nil {
				t.Fatalf("power lost after %q: %v\n%s", last(m), err, show(content))
			}
		}
	})
	t.Logf("%d crashes, %d states of the disk", n, states)
	if states < 1000 {
		t.Errorf("only %d states of the disk: the model loses too little", states)
	}
}

// A second power loss, or SIGKILL, while the agent recovers from a first.
func TestPowerLossTwice(t *testing.T) {
	first := []step{
		{act: "open"},
		{act: "commit", path: pathA, lsn: 100},
		{act: "sync"},
		{act: "commit", path: pathA, lsn: 1200},
		{act: "sync"},
	}
	second := []step{{act: "open"}}
	seen := map[string]bool{}
	states := 0
	crashes(nil, newLedger(), first, "", func(m *memFS, l *ledger) {
		for content := range m.powerLosses {
			key := outline(content) + fmt.Sprint(l.synced)
			if seen[key] {
				continue
			}
			seen[key] = true
			survived := &ledger{l.acknowledged, l.synced, l.synced}
			crashes(content, survived, second, "", func(m *memFS, l *ledger) {
				if err := l.check(m.killed(), l.synced); err != nil {
					t.Fatalf("killed after %q: %v\n%s", last(m), err, show(content))
				}
				for content := range m.powerLosses {
					states++
					if err := l.check(content, l.synced); err != nil {
						t.Fatalf("power lost again after %q: %v\n%s", last(m), err, show(content))
					}
				}
			})
		}
	})
	t.Logf("%d states after the first, %d after the second", len(seen), states)
}

// The model must be able to find what it is for: without either fsync, some power loss takes back a Sync.
func TestPowerLossFindsMissingSync(t *testing.T) {
	for _, lying := range []string{"sync", "syncdir"} {
		t.Run(lying, func(t *testing.T) {
			found := false
			crashes(nil, newLedger(), life[:7], lying, func(m *memFS, l *ledger) {
				for content := range m.powerLosses {
					if found = found || l.check(content, l.synced) != nil; found {
						return
					}
				}
			})
			if !found {
				t.Errorf("no power loss does harm when %s does nothing", lying)
			}
		})
	}
}

// What the package comment says of one Sync and one Commit, call by call.
func TestOrderOfCalls(t *testing.T) {
	m := newMemFS(nil)
	s, err := open(testConfig(), m, testNow)
	if err != nil {
		t.Fatal(err)
	}
	first, second, temporary := latestFile, latest2File, testFile+".tmp"
	commit := func(lsn int64) func() error { return func() error { return s.Commit(pathA, at(pathA, lsn)) } }
	for _, test := range []struct {
		name string
		do   func() error
		want []string
	}{
		{"commit", commit(100), []string{"open " + first, "size " + first, "overwrite " + first}},
		{"the same again", commit(100), nil},
		{"another", commit(200), []string{"open " + second, "size " + second, "overwrite " + second}},
		{"third", commit(300), []string{"overwrite " + first}},
		{"fourth", commit(400), []string{"overwrite " + second}},
		{"sync", s.Sync, []string{"create " + temporary, "write " + temporary, "sync " + temporary,
			"close " + temporary, "rename " + temporary, "syncdir /data", "size " + first, "size " + second}},
		{"no news", s.Sync, []string{"size " + first, "size " + second}},
		{"close", s.Close, []string{"close " + first, "close " + second}},
		{"close again", s.Close, nil},
	} {
		m.calls = nil
		if err := test.do(); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if !slices.Equal(m.calls, test.want) {
			t.Errorf("%s: calls %q, want %q", test.name, m.calls, test.want)
		}
	}
	if got, want := slices.Sorted(maps.Keys(m.live)), []string{testFile, first, second}; !slices.Equal(got, want) {
		t.Errorf("left behind: %v, want %v", got, want)
	}
}

// last gives the call before the crash.
func last(m *memFS) string {
	if len(m.calls) < 2 {
		return "nothing"
	}
	return m.calls[len(m.calls)-2]
}

// outline is alike for contents that Open takes alike: what damages a file does not matter to it.
func outline(content map[string][]byte) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(content)) {
		d, err := decode(content[name])
		fmt.Fprintf(&b, "%s: whole=%t, %d", name, err == nil, d.Generation)
		for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
			fmt.Fprintf(&b, ", %s %d", path, d.Paths[path].LSN)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func show(content map[string][]byte) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(content)) {
		_, _ = io.WriteString(&b, fmt.Sprintf("%s: %q\n", name, content[name]))
	}
	return b.String()
}
