package positions

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

var faults = []syscall.Errno{syscall.ENOSPC, syscall.EIO, syscall.EROFS}

// work is what an agent does after Open; the calls of Commit and Sync in it are those that fail.
var work = []step{
	{act: "commit", path: pathA, lsn: 1200},
	{act: "commit", path: pathB, lsn: 1300},
	{act: "sync"},
	{act: "commit", path: pathA, lsn: 1400},
	{act: "sync"},
}

// A fault at one call, and one that lasts from that call on, while the agent goes on as if nothing happened.
func TestFaultAtEveryCall(t *testing.T) {
	for _, fault := range faults {
		for _, lasting := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, lasting=%t", fault, lasting), func(t *testing.T) {
				n := 0
				for ; faultAt(t, n, fault, lasting); n++ {
				}
				if n < 20 {
					t.Errorf("only %d calls could fail", n)
				}
			})
		}
	}
}

// faultAt lets the n-th call of the work fail, and reports whether there is one.
func faultAt(t *testing.T, n int, fault syscall.Errno, lasting bool) bool {
	t.Helper()
	m, l := newMemFS(nil), newLedger()
	if err := live(m, []step{{act: "open"}, {act: "commit", path: pathA, lsn: 100}, {act: "close"}}, l); err != nil {
		t.Fatal(err)
	}
	s, err := open(testConfig(), m, testNow)
	if err != nil {
		t.Fatal(err)
	}
	m.calls = nil
	m.intercept = func(i int, _, _ string) error {
		if i == n || lasting && i > n {
			return fault
		}
		return nil
	}
	var failures []error
	for _, step := range work {
		err := doStep(s, step, l)
		if err != nil {
			failures = append(failures, err)
			if !errors.Is(err, fault) || !strings.Contains(err.Error(), "/data/positions.") || strings.Contains(err.Error(), "\n") {
				t.Errorf("call %d, %s: error %q does not name the file and %v in one line", n, m.calls[n], err, fault)
			}
		}
		if err := l.check(m.killed(), l.synced); err != nil {
			t.Errorf("call %d, %s: a fault harmed the files: %v", n, m.calls[n], err)
		}
		if step.act == "sync" && fault == faults[0] { // to Sync they are all alike
			powerLossesAfter(t, m, l)
		}
	}
	if len(m.calls) <= n {
		return false
	}
	if len(failures) == 0 && !strings.HasPrefix(m.calls[n], "size ") { // a file that is not found is made anew
		t.Errorf("call %d, %s: failed and nobody was told", n, m.calls[n])
	}
	if !lasting {
		noLitter(t, m)
	}
	m.intercept = nil // the disk is well again: what is held comes to it without news, and then with news
	for _, step := range []step{{act: "commit", path: pathB, lsn: 1300}, {act: "sync"}} {
		if err := doStep(s, step, l); err != nil {
			t.Errorf("call %d: after the fault: %v", n, err)
		}
	}
	checkFiles(t, m, s, n)
	for _, step := range []step{{act: "commit", path: pathB, lsn: 1500}, {act: "sync"}} {
		if err := doStep(s, step, l); err != nil {
			t.Errorf("call %d: after the fault: %v", n, err)
		}
	}
	checkFiles(t, m, s, n)
	if a, b := s.held[pathA], s.held[pathB]; a.LSN != 1400 || b.LSN != 1500 {
		t.Errorf("call %d: held at the end is %v", n, s.held)
	}
	return true
}

// checkFiles fails the test unless the durable file and the latest one written last hold what the store does.
func checkFiles(t *testing.T, m *memFS, s *Store, n int) {
	t.Helper()
	noLitter(t, m)
	for _, name := range []string{testFile, s.latest.files[1-s.latest.next].path} {
		if m.live[name] == nil {
			t.Errorf("call %d: there is no %s", n, name)
			continue
		}
		if got, err := decode(m.live[name].data); err != nil || !same(got.Paths, s.held) {
			t.Errorf("call %d: %s holds %v (%v), want %v", n, name, got.Paths, err, s.held)
		}
	}
}

func powerLossesAfter(t *testing.T, m *memFS, l *ledger) {
	t.Helper()
	for content := range m.powerLosses {
		if err := l.check(content, l.synced); err != nil {
			t.Fatalf("after a fault and a power loss: %v, calls %q", err, m.calls)
		}
	}
}

func doStep(s *Store, step step, l *ledger) error {
	if step.act == "sync" {
		err := s.Sync()
		if err == nil {
			for path, p := range s.held {
				l.synced[path] = p.LSN
			}
		}
		return err
	}
	l.acknowledged[step.path] = append(l.acknowledged[step.path], step.lsn)
	err := s.Commit(step.path, at(step.path, step.lsn))
	if p, _ := s.Position(step.path); p.LSN != step.lsn {
		return fmt.Errorf("position is at lsn %d after a Commit of %d", p.LSN, step.lsn)
	}
	return err
}

func noLitter(t *testing.T, m *memFS) {
	t.Helper()
	for name := range m.live {
		if strings.HasSuffix(name, ".tmp") {
			t.Errorf("left behind: %s, after %q", name, m.calls)
		}
	}
}

// Faults while Open works: it says so, or goes on without having harmed what was there.
func TestFaultAtEveryCallOfOpen(t *testing.T) {
	m, l := newMemFS(nil), newLedger()
	if err := live(m, life[:9], l); err != nil { // the last step is a kill: latest is ahead of durable
		t.Fatal(err)
	}
	content := m.killed()
	for _, fault := range faults {
		for n := 0; ; n++ {
			m := newMemFS(content)
			m.intercept = func(i int, _, _ string) error {
				if i == n {
					return fault
				}
				return nil
			}
			s, err := open(testConfig(), m, testNow)
			if len(m.calls) <= n {
				break
			}
			call := m.calls[n]
			switch damage := fault == syscall.EIO && strings.HasPrefix(call, "read "); {
			case damage:
				aside := strings.TrimPrefix(call, "read ") + ".damaged-20261123T203323.092Z"
				if err != nil || s.Lost() || m.live[aside] == nil {
					t.Errorf("%v at %s: %v, want to go on with the other file", fault, call, err)
				}
			case fault == syscall.ENOSPC && err == nil:
				if err := s.Sync(); err != nil {
					t.Errorf("%v at %s: Sync after it: %v", fault, call, err)
				}
				fallthrough
			default:
				if err == nil && fault != syscall.ENOSPC || err != nil && !errors.Is(err, fault) {
					t.Errorf("%v at %s: error %v", fault, call, err)
				}
				if err != nil && len(m.locked) != 0 {
					t.Errorf("%v at %s: Open failed and kept the lock", fault, call)
				}
				clear(m.locked)
				if err := l.check(m.killed(), l.committed); err != nil {
					t.Errorf("%v at %s: harmed the files: %v", fault, call, err)
				}
			}
		}
	}
}

// A full disk does not stop an agent that starts, since it does not stop one that runs.
func TestOpenOnFullDisk(t *testing.T) {
	for _, fault := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		m := newMemFS(nil)
		m.intercept = func(_ int, op, _ string) error {
			if op == "write" {
				return fault
			}
			return nil
		}
		s, err := open(testConfig(), m, testNow)
		if err != nil {
			t.Fatalf("%v: %v", fault, err)
		}
		if err := s.Sync(); !errors.Is(err, fault) {
			t.Errorf("Sync: %v, want %v", err, fault)
		}
		m.intercept = nil
		if err := s.Sync(); err != nil || m.live[testFile] == nil {
			t.Errorf("Sync when there is room again: %v, files %v", err, slices.Sorted(maps.Keys(m.live)))
		}
	}
}

// Every failure is counted, by file; the log has the first and the recovery.
func TestFailuresAreCountedAndLoggedOnce(t *testing.T) {
	m, records := newMemFS(nil), &recorder{}
	cfg, registry := testConfig(), prometheus.NewPedanticRegistry()
	cfg.Logger, cfg.Registerer = records.logger(), registry
	s, err := open(cfg, m, testNow)
	if err != nil {
		t.Fatal(err)
	}
	m.intercept = func(_ int, op, _ string) error {
		if op == "overwrite" || op == "rename" {
			return syscall.EROFS
		}
		return nil
	}
	for lsn := range int64(3) {
		if err := s.Commit(pathA, at(pathA, 100+lsn)); !errors.Is(err, syscall.EROFS) || errors.Is(err, ErrRefused) {
			t.Errorf("Commit: %v", err)
		}
	}
	if err := s.Sync(); !errors.Is(err, syscall.EROFS) {
		t.Errorf("Sync: %v", err)
	}
	if err := s.Trouble(); !errors.Is(err, syscall.EROFS) {
		t.Errorf("Trouble: %v", err)
	}
	m.intercept = nil
	if err := s.Commit(pathA, at(pathA, 102)); err != nil {
		t.Fatal(err)
	}
	if s.Trouble() == nil {
		t.Error("no Trouble, though the durable file is not written yet")
	}
	if err := errors.Join(s.Sync(), s.Trouble()); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"auditferry_positions_commit_failures_total durable 1",
		"auditferry_positions_commit_failures_total latest 3",
		"auditferry_positions_sync_duration_seconds 2", // Open and the last Sync
	}
	if got := gather(t, registry); !slices.Equal(got, want) {
		t.Errorf("metrics %q, want %q", got, want)
	}
	failed := "ERROR positions file cannot be written; shipping goes on, a crash now costs repeats"
	again := "INFO positions file is written again"
	if want := []string{failed, failed, again, again}; !slices.Equal(records.lines, want) {
		t.Errorf("log %q, want %q", records.lines, want)
	}
}

// gather gives name, labels and value of each counter, and of each histogram the number of observations.
func gather(t *testing.T, registry *prometheus.Registry) []string {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			line := family.GetName()
			for _, label := range metric.GetLabel() {
				line += " " + label.GetValue()
			}
			if h := metric.GetHistogram(); h != nil {
				line += fmt.Sprintf(" %d", h.GetSampleCount())
			} else {
				line += fmt.Sprintf(" %v", metric.GetCounter().GetValue())
			}
			lines = append(lines, line)
		}
	}
	return lines
}
