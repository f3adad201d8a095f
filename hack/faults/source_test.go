//go:build e2e

package faults

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

// source registers scenarios whose events carry the time at which they are written.
func source(of ...scenario) {
	for _, s := range of {
		play := s.play
		s.side, s.play = "source", func(r *run) {
			r.events.now = time.Now
			play(r)
		}
		register(s)
	}
}

// byHand gives a writer of the audit log that does one step at a time.
func (r *run) byHand() *byHand { return newByHand(r.T, r.auditLog) }

// by writes n events through w.
func (r *run) by(w *byHand, n int) {
	r.Helper()
	for range n {
		w.write(r.nextEvent())
	}
}

// rotate rotates w as lumberjack does, to make room for an event: it is the first of the new file, and from before the rotation.
func (r *run) rotate(w *byHand) (backup string) {
	r.Helper()
	line := r.nextEvent()
	backup = w.rotate()
	w.write(line)
	return backup
}

// paced writes n events through w, at most a thousand a second.
func (r *run) paced(w *byHand, n int) {
	r.Helper()
	for range n {
		r.by(w, 1)
		r.pass(time.Millisecond)
	}
}

// allDelivered waits until Loki has what was written so far: the reader has caught up.
func (r *run) allDelivered() {
	r.Helper()
	n := len(r.ledger.list())
	r.eventually("all that was written is delivered", func() bool {
		v := r.look()
		return v.delivered >= n
	})
}

// acknowledged waits until the position on disk is after all that was written, so that it outlives a SIGKILL.
func (r *run) acknowledged() {
	r.Helper()
	r.eventually("the position is after all that was written", func() bool { return r.positionOnDisk() >= r.bytesWritten() })
}

// without waits until check holds while no agent runs.
func (r *run) without(what string, check func() bool) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	if err := rig.Poll(ctx, func() (bool, error) { return check(), nil }); err != nil {
		r.Fatalf("waiting until %s: %v", what, err)
	}
}

// bytesWritten is the length of all that was written, unpacked.
func (r *run) bytesWritten() int64 {
	lines := r.ledger.list()
	if len(lines) == 0 {
		return 0
	}
	return lines[len(lines)-1].end
}

// bytesOnDisk is the length of all files in the directory of the audit log.
func (r *run) bytesOnDisk() (sum int64) {
	r.Helper()
	files, err := os.ReadDir(filepath.Dir(r.auditLog))
	r.must(err)
	for _, file := range files {
		if info, err := file.Info(); err == nil { // else it was deleted meanwhile
			sum += info.Size()
		}
	}
	return sum
}

// held waits until the agent holds the active file open: from then on nothing that was written up to now can be taken away from
// it, however late it is.
func (r *run) held() {
	r.Helper()
	r.eventually("the agent holds the active file", func() bool {
		active, err := os.Stat(r.auditLog)
		r.must(err)
		open, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", r.agent.PID()))
		r.must(err)
		return slices.ContainsFunc(open, func(link string) bool {
			info, err := os.Stat(link)
			return err == nil && os.SameFile(active, info) // else closed meanwhile
		})
	})
}

// freeze stops the agent by SIGSTOP and waits until each of its threads stands still.
func (r *run) freeze() {
	r.Helper()
	r.must(r.agent.Signal(syscall.SIGSTOP))
	r.eventually("the agent stands still", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", r.agent.PID()))
		r.must(err)
		return !slices.ContainsFunc(threads, func(name string) bool {
			stat, err := os.ReadFile(name)
			return err == nil && !strings.Contains(string(stat), ") T ") // else the thread has ended
		})
	})
}

// inode gives that of a file.
func (r *run) inode(path string) uint64 {
	r.Helper()
	info, err := os.Stat(path)
	r.must(err)
	return info.Sys().(*syscall.Stat_t).Ino
}

// follow makes another path that of the audit log. The agent must not have run yet.
func (r *run) follow(path string) { r.auditLog, r.agent.AuditLog = path, path }

// allPacked says whether there are backups, and each of them as .gz only.
func (r *run) allPacked() bool {
	r.Helper()
	names := backups(r.T, r.auditLog)
	for _, name := range names {
		if !strings.HasSuffix(name, ".gz") {
			return false
		}
	}
	return len(names) > 0
}

// answerBehind has Loki store all and answer each push only when so many bytes were written after what it holds, and not within
// a quarter of a second: so the agent is that far behind, however slow the machine makes the writer. hurry ends it.
func (r *run) answerBehind(bytes int64) (hurry func()) {
	var over atomic.Bool
	r.answer("slow", func(request lokitest.Request) lokitest.Reply {
		var end int64
		for _, e := range request.Entries {
			if n, known := r.ledger.number(e.LineHash); known {
				end = max(end, r.ledger.list()[n].end)
			}
		}
		answered := make(chan struct{})
		var look func()
		look = func() {
			if over.Load() || r.ctx.Err() != nil || r.bytesWritten()-end > bytes {
				close(answered)
				return
			}
			time.AfterFunc(50*time.Millisecond, look)
		}
		time.AfterFunc(250*time.Millisecond, look)
		return lokitest.After(answered, lokitest.OK())
	})
	return func() {
		over.Store(true)
		r.server.Answer(nil)
	}
}

// asNobody makes the agent run as uid 65534, which permissions hold for, with a copy of the binary that it may read.
func (r *run) asNobody() {
	r.Helper()
	if os.Geteuid() != 0 {
		r.Fatal("giving the agent another user takes root")
	}
	bin := filepath.Join(r.makeDir("bin"), "auditferry")
	text, err := os.ReadFile(r.agent.Binary)
	r.must(err)
	r.must(os.WriteFile(bin, text, 0o755))
	r.must(os.Chmod(r.dir, 0o755))
	r.must(os.Chown(r.agent.Dir, 65534, 65534))
	r.agent.Binary = bin
	r.agent.Wrapper = []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"}
}

// limited makes the agent run in a user namespace of its own in which a limit of the kernel is 0.
func (r *run) limited(limit string) {
	r.agent.Wrapper = []string{"unshare", "--user", "--map-root-user", "sh", "-ec", "echo 0 >/proc/sys/user/" + limit + `; exec "$@"`, "sh"}
}

// mode changes that of a file or directory.
func (r *run) mode(path string, mode fs.FileMode) {
	r.Helper()
	r.must(os.Chmod(path, mode))
}
