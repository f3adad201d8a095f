//go:build e2e

package faults

import (
	"path/filepath"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

func init() {
	for _, pack := range []bool{false, true} {
		packed := ", plain"
		if pack {
			packed = ", compressed"
		}
		register(
			scenario{side: "source", name: "burst, maxsize 1, maxbackup 3, Loki slow" + packed, play: burst(3, pack)},
			scenario{side: "source", name: "burst, maxsize 1, all kept, Loki slow" + packed, play: burst(0, pack)},
			scenario{side: "source", name: "20 rotations a second" + packed, play: rotateFast(pack)},
			scenario{side: "source", name: "rotated while the agent is down, SIGTERM" + packed, play: rotatedWhileDown((*run).stop, pack)},
			scenario{side: "source", name: "rotated while the agent is down, SIGKILL" + packed, play: rotatedWhileDown((*run).kill, pack)},
			scenario{side: "source", name: "3 rotations while Loki is down, maxbackup 1" + packed, play: rotatedInOutage(pack)},
		)
	}
	register(
		scenario{side: "source", name: "plain and half a .gz side by side at a start", play: halfPacked},
		scenario{side: "source", name: "a new file with the inode of the position", play: sameInode},
	)
}

// burst writes 5 MB a second, faster than Loki answers. With maxbackup 3 most of it is deleted before it is read.
func burst(keep int, pack bool) func(*run) {
	return func(r *run) {
		r.answer("slow", slowly(250*time.Millisecond))
		r.start()
		stop := r.keepWriting(rig.WriterConfig{MaxSize: 1, MaxBackups: keep, Compress: pack, PerSecond: 4000})
		const behind = 5 << 20 // more than four files hold
		r.eventually("the agent is far behind", func() bool {
			return r.bytesWritten() > 25<<20 && r.metric("auditferry_lag_bytes") > behind
		})
		if keep > 0 && r.backups() > keep+2 {
			r.Errorf("%d backups lie there: none was deleted", r.backups())
		}
		stop()
		r.server.Answer(nil)
	}
}

// rotateFast rotates twenty times a second; a backup lives for two seconds.
func rotateFast(pack bool) func(*run) {
	const rotations, pause = 120, 50 * time.Millisecond
	return func(r *run) {
		r.start()
		w := rig.NewWriter(rig.WriterConfig{Path: r.auditLog, MaxSize: 100, MaxBackups: 40, Compress: pack})
		begin := time.Now()
		for n := range rotations {
			r.write(w, 5)
			r.must(w.Rotate())
			// Two in one millisecond would give one name twice.
			r.pass(max(2*time.Millisecond, time.Until(begin.Add(time.Duration(n+1)*pause))))
		}
		if took := time.Since(begin); took > 2*rotations*pause {
			r.Errorf("%d rotations took %s: they were not fast", rotations, took)
		}
		r.write(w, 5)
		r.must(w.Close())
		r.eventually("old backups are deleted", func() bool { return r.backups() <= 40 })
	}
}

// rotatedWhileDown ends the agent in the middle of a file that is a backup, and packed, when it starts again.
func rotatedWhileDown(end func(*run), pack bool) func(*run) {
	return func(r *run) {
		w := rig.NewWriter(rig.WriterConfig{Path: r.auditLog, MaxSize: 1, Compress: pack})
		r.start()
		r.write(w, 300)
		r.allDelivered()
		end(r)
		r.write(w, 4000)
		if r.backups() < 3 {
			r.Fatalf("%d rotations while the agent was down", r.backups())
		}
		if pack {
			r.without("all backups are packed", r.allPacked)
		}
		r.start()
		r.write(w, 100)
		r.must(w.Close())
	}
}

// rotatedInOutage deletes backups that the agent can read only because it holds them open.
func rotatedInOutage(pack bool) func(*run) {
	return func(r *run) {
		r.start()
		w := rig.NewWriter(rig.WriterConfig{Path: r.auditLog, MaxSize: 1, MaxBackups: 1, Compress: pack, PerSecond: 1500})
		r.write(w, 100)
		r.allDelivered()
		r.server.Close()
		r.write(w, 4000)
		r.eventually("all backups but one are deleted", func() bool { return r.backups() == 1 })
		if lag, disk := int64(r.metric("auditferry_lag_bytes")), r.bytesOnDisk(); lag < 3<<20 || disk > lag-1<<20 {
			r.Errorf("%d bytes to ship, %d on disk: nothing was deleted that was not read", lag, disk)
		}
		_, err := r.server.Start()
		r.must(err)
		r.write(w, 100)
		r.must(w.Close())
	}
}

// halfPacked starts the agent while a backup is being compressed, and finishes that while it runs.
func halfPacked(r *run) {
	w := r.byHand()
	r.by(w, 400)
	backup := w.rotate()
	r.by(w, 100)
	compress(r.T, backup, func() {
		if !exists(backup) || !exists(backup+".gz") {
			r.Fatal("they do not lie side by side")
		}
		r.start()
		r.eventually("something is delivered", func() bool { return r.server.Requests() > 0 })
	})
	r.by(w, 100)
}

// sameInode makes a file with another first line that has the inode in the position: lumberjack deletes the plain form of a
// backup, and the file system gives its inode to the next file.
func sameInode(r *run) {
	w := r.byHand()
	r.start()
	r.by(w, 50)
	r.allDelivered()
	r.kill()
	inode := r.inode(r.auditLog)
	for tries := 0; tries == 0 || r.inode(r.auditLog) != inode; tries++ {
		if tries == 50 {
			r.Fatalf("the file system of %s does not give an inode again", filepath.Dir(r.auditLog))
		}
		r.by(w, 20)
		compress(r.T, w.rotate(), nil)
		r.by(w, 1)
	}
	r.by(w, 100) // past the offset in the position
	r.start()
}
