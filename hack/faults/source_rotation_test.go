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
		source(
			scenario{name: "burst, maxsize 1, maxbackup 3, Loki slow" + packed, play: burst(3, pack)},
			scenario{name: "burst, maxsize 1, all kept, Loki slow" + packed, play: burst(0, pack)},
			scenario{name: "20 rotations a second" + packed, play: rotateFast(pack)},
			scenario{name: "rotated while the agent is down, SIGTERM" + packed, play: rotatedWhileDown((*run).stop, pack)},
			scenario{name: "rotated while the agent is down, SIGKILL" + packed, play: rotatedWhileDown((*run).kill, pack)},
			scenario{name: "3 rotations while Loki is down, maxbackup 1" + packed, play: rotatedInOutage(pack)},
		)
	}
	source(
		scenario{name: "plain and half a .gz side by side at a start", play: halfPacked},
		scenario{name: "a new file with the inode of the position", play: sameInode},
	)
}

// burst writes ten and more files a second, faster than Loki answers. With maxbackup 3 most of it is deleted before it is read.
func burst(keep int, pack bool) func(*run) {
	return func(r *run) {
		const behind = 10 << 20 // more than four files hold
		hurry := r.answerBehind(behind)
		defer hurry()
		r.start()
		w := rig.NewWriter(rig.WriterConfig{Path: r.auditLog, MaxSize: 1, MaxBackups: keep, Compress: pack})
		for range 70 {
			r.write(w, 400) // half a file
			r.held()
		}
		r.must(w.Close())
		if lag := r.metric("auditferry_lag_bytes"); lag < behind {
			r.Errorf("the agent is only %.0f bytes behind", lag)
		}
		if n := r.backups(); n < 20 && keep == 0 {
			r.Errorf("%d backups", n)
		}
		if keep > 0 {
			r.eventually("backups are deleted", func() bool { return r.backups() == keep })
		}
	}
}

// rotateFast rotates twenty times a second; a backup lives for two seconds.
func rotateFast(pack bool) func(*run) {
	const rotations, pause = 120, 45 * time.Millisecond // and 5 for the work
	return func(r *run) {
		r.start()
		w := rig.NewWriter(rig.WriterConfig{Path: r.auditLog, MaxSize: 100, MaxBackups: 40, Compress: pack})
		fast := 0
		for n := range rotations {
			begin := time.Now()
			// It makes room for the next event, which is older.
			line := r.nextEvent()
			r.must(w.Rotate())
			r.must(w.Write(r.ctx, line))
			r.write(w, 4)
			if n%20 == 19 {
				r.held() // it may be late by a second, not by two
			}
			r.pass(pause)
			if time.Since(begin) < 2*pause {
				fast++
			}
		}
		if fast < rotations/2 {
			r.Errorf("%d of %d rotations were fast", fast, rotations)
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
		r.acknowledged()
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
		w := rig.NewWriter(rig.WriterConfig{Path: r.auditLog, MaxSize: 1, MaxBackups: 1, Compress: pack})
		r.write(w, 100)
		r.allDelivered()
		r.server.Close()
		for range 10 {
			r.write(w, 400) // half a file
			r.held()
		}
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
	backup := r.rotate(w)
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
// backup, and the file system gives its inode to the next file. Another scenario's may be faster: then it is done over.
func sameInode(r *run) {
	w := r.byHand()
	for tries := 1; ; tries++ {
		r.start()
		r.by(w, 50)
		r.acknowledged()
		r.kill()
		inode := r.inode(r.auditLog)
		r.by(w, 20)
		compress(r.T, r.rotate(w), nil)
		backup := r.rotate(w)
		r.by(w, 100) // past the offset in the position
		if r.inode(r.auditLog) == inode {
			compress(r.T, backup, nil)
			break
		}
		if tries == 20 {
			r.Fatalf("the file system of %s does not give an inode again", filepath.Dir(r.auditLog))
		}
	}
	r.start()
}
