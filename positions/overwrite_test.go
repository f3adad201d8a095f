package positions

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// longer is a position with so many other files that it takes about 87 bytes more for each.
func longer(n int64, others int) Position {
	p := at(pathA, n)
	p.Others = map[Hash]int64{}
	for i := range others {
		p.Others[Hash{byte(i), byte(i >> 8), 31: 1}] = 1 << 30
	}
	return p
}

// A write that SIGKILL cuts, wherever it does, costs the push that it was for and no more.
func TestSIGKILLWithinAWrite(t *testing.T) {
	everyByte := func(n int) []int { // of the text and a bit of the padding
		cuts := make([]int, min(n, 1000))
		for i := range cuts {
			cuts[i] = i
		}
		return cuts
	}
	pages := func(n int) (cuts []int) {
		for i := pageSize; i <= n; i += pageSize {
			cuts = append(cuts, i-1, i, i+1)
		}
		return cuts
	}
	for name, test := range map[string]struct {
		others []int // for each commit
		cuts   func(n int) []int
	}{
		"every byte of one page":     {[]int{1, 2, 2, 3, 2}, everyByte},
		"every page, as it grows":    {[]int{10, 50, 100, 200, 400, 800}, pages},
		"every page, as it shrinks":  {[]int{800, 700, 500, 300, 10, 10, 0}, pages},
		"every page of equal length": {[]int{300, 300, 300, 300}, pages},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range test.others {
				var length int
				killedWithin(t, test.others[:i+1], func(n int) int { length = n; return 0 })
				for _, cut := range test.cuts(length) {
					killedWithin(t, test.others[:i+1], func(n int) int { return min(cut, n) })
				}
			}
		})
	}
}

// killedWithin makes a commit for each of others, the last of which is killed within its write, and opens what is left.
func killedWithin(t *testing.T, others []int, cut func(n int) int) {
	t.Helper()
	m := newMemFS(nil)
	s, err := open(testConfig(), m, testNow)
	if err != nil {
		t.Fatal(err)
	}
	last := len(others) - 1
	for i, n := range others {
		if i == last {
			m.cut = cut
			m.intercept = func(_ int, op, _ string) error {
				if op == "overwrite" {
					return errCrash
				}
				return nil
			}
		}
		if err := s.Commit(pathA, longer(int64(100+i), n)); (err != nil) != (i == last) {
			t.Fatalf("commit %d: %v", i, err)
		}
	}
	records, cfg := &recorder{}, testConfig()
	cfg.Logger = records.logger()
	again, err := open(cfg, newMemFS(m.killed()), testNow)
	if err != nil {
		t.Fatal(err)
	}
	p, known := again.Position(pathA)
	before := last > 0 && p.Equal(longer(int64(100+last-1), others[max(last-1, 0)]))
	if !before && !p.Equal(longer(int64(100+last), others[last])) && (last > 0 || known) {
		t.Fatalf("killed within commit %d, %q: opened lsn %d", last, m.calls[len(m.calls)-2:], p.LSN)
	}
	if last > 0 && slices.ContainsFunc(records.lines, func(line string) bool { return line[:4] != "INFO" }) {
		t.Fatalf("killed within commit %d: log %q", last, records.lines)
	}
}

func TestOpenChoosesOfTheLatestFiles(t *testing.T) {
	named := func(name string) map[string]Position {
		p := at(pathA, 50)
		p.Name = name
		return map[string]Position{pathA: p}
	}
	file := func(generation uint64, paths map[string]Position) []byte {
		return written(t, generation, pageSize, paths)
	}
	torn := func(from, to []byte) []byte { return append(bytes.Clone(from[:200]), to[200:]...) }
	const (
		lost    = "ERROR positions are lost: no positions file is whole; every path begins anew, Loki will be sent again what it has"
		damaged = "WARN positions file is damaged and kept aside"
		cut     = "INFO positions file was cut while it was overwritten; the other one counts"
		aside   = ".damaged-20261123T203323.092Z"
	)
	both := []string{latestFile + aside, latest2File + aside}
	for _, test := range []struct {
		name                   string
		durable, first, second []byte // nil: no file
		want                   map[string]Position
		next                   string
		aside, log             []string
	}{
		{name: "first start", next: latestFile},
		{name: "of the version before", durable: sealed(t, paths(50, 60)), first: sealed(t, paths(70, 80)), want: paths(70, 80),
			next: latest2File},
		{name: "the first ahead", first: file(9, paths(70, 80)), second: file(8, paths(50, 60)), want: paths(70, 80),
			next: latest2File},
		{name: "the second ahead", first: file(8, paths(50, 60)), second: file(9, paths(70, 80)), want: paths(70, 80),
			next: latestFile},
		{name: "the first newer at the same lsn", first: file(9, named("a")), second: file(8, named("b")), want: named("a"),
			next: latest2File},
		{name: "the second newer at the same lsn", first: file(9, named("a")), second: file(10, named("b")), want: named("b"),
			next: latestFile},
		{name: "the version before ran in between", first: sealed(t, paths(70, 80)), second: file(9, paths(50, 60)),
			want: paths(70, 80), next: latest2File},
		{name: "durable ahead of both", durable: file(20, paths(70, 80)), first: file(8, paths(50, 60)),
			second: file(9, paths(50, 60)), want: paths(70, 80), next: latestFile},
		{name: "no paths in the newer", first: file(9, nil), second: file(8, paths(50, 60)), want: paths(50, 60), next: latest2File},
		{name: "the first cut", first: torn(file(10, paths(70, 80)), file(8, paths(30, 40))), second: file(9, paths(50, 60)),
			want: paths(50, 60), next: latestFile, log: []string{cut}},
		{name: "the second cut", first: file(9, paths(50, 60)), second: torn(file(10, paths(70, 80)), file(8, paths(30, 40))),
			want: paths(50, 60), next: latest2File, log: []string{cut}},
		{name: "the second empty", first: file(9, paths(50, 60)), second: []byte{}, want: paths(50, 60),
			next: latest2File, log: []string{cut}},
		{name: "one cut, durable damaged", durable: []byte{}, first: make([]byte, pageSize), second: file(9, paths(50, 60)),
			want: paths(50, 60), next: latestFile, aside: []string{testFile + aside}, log: []string{damaged, cut}},
		{name: "both cut", durable: file(7, paths(10, 20)), first: torn(file(10, paths(70, 80)), file(8, paths(30, 40))),
			second: make([]byte, pageSize), want: paths(10, 20), next: latestFile, aside: both, log: []string{damaged, damaged}},
		{name: "both cut, no durable", first: []byte("x"), second: []byte{}, next: latestFile, aside: both,
			log: []string{lost, damaged, damaged}},
		{name: "the second alone and cut", durable: file(7, paths(10, 20)), second: []byte{}, want: paths(10, 20),
			next: latestFile, aside: both[1:], log: []string{damaged}},
	} {
		t.Run(test.name, func(t *testing.T) {
			content := map[string][]byte{}
			for name, raw := range map[string][]byte{testFile: test.durable, latestFile: test.first, latest2File: test.second} {
				if raw != nil {
					content[name] = raw
				}
			}
			m, records, cfg := newMemFS(content), &recorder{}, testConfig()
			cfg.Logger = records.logger()
			s, err := open(cfg, m, testNow)
			if err != nil {
				t.Fatal(err)
			}
			if !same(s.held, test.want) {
				t.Errorf("opened %v, want %v", s.held, test.want)
			}
			if !slices.Equal(records.lines, test.log) {
				t.Errorf("log %q, want %q", records.lines, test.log)
			}
			wantLive := map[string]bool{testFile: true}
			for name := range content {
				wantLive[name] = true
			}
			for _, name := range test.aside {
				wantLive[name] = true
				if original := name[:len(name)-len(aside)]; original != testFile {
					delete(wantLive, original)
				}
			}
			if got, want := slices.Sorted(maps.Keys(m.live)), slices.Sorted(maps.Keys(wantLive)); !slices.Equal(got, want) {
				t.Errorf("files %q, want %q", got, want)
			}
			m.calls = nil
			if err := s.Commit(pathA, at(pathA, 1000)); err != nil || m.calls[0] != "open "+test.next {
				t.Errorf("the next Commit: %v, calls %q, want it to write %s", err, m.calls, test.next)
			}
			again, err := open(testConfig(), newMemFS(m.killed()), testNow)
			if err != nil || !same(again.held, s.held) {
				t.Errorf("opened after it: %v, want %v (%v)", again.held, s.held, err)
			}
		})
	}
}

// What is committed at the lsn of before counts, through restarts: the files tell which is newer.
func TestNewerAtTheSameLSNThroughKills(t *testing.T) {
	m := newMemFS(nil)
	for life := range 4 {
		clear(m.locked)
		s, err := open(testConfig(), m, testNow)
		if err != nil {
			t.Fatal(err)
		}
		for n := range life + 1 {
			p := Position{LSN: 100, Name: fmt.Sprintf("%d.%d", life, n)}
			if err := s.Commit(pathA, p); err != nil {
				t.Fatal(err)
			}
			again, err := open(testConfig(), newMemFS(m.killed()), testNow)
			if got, _ := again.Position(pathA); err != nil || !got.Equal(p) {
				t.Errorf("opened %v, want %v (%v)", got, p, err)
			}
		}
	}
}

// A write that fails half way is tried again in the same file: over the other one, a kill would leave none.
func TestFailedWriteKeepsItsTurn(t *testing.T) {
	for _, test := range []struct {
		fault          string
		before, during int // how long the content is
	}{{"open", 1, 1}, {"size", 1, 1}, {"truncate", 300, 1}, {"overwrite", 1, 1}, {"overwrite", 300, 1}, {"overwrite", 1, 300}} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			m := newMemFS(nil)
			s, err := open(testConfig(), m, testNow)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.Commit(pathA, longer(1, test.before)), s.Commit(pathA, longer(2, test.before))); err != nil {
				t.Fatal(err)
			}
			if test.fault == "open" || test.fault == "size" { // anew, as by the first Commit after a restart
				clear(m.locked)
				if s, err = open(testConfig(), m, testNow); err != nil {
					t.Fatal(err)
				}
			}
			whole := bytes.Clone(m.live[latest2File].data)
			for lsn := range int64(3) {
				m.calls = nil
				m.intercept = func(_ int, op, _ string) error {
					if op == test.fault {
						return syscall.ENOSPC
					}
					return nil
				}
				if err := s.Commit(pathA, longer(3+lsn, test.during)); !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("Commit: %v", err)
				}
				if i := slices.IndexFunc(m.calls, func(call string) bool { return call == test.fault+" "+latestFile }); i < 0 {
					t.Errorf("calls %q", m.calls)
				}
				if !bytes.Equal(m.live[latest2File].data, whole) {
					t.Error("the whole file was touched")
				}
			}
			m.intercept = nil
			if err := s.Commit(pathA, longer(5, 1)); err != nil {
				t.Fatal(err)
			}
			got, err := decode(m.live[latestFile].data)
			if err != nil || !same(got.Paths, s.held) || !bytes.Equal(m.live[latest2File].data, whole) {
				t.Errorf("after the fault: %v (%v), want %v", got.Paths, err, s.held)
			}
		})
	}
}

// Whatever somebody does to the files while they are open, from the next Sync on a Commit is found by Open.
func TestFilesTamperedWithWhileOpen(t *testing.T) {
	first, second := "positions.latest.json", "positions.latest2.json"
	remove := func(names ...string) func(string) error {
		return func(dir string) (err error) {
			for _, name := range names {
				err = errors.Join(err, os.Remove(filepath.Join(dir, name)))
			}
			return err
		}
	}
	for name, tamper := range map[string]func(dir string) error{
		"the newest removed": remove(second),
		"the other removed":  remove(first),
		"both removed":       remove(first, second),
		"the newest moved":   func(dir string) error { return os.Rename(filepath.Join(dir, second), filepath.Join(dir, "aside")) },
		"the newest replaced": func(dir string) error {
			return errors.Join(remove(second)(dir), os.WriteFile(filepath.Join(dir, second), make([]byte, 3*pageSize), 0o600))
		},
		"the newest emptied":  func(dir string) error { return os.Truncate(filepath.Join(dir, second), 0) },
		"the newest extended": func(dir string) error { return os.Truncate(filepath.Join(dir, second), 3*pageSize) },
		"the other extended":  func(dir string) error { return os.Truncate(filepath.Join(dir, first), 5*pageSize) },
		"the one over the other": func(dir string) error {
			return os.Rename(filepath.Join(dir, second), filepath.Join(dir, first))
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := realConfig(t)
			s, err := Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			for lsn := range int64(4) {
				if err := s.Commit(pathA, at(pathA, lsn)); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(tamper(filepath.Dir(cfg.File)), s.Sync()); err != nil {
				t.Fatal(err)
			}
			for lsn := range int64(4) {
				if err := s.Commit(pathA, at(pathA, 3+lsn)); err != nil { // the first one again: it is not in the files
					t.Fatal(err)
				}
				latest := [2]contents{}
				for i, f := range s.latest.files {
					if latest[i], err = s.read(f.path); err != nil {
						t.Fatal(err)
					}
				}
				if got := latest[newer(latest)].Paths; !same(got, s.held) {
					t.Errorf("the latest files have %v, want %v", got, s.held)
				}
			}
			for _, f := range s.latest.files {
				if info, err := os.Stat(f.path); err != nil || info.Size() != pageSize {
					t.Errorf("%s: %v, %v", f.path, info, err)
				}
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDirectoryRemovedWhileOpen(t *testing.T) {
	cfg := testConfig()
	dir := filepath.Join(t.TempDir(), "state")
	cfg.File = filepath.Join(dir, "positions.json")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Commit(pathA, at(pathA, 1)), s.Commit(pathA, at(pathA, 2)), os.RemoveAll(dir)); err != nil {
		t.Fatal(err)
	}
	for _, do := range []func() error{s.Sync, func() error { return s.Commit(pathA, at(pathA, 3)) }} {
		if err := do(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v, want one for a missing directory", err)
		}
	}
	if err := errors.Join(os.Mkdir(dir, 0o700), s.Commit(pathA, at(pathA, 3))); err != nil {
		t.Fatal(err)
	}
	if got, err := readLatest(s); err != nil || !same(got, s.held) {
		t.Errorf("the latest files have %v, want %v (%v)", got, s.held, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestFitting(t *testing.T) {
	for _, test := range []struct {
		n          int
		size, want int64
	}{
		{1, 0, pageSize},
		{pageSize, 0, pageSize},
		{pageSize + 1, pageSize, 2 * pageSize},
		{900, 700, pageSize},                             // of the version before
		{900, 5000, pageSize},                            // not by this agent
		{pageSize, 2 * pageSize, 2 * pageSize},           // else it would go to and fro with a length near the limit
		{pageSize, 3 * pageSize, pageSize},               // half of it is not needed
		{3 * pageSize, 5 * pageSize, 5 * pageSize},       //
		{100 * pageSize, 99 * pageSize, 100 * pageSize},  //
		{100 * pageSize, 201 * pageSize, 100 * pageSize}, //
	} {
		if got := fitting(test.n, test.size); got != test.want {
			t.Errorf("%d bytes into a file of %d: size %d, want %d", test.n, test.size, got, test.want)
		}
	}
}
