package positions

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func TestCommitRefuses(t *testing.T) {
	m := newMemFS(nil)
	s, err := open(testConfig(), m, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(pathA, at(pathA, 1200)); err != nil {
		t.Fatal(err)
	}
	year10000 := at(pathA, 1300)
	year10000.EventTime = time.Date(9999, 12, 31, 23, 30, 0, 0, time.FixedZone("", -3600))
	for _, test := range []struct {
		name, path string
		position   Position
	}{
		{"behind", pathA, at(pathA, 1199)},
		{"negative offset", pathA, Position{Offset: -1, LSN: 1300}},
		{"negative lsn", pathB, Position{LSN: -1}},
		{"negative offset of another file", pathA, Position{LSN: 1300, Others: map[Hash]int64{{1}: -1}}},
		{"a gap that cannot be written", pathA, Position{LSN: 1300, Gap: &Gap{First: year10000.EventTime}}},
		{"old events that cannot be written", pathA, Position{LSN: 1300, Old: &Stretch{Newest: year10000.EventTime}}},
		{"a negative count of old events", pathA, Position{LSN: 1300, Old: &Stretch{Skipped: -1}}},
		{"a time that cannot be written", pathA, Position{LSN: 1300, Restamp: &Restamp{Future: year10000.EventTime}}},
		{"a path that is not UTF-8", "/audit/\xff.log", at("", 1)},
		{"an event time that cannot be written", pathA, year10000},
	} {
		m.calls = nil
		if err := s.Commit(test.path, test.position); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: error %v, want ErrRefused", test.name, err)
		}
		if want := map[string]Position{pathA: at(pathA, 1200)}; !same(s.held, want) || len(m.calls) != 0 {
			t.Errorf("%s: now holds %v, calls %q", test.name, s.held, m.calls)
		}
	}
}

func TestPositionIsWhatWillBeReadBack(t *testing.T) {
	m := newMemFS(nil)
	s, err := open(testConfig(), m, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := s.Position(pathA); ok || p.Identified() {
		t.Errorf("position %v before any Commit", p)
	}
	given := at(pathA, 100)
	given.EventTime = time.Now().In(time.FixedZone("", 3600)) // another zone, and a monotonic clock
	for _, p := range []Position{given, {LSN: 100, Name: "same lsn"}, {LSN: 100, EventTime: given.EventTime}} {
		if err := s.Commit(pathA, p); err != nil {
			t.Fatal(err)
		}
		got, ok := s.Position(pathA)
		if !ok || !got.EventTime.Equal(p.EventTime) || got.Name != p.Name {
			t.Errorf("position %v after a Commit of %v", got, p)
		}
		again, err := open(testConfig(), newMemFS(m.killed()), testNow)
		if err != nil {
			t.Fatal(err)
		}
		if read, _ := again.Position(pathA); !read.Equal(got) {
			t.Errorf("read back %v, held %v", read, got)
		}
	}
}

func TestCommitAfterClose(t *testing.T) {
	m := newMemFS(nil)
	s, err := open(testConfig(), m, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Commit(pathA, at(pathA, 100)), s.Close()); err != nil {
		t.Fatal(err)
	}
	m.calls = nil
	if err := s.Commit(pathA, at(pathA, 200)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Commit after Close: %v", err)
	}
	if err := s.Sync(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Sync after Close: %v", err)
	}
	if len(m.calls) != 0 {
		t.Errorf("calls without the lock: %q", m.calls)
	}
}

// slowFS holds every fsync, of a file or of the directory, until the test lets it go.
type slowFS struct {
	disk
	syncing, proceed chan struct{}
}

type slowFile struct {
	file
	fs *slowFS
}

func (s *slowFS) wait() {
	s.syncing <- struct{}{}
	<-s.proceed
}

func (s *slowFS) Create(name string) (file, error) {
	f, err := s.disk.Create(name)
	return slowFile{f, s}, err
}

func (s *slowFS) SyncDir(name string) error {
	s.wait()
	return s.disk.SyncDir(name)
}

func (f slowFile) Sync() error {
	f.fs.wait()
	return f.file.Sync()
}

// soon receives, or ends the test instead of waiting for ever.
func soon[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("waited for 20 s")
		panic("not reached")
	}
}

func TestCommitDoesNotWaitForSync(t *testing.T) {
	cfg := testConfig()
	cfg.File = filepath.Join(t.TempDir(), "positions.json")
	slow := &slowFS{syncing: make(chan struct{}, 2), proceed: make(chan struct{}, 2)}
	slow.proceed <- struct{}{} // both fsyncs of Open
	slow.proceed <- struct{}{}
	s, err := open(cfg, slow, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	soon(t, slow.syncing)
	soon(t, slow.syncing)
	if err := s.Commit(pathA, at(pathA, 100)); err != nil {
		t.Fatal(err)
	}
	synced, committed := make(chan error, 1), make(chan error, 1)
	go func() { synced <- s.Sync() }()
	for lsn := range int64(2) { // once in each fsync
		soon(t, slow.syncing)
		go func() { committed <- s.Commit(pathA, at(pathA, 101+lsn)) }()
		if err := soon(t, committed); err != nil {
			t.Error(err)
		}
		slow.proceed <- struct{}{}
	}
	if err := soon(t, synced); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]int64{"positions.json": 100, "positions.latest.json": 102, "positions.latest2.json": 101} {
		got, err := s.read(filepath.Join(filepath.Dir(cfg.File), name))
		if err != nil || got.Paths[pathA].LSN != want {
			t.Errorf("%s: lsn %d (%v), want %d", name, got.Paths[pathA].LSN, err, want)
		}
	}
}

// Several loops commit while one goroutine syncs and a reader opens what is there: between the writes the files are whole,
// and a Commit that returned is in a latest one.
func TestConcurrentCommits(t *testing.T) {
	cfg := testConfig()
	cfg.File = filepath.Join(t.TempDir(), "positions.json")
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	const loops, commits = 4, 50
	var wg sync.WaitGroup
	for loop := range loops {
		wg.Go(func() {
			path := fmt.Sprintf("/audit/%d.log", loop)
			for lsn := int64(1); lsn <= commits; lsn++ {
				if err := s.Commit(path, at(path, lsn)); err != nil {
					t.Error(err)
				}
				if got, err := readLatest(s); err != nil || got[path].LSN != lsn {
					t.Errorf("latest files have lsn %d of %s, want %d (%v)", got[path].LSN, path, lsn, err)
				}
			}
		})
	}
	done := make(chan struct{})
	var syncer sync.WaitGroup
	syncer.Go(func() {
		for {
			if err := s.Sync(); err != nil {
				t.Error(err)
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	wg.Wait()
	close(done)
	syncer.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(cfg); err != nil || len(s.held) != loops {
		t.Fatalf("reopened: %v, %d paths", err, len(s.held))
	}
	for path, p := range s.held {
		if !p.Equal(at(path, commits)) {
			t.Errorf("%s is at %v", path, p)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// readLatest gives what the latest files hold while no Commit writes them.
func readLatest(s *Store) (map[string]Position, error) {
	s.latest.mu.Lock()
	defer s.latest.mu.Unlock()
	paths := map[string]Position{}
	for _, f := range s.latest.files {
		got, err := s.read(f.path)
		if err = errors.Join(err, got.damage); err != nil {
			return nil, err
		}
		paths = overlay(paths, got.Paths)
	}
	return paths, nil
}

func BenchmarkCommit(b *testing.B) {
	for _, backups := range []int{0, 10, 100, 500} {
		b.Run(fmt.Sprint(backups), func(b *testing.B) { benchmarkCommit(b, backups) })
	}
}

func benchmarkCommit(b *testing.B, backups int) {
	cfg := testConfig()
	cfg.File = filepath.Join(b.TempDir(), "positions.json")
	s, err := Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	others := map[Hash]int64{}
	for i := range backups {
		others[Hash{byte(i), byte(i >> 8), 31: 1}] = 100 << 20
	}
	b.ReportAllocs()
	lsn := int64(0)
	for b.Loop() {
		lsn++
		if err := s.Commit(pathA, Position{LSN: lsn, Others: others}); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}
