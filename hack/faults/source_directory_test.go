//go:build e2e

package faults

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

func init() {
	source(
		scenario{name: "the directory appears late", play: lateDirectory},
		scenario{name: "the directory vanishes and comes back", play: directoryAway},
		scenario{name: "the directory is deleted and made anew", play: directoryAnew},
		scenario{name: "the directory is renamed and made anew while Loki is away", play: directoryAnewUnread},
		scenario{name: "the directory is a link that is led elsewhere", play: directoryLinked},
		scenario{name: "the audit log and a backup are links", play: filesLinked},
		scenario{name: "permission for a new file lost and regained", play: fileForbidden},
		scenario{name: "permission for the directory lost and regained", play: directoryForbidden},
		scenario{name: "a file system without notifications", play: noEvents},
		scenario{name: "a FUSE mount, fstat by name", unordered: true, play: throughFUSE},
		scenario{name: "no inotify instance to be had", play: noInotify("max_inotify_instances")},
		scenario{name: "no inotify watch to be had", play: noInotify("max_inotify_watches")},
		scenario{name: "a path without an extension", play: otherName("kube-apiserver-audit")},
		scenario{name: "a path that ends in .json", play: otherName("kube-audit.json")},
	)
}

func lateDirectory(r *run) {
	dir := filepath.Dir(r.auditLog)
	r.must(os.Remove(dir))
	r.start()
	r.eventually("the agent waits", func() bool { return r.logged("does not exist yet") })
	r.must(os.Mkdir(dir, 0o700))
	w := r.byHand()
	r.by(w, 50)
	r.rotate(w)
	r.by(w, 50)
}

// directoryAway renames the directory while the apiserver goes on writing into a file in it.
func directoryAway(r *run) {
	dir := filepath.Dir(r.auditLog)
	w := r.byHand()
	r.start()
	r.by(w, 50)
	r.rotate(w)
	r.by(w, 50)
	r.allDelivered()
	r.must(os.Rename(dir, dir+".away"))
	r.by(w, 50)
	r.allDelivered() // the file in hand is held open
	r.must(os.Rename(dir+".away", dir))
	r.by(w, 50)
	r.rotate(w)
	r.by(w, 50)
}

func directoryAnew(r *run) {
	dir := filepath.Dir(r.auditLog)
	w := r.byHand()
	r.start()
	r.by(w, 100)
	r.allDelivered()
	r.must(os.RemoveAll(dir))
	r.by(w, 20) // into the deleted file
	r.allDelivered()
	w.close()
	r.must(os.Mkdir(dir, 0o700))
	r.by(w, 50)
	r.startedAgain()
	r.rotate(w)
	r.by(w, 50)
}

// directoryAnewUnread leaves what the agent holds open in a directory that it would not find again, with Loki away: it must not
// end before that is shipped. The apiserver has the file open for a while longer.
func directoryAnewUnread(r *run) {
	dir := filepath.Dir(r.auditLog)
	w := r.byHand()
	r.start()
	r.by(w, 50)
	r.allDelivered()
	r.answer("503", always(lokitest.Refused(http.StatusServiceUnavailable, "")))
	for range 3 {
		r.by(w, 50)
		r.rotate(w)
	}
	r.by(w, 50)
	r.saysAway()
	r.must(os.Rename(dir, dir+".old"))
	r.must(os.Mkdir(dir, 0o700))
	r.by(w, 50)
	w.close()
	r.by(w, 50)
	r.pass(2 * time.Second)
	r.must(r.agent.Running())
	r.server.Answer(nil)
	r.startedAgain()
	r.by(w, 50)
}

// directoryLinked has a link for a directory, to which another directory is given.
func directoryLinked(r *run) {
	first, second := r.makeDir("first"), r.makeDir("second")
	dir := filepath.Join(r.dir, "link")
	r.must(os.Symlink(first, dir))
	r.follow(filepath.Join(dir, "audit.log"))
	w := r.byHand()
	r.start()
	r.by(w, 50)
	r.rotate(w)
	r.by(w, 50)
	r.allDelivered()
	w.close()
	r.must(os.Remove(dir))
	r.must(os.Symlink(second, dir))
	r.by(w, 50)
	r.startedAgain()
	r.rotate(w)
	r.by(w, 50)
}

// filesLinked has files of the chain that lie elsewhere.
func filesLinked(r *run) {
	elsewhere := r.makeDir("elsewhere")
	w := r.byHand()
	r.by(w, 50)
	r.rotate(w)
	backup := backups(r.T, r.auditLog)[0]
	r.must(os.Rename(backup, filepath.Join(elsewhere, "backup")))
	r.must(os.Symlink(filepath.Join(elsewhere, "backup"), backup))
	w.close()
	r.must(os.Rename(r.auditLog, filepath.Join(elsewhere, "log")))
	r.must(os.Symlink("../elsewhere/log", r.auditLog))
	r.start()
	r.by(w, 50)
	r.rotate(w) // the link becomes a backup
	r.by(w, 50)
}

// startedAgain starts the agent again, as systemd would, when it has ended because the directory was replaced: Landlock, where the
// kernel has it, lets it read the first one only.
func (r *run) startedAgain() {
	r.Helper()
	if !r.logged("confined by Landlock") {
		return
	}
	select {
	case <-r.agent.Ended():
	case <-time.After(patience):
		r.Fatalf("the agent goes on; its log is %s", r.agent.LogFile())
	}
	if code, _ := r.agent.Stop(0); code != 1 || !r.logged("was replaced by another directory", "starts it again") {
		r.Errorf("the agent has ended with code %d, and does not say why; its log is %s", code, r.agent.LogFile())
	}
	r.checkPosition()
	r.start()
}

// readable lets the agent read what the apiserver writes.
func (r *run) readable(w *byHand) {
	if w.file == nil {
		w.open()
	}
	r.mode(r.auditLog, 0o644)
}

// unreadable waits until the agent says that it cannot read.
func (r *run) unreadable() {
	r.Helper()
	r.eventually("the agent says that it cannot read", func() bool {
		return r.metric("auditferry_unreadable") == 1 && r.logged("cannot be", "permission denied")
	})
}

func fileForbidden(r *run) {
	r.asNobody()
	w := r.byHand()
	r.readable(w)
	r.start()
	r.by(w, 50)
	r.allDelivered()
	r.rotate(w) // the new file is root's alone
	r.by(w, 50)
	r.unreadable()
	r.rotate(w)
	r.by(w, 50)
	r.readable(w) // but not the one before it, which comes first
	r.pass(time.Second)
	r.checkPosition()
	for _, backup := range backups(r.T, r.auditLog) {
		r.mode(backup, 0o644)
	}
}

func directoryForbidden(r *run) {
	r.asNobody()
	dir := filepath.Dir(r.auditLog)
	w := r.byHand()
	r.readable(w)
	r.start()
	r.by(w, 50)
	r.allDelivered()
	r.mode(dir, 0o700)
	for range 3 {
		r.by(w, 20)
		r.rotate(w)
		r.readable(w)
	}
	r.by(w, 20)
	r.unreadable()
	r.mode(dir, 0o755)
}

// noEvents has the kernel say that it watches the directory, and not do so, as on file systems that others write to.
func noEvents(r *run) {
	r.agent.Wrapper = []string{"strace", "-D", "-f", "-qq", "-e", "trace=inotify_add_watch", "-e", "inject=inotify_add_watch:retval=1",
		"-e", "signal=none", "-o", filepath.Join(r.dir, "strace.log"), "--"}
	w := r.byHand()
	r.by(w, 10)
	r.start()
	r.rotateDelivered(w)
	calls, err := os.ReadFile(filepath.Join(r.dir, "strace.log"))
	r.must(err)
	if !bytes.Contains(calls, []byte(filepath.Dir(r.auditLog)+`"`)) || r.watches() > 0 {
		r.Errorf("%d watches: the scenario tests nothing; %s", r.watches(), calls)
	}
}

// watches is how many inotify watches the agent has.
func (r *run) watches() (n int) {
	r.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", r.agent.PID()))
	r.must(err)
	for _, file := range files {
		if info, err := os.ReadFile(file); err == nil { // else closed meanwhile
			n += strings.Count(string(info), "inotify wd:")
		}
	}
	return n
}

// rotateDelivered writes a few files and waits for each.
func (r *run) rotateDelivered(w *byHand) {
	r.Helper()
	for range 5 {
		r.by(w, 50)
		r.allDelivered()
		r.by(w, 50)
		r.rotate(w)
	}
	r.by(w, 50)
	r.allDelivered()
}

// throughFUSE lets the agent read through a FUSE mount of the directory, which sends no notification of what is written below it.
// And it tells the inode and length of an open file by its name: after a rotation, of another file.
func throughFUSE(r *run) {
	mount := r.makeDir("mount")
	r.mountFUSE(filepath.Dir(r.auditLog), mount)
	notify, err := fsnotify.NewWatcher()
	r.must(err)
	r.Cleanup(func() {
		if err := notify.Close(); err != nil {
			r.Error(err)
		}
	})
	r.must(notify.Add(mount))
	w := r.byHand()
	r.agent.AuditLog = filepath.Join(mount, filepath.Base(r.auditLog))
	r.start()
	r.rotateDelivered(w)
	select {
	case event := <-notify.Events:
		r.Errorf("a notification came (%s): the scenario tests nothing", event.Op)
	case err := <-notify.Errors:
		r.Error(err)
	default:
	}
}

// mountFUSE mounts source on target until the scenario ends, without any caching of names and attributes.
func (r *run) mountFUSE(source, target string) {
	r.Helper()
	out, err := exec.CommandContext(r.ctx, "bindfs", "-o", "attr_timeout=0,entry_timeout=0,negative_timeout=0", source, target).CombinedOutput()
	if err != nil {
		r.Fatalf("bindfs (of Debian's package bindfs; it needs root and /dev/fuse): %v: %s", err, out)
	}
	r.Cleanup(func() {
		if out, err := exec.Command("fusermount3", "-u", "-z", target).CombinedOutput(); err != nil {
			r.Errorf("fusermount3: %v: %s", err, out)
		}
	})
}

func noInotify(limit string) func(*run) {
	return func(r *run) {
		r.limited(limit)
		w := r.byHand()
		r.by(w, 10)
		r.start()
		r.eventually("the agent says that it polls", func() bool { return r.logged("no notifications", "polling only") })
		r.rotateDelivered(w)
	}
}

func otherName(name string) func(*run) {
	return func(r *run) {
		r.follow(filepath.Join(filepath.Dir(r.auditLog), name))
		w := r.rotating()
		r.write(w, 2000)
		r.start()
		r.write(w, 2000)
		r.acknowledged()
		r.kill()
		r.write(w, 2000)
		if r.backups() < 3 {
			r.Errorf("%d rotations", r.backups())
		}
		r.start()
	}
}
