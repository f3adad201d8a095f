package tailer

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/prometheus/client_golang/prometheus"
)

// The real watcher follows real lumberjack, which compresses and deletes backups while the reader has stopped.
func TestLumberjack(t *testing.T) {
	const lines, pauses = 30_000, 6
	w := newWorld(t)
	w.cfg.Poll = 5 * time.Millisecond
	w.cfg.Registerer = prometheus.NewRegistry()
	follow, err := New(w.cfg, nil)
	w.ok(err)
	log := &lumberjack.Logger{Filename: w.path, MaxSize: 1, MaxBackups: 3, Compress: true}
	wrote := make(chan int, pauses)
	done := make(chan error, 1)
	pad := strings.Repeat("x", 1000)
	go func() {
		defer close(wrote)
		for i := range lines {
			if _, err := fmt.Fprintf(log, "{\"auditID\":\"%06d\",\"pad\":\"%s\"}\n", i, pad[:i%1000]); err != nil {
				done <- err
				return
			}
			if i%500 == 0 {
				// A machine that is busy with other tests can keep the watcher away for longer than backups live.
				follow.look(time.Now())
			}
			if (i+1)%(lines/pauses) == 0 {
				wrote <- i
			}
		}
		done <- log.Close()
	}()
	next := 0
	for upTo := range wrote { // the reader is always some rotations behind, and stops
		for ; next <= upTo-lines/pauses; next++ {
			expectLine(t, follow, next)
		}
	}
	w.ok(<-done)
	for ; next < lines; next++ {
		expectLine(t, follow, next)
	}
	w.counted(follow.observer.lostFiles, 0)
	follow.Close()
	compressed(t, w.dir)
}

// compressed returns once lumberjack has compressed the last backup: its goroutine outlives Close, and would make files in a
// directory that is being removed.
func compressed(t *testing.T, dir string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; runtime.Gosched() {
		plain, err := filepath.Glob(filepath.Join(dir, "audit-*.log"))
		if err != nil {
			t.Fatal(err)
		}
		if len(plain) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%q are not compressed after a minute", plain)
		}
	}
}

func expectLine(t *testing.T, follow *Tailer, number int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l, err := follow.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf(`{"auditID":"%06d",`, number); !strings.HasPrefix(string(l.Bytes), want) || l.Fragment || l.Cut > 0 || l.Gap != nil {
		t.Fatalf("read %.40q, want %q", l.Bytes, want)
	}
}

// Notifications come after the directory came, went, and came again, without a poll in between that would hide it.
func TestNotifications(t *testing.T) {
	w := newWorldAt(t, filepath.Join(t.TempDir(), "audit", "audit.log"))
	follow := watcher{dir: w.dir}
	defer follow.close()
	for range 3 {
		if err := follow.renew(); !os.IsNotExist(err) || follow.hints() != nil {
			t.Fatalf("watching a directory that is missing: %v", err)
		}
		w.ok(os.Mkdir(w.dir, 0o700))
		w.ok(follow.renew())
		w.lines(1)
		<-follow.hints()
		w.ok(os.Rename(w.dir, w.dir+".away")) // and another in its place at once
		w.ok(os.Mkdir(w.dir, 0o700))
		w.ok(follow.renew())
		w.closeOut()
		w.lines(1)
		<-follow.hints()
		w.closeOut()
		w.ok(os.RemoveAll(w.dir))
		w.ok(os.RemoveAll(w.dir + ".away"))
	}
}

// A directory that is removed and made again can get the same inode: the watch of the old one is dead.
func TestDeadWatch(t *testing.T) {
	w := newWorldAt(t, filepath.Join(t.TempDir(), "audit", "audit.log"))
	w.ok(os.Mkdir(w.dir, 0o700))
	follow := watcher{dir: w.dir}
	defer follow.close()
	w.ok(follow.renew())
	old := follow.notify
	w.ok(os.Remove(w.dir))
	<-old.Events // of the removal, after which the list is empty
	w.ok(os.Mkdir(w.dir, 0o700))
	info, err := os.Stat(w.dir)
	w.ok(err)
	follow.watched = info // as if the inode had been given again
	w.ok(follow.renew())
	if follow.notify == old {
		t.Fatal("the dead watch is kept")
	}
}

// Followed from before there is a directory; notifications alone bring the lines, the poll comes too late.
func TestWatchFindsTheDirectory(t *testing.T) {
	w := newWorldAt(t, filepath.Join(t.TempDir(), "audit", "audit.log"))
	w.cfg.Poll = 200 * time.Millisecond
	follow, err := New(w.cfg, nil)
	w.ok(err)
	defer follow.Close()
	w.ok(os.Mkdir(w.dir, 0o700))
	for i := range 50 {
		w.raw(fmt.Sprintf("{\"auditID\":\"%06d\",\n", i))
		if i == 20 {
			w.rotate()
		}
		expectLine(t, follow, i)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	reg := prometheus.NewRegistry()
	before := runtime.NumGoroutine()
	w := newWorld(t)
	w.cfg.Registerer = reg
	w.lines(1)
	for range 20 {
		follow, err := New(w.cfg, nil) // the same metrics: they are taken back at Close
		w.ok(err)
		w.lines(5)
		follow.Close()
	}
	if _, err := New(Config{Path: filepath.Join(w.path, "x"), Logger: w.cfg.Logger, Registerer: reg}, nil); err == nil {
		t.Fatal("no error")
	}
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before { // fsnotify's says that it is done just before it is
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<16)
			t.Fatalf("more than %d goroutines:\n%s", before, buf[:runtime.Stack(buf, true)])
		}
		runtime.Gosched()
	}
	if families, err := reg.Gather(); err != nil || len(families) > 0 {
		t.Fatalf("%d metrics are left, %v", len(families), err)
	}
	fds, err := os.ReadDir("/proc/self/fd")
	w.ok(err)
	for _, fd := range fds {
		if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); strings.HasPrefix(to, w.dir) && to != w.path {
			t.Fatalf("%s is still open", to)
		}
	}
}

// Notifications are left alone for longest where nothing happens: not while a look could not settle what is there.
func TestQuiet(t *testing.T) {
	now := time.Date(2026, 11, 23, 20, 33, 23, 0, time.UTC)
	for _, row := range []struct {
		name    string
		changed time.Time
		want    time.Duration
	}{
		{"not settled", time.Time{}, quietLively},
		{"changed a moment ago", now.Add(-lively / 2), quietLively},
		{"the clock stepped back", now.Add(time.Hour), quietLively},
		{"unchanged", now.Add(-lively), quiet},
	} {
		c := chain{changed: row.changed}
		if got := c.quiet(now); got != row.want {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
}
