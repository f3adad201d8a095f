package positions

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const admissionsPath = "/data/positions.admissions"

// admission gives the n-th admission; its words are such as a client can choose.
func admission(path string, n int64) Admission {
	return Admission{Path: path, From: n, Kind: "stream of verb,user", Words: []string{"get", fmt.Sprintf("u%d\x00\"\n<\u2028>é", n)}}
}

func keepAll(all []Admission) []Admission { return all }

// openBoth opens a directory, whose positions know pathA and pathB.
func openBoth(m *memFS) (*Store, *Admissions, error) {
	clear(m.locked)
	s, err := open(testConfig(), m, testNow)
	if err != nil {
		return nil, nil, err
	}
	a, err := OpenAdmissions(s, keepAll)
	return s, a, err
}

// withPositions is a directory after a first start.
func withPositions(tb testing.TB) map[string][]byte {
	return map[string][]byte{testFile: sealed(tb, paths(50, 60))}
}

// growth is the admissions of some batches: enough that the file grows beyond its first room.
func growth() (batches [][]Admission) {
	long := strings.Repeat("x", spareAdmissions/3)
	for n := range int64(5) {
		one := admission(pathA, 10*n)
		batches = append(batches, []Admission{one, {Path: pathB, From: n, Kind: "resource", Words: []string{long, fmt.Sprint(n)}}})
	}
	return append(batches, []Admission{admission(pathB, 7)}, []Admission{{Path: pathA, From: 5, Kind: admission(pathA, 10).Kind, Words: admission(pathA, 10).Words}})
}

// admit appends batches until a call fails, with a restart in between, and gives what was made durable.
func admit(m *memFS, batches [][]Admission) (durable []Admission, err error) {
	_, a, err := openBoth(m)
	if err != nil {
		return nil, err
	}
	for i, batch := range batches {
		if i == 3 {
			if _, a, err = openBoth(m); err != nil {
				return durable, err
			}
		}
		if err := a.Append(batch); err != nil {
			return durable, err
		}
		durable = append(durable, batch...)
	}
	return durable, nil
}

// checkAdmissions says what is wrong with what a new agent finds: all that was durable must be there, and nothing else than
// was given.
func checkAdmissions(content map[string][]byte, durable []Admission, given [][]Admission) error {
	_, a, err := openBoth(newMemFS(content))
	if err != nil {
		return err
	}
	for _, want := range durable {
		i, ok := a.at[want.subject()]
		if !ok || a.held[i].From > want.From {
			return fmt.Errorf("%.60q is not there from %d on", want.Words, want.From)
		}
	}
	for _, got := range a.held {
		if !slices.ContainsFunc(slices.Concat(given...), func(g Admission) bool { return reflect.DeepEqual(g, got) }) {
			return fmt.Errorf("%.60q from %d was never admitted", got.Words, got.From)
		}
	}
	return nil
}

// A crash before each call loses no admission that was durable, and makes up none.
func TestAdmissionsSurviveACrashAtEveryCall(t *testing.T) {
	batches, states := growth(), 0
	for n := 0; ; n++ {
		m := newMemFS(withPositions(t))
		m.intercept = func(i int, _, _ string) error {
			if i >= n {
				return errCrash
			}
			return nil
		}
		durable, err := admit(m, batches)
		if err := checkAdmissions(m.killed(), durable, batches); err != nil {
			t.Fatalf("killed after %q: %v", last(m), err)
		}
		for content := range m.powerLosses {
			states++
			if err := checkAdmissions(content, durable, batches); err != nil {
				t.Fatalf("power lost after %q: %v", last(m), err)
			}
		}
		if err == nil {
			t.Logf("%d crashes, %d states of the disk", n, states)
			if n < 30 || states < 100 {
				t.Error("the script does not reach the file system")
			}
			return
		}
	}
}

// Without either fsync, some power loss takes back what was durable.
func TestPowerLossFindsMissingSyncOfAdmissions(t *testing.T) {
	for _, lying := range []string{"sync", "syncdir"} {
		found := false
		for n := 10; n < 60 && !found; n++ {
			m := newMemFS(withPositions(t))
			m.lying = lying
			m.intercept = func(i int, _, _ string) error {
				if i >= n {
					return errCrash
				}
				return nil
			}
			durable, _ := admit(m, growth())
			for content := range m.powerLosses {
				found = found || checkAdmissions(content, durable, growth()) != nil
			}
		}
		if !found {
			t.Errorf("no power loss does harm when %s does nothing", lying)
		}
	}
}

// counted gives what the metric of failures says.
func counted(t *testing.T, registry *prometheus.Registry) int {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "auditferry_admissions_write_failures_total" {
			return int(family.GetMetric()[0].GetCounter().GetValue())
		}
	}
	return -1
}

// A fault at each call is an error of Append, and the next one makes up for it.
func TestAdmissionsAreHeldWhileTheyCannotBeWritten(t *testing.T) {
	for _, fault := range faults {
		for n := 0; ; n++ {
			m, records, registry := newMemFS(withPositions(t)), &recorder{}, prometheus.NewPedanticRegistry()
			cfg := testConfig()
			cfg.Logger, cfg.Registerer = records.logger(), registry
			s, err := open(cfg, m, testNow)
			if err != nil {
				t.Fatal(err)
			}
			a, err := OpenAdmissions(s, keepAll)
			if err != nil {
				t.Fatal(err)
			}
			records.lines, m.calls = nil, nil
			m.intercept = func(i int, _, _ string) error {
				if i == n {
					return fault
				}
				return nil
			}
			failures := 0
			for _, batch := range growth() {
				if err := a.Append(batch); err != nil {
					failures++
					if !errors.Is(err, fault) || !strings.Contains(err.Error(), "/data/positions") || a.Trouble() == nil {
						t.Errorf("call %d, %s: %v, trouble %v", n, m.calls[n], err, a.Trouble())
					}
					if err := a.Append(nil); err != nil {
						t.Errorf("call %d, %s: tried again: %v", n, m.calls[n], err)
					}
				}
			}
			if len(m.calls) <= n {
				break
			}
			if err := checkAdmissions(m.killed(), slices.Concat(growth()...), growth()); err != nil || a.Trouble() != nil {
				t.Errorf("call %d, %s: %v, trouble %v", n, m.calls[n], err, a.Trouble())
			}
			if want := 2 * failures; len(records.lines) != want || counted(t, registry) != failures {
				t.Errorf("call %d, %s: %d failures, %q", n, m.calls[n], failures, records.lines)
			}
			if harmless := strings.HasPrefix(m.calls[n], "size "); failures == 0 && !harmless {
				t.Errorf("call %d, %s: failed and nobody was told", n, m.calls[n])
			}
		}
	}
}

// On a full disk there is room for the next admissions, because it was taken before.
func TestAdmissionsOnAFullDiskTakeTheRoomThatTheyHave(t *testing.T) {
	m := newMemFS(withPositions(t))
	_, a, err := openBoth(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Append([]Admission{admission(pathA, 1)}); err != nil {
		t.Fatal(err)
	}
	size := len(m.live[admissionsPath].data)
	for n := range int64(300) {
		if err := a.Append([]Admission{admission(pathA, n)}); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(m.live[admissionsPath].data); got != size {
		t.Errorf("the file grew from %d to %d bytes", size, got)
	}
	if err := checkAdmissions(m.killed(), []Admission{admission(pathA, 299)}, [][]Admission{{admission(pathA, 299)}}); err == nil {
		t.Error("the check does not see what was never given")
	}
}

// Nobody else reads the file, and one that was removed while it was open is made again.
func TestAdmissionsOfARealDirectory(t *testing.T) {
	cfg := realConfig(t)
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := s.Commit(pathA, at(pathA, 1)); err != nil {
		t.Fatal(err)
	}
	a, err := OpenAdmissions(s, keepAll)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(filepath.Dir(cfg.File), "positions.admissions")
	for n := range int64(3) {
		if err := a.Append([]Admission{admission(pathA, n)}); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode() != fs.FileMode(0o600) {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		if n == 1 {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if found, err := decodeAdmissions(raw); err != nil || len(found.admissions) != 3 || found.cut || found.damage {
		t.Errorf("%+v, %v", found, err)
	}
}

// While the disk hangs, who asks whether all is well is answered: a watchdog that waits for the answer would end the agent.
func TestTroubleIsToldWhileTheDiskHangs(t *testing.T) {
	for _, test := range []struct {
		op    string
		first bool // there is no file yet
	}{{"write", true}, {"sync", true}, {"syncdir", true}, {"overwrite", false}, {"sync", false}} {
		op := test.op
		m := newMemFS(withPositions(t))
		_, a, err := openBoth(m)
		if err != nil {
			t.Fatal(err)
		}
		if !test.first {
			if err := a.Append([]Admission{admission(pathA, 1)}); err != nil {
				t.Fatal(err)
			}
		}
		hangs, goesOn := make(chan struct{}), make(chan struct{})
		once := sync.OnceFunc(func() { close(hangs) })
		m.intercept = func(_ int, called, _ string) error {
			if called == op {
				once()
				<-goesOn
			}
			return nil
		}
		appended, told := make(chan error, 1), make(chan error, 1)
		go func() { appended <- a.Append([]Admission{admission(pathA, 2)}) }()
		select {
		case <-hangs:
		case err := <-appended:
			t.Fatalf("%s: nothing hung: %v", op, err)
		}
		go func() { told <- a.Trouble() }()
		select {
		case err := <-told:
			if err != nil {
				t.Errorf("%s: trouble %v", op, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the trouble is not told while the disk hangs", op)
		}
		close(goesOn)
		if err := <-appended; err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
}
