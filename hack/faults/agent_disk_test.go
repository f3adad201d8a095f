//go:build e2e

package faults

import (
	"net/http"
	"path/filepath"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

// diskFault is a system call that fails for the files of the agent's own state.
type diskFault struct {
	name string
	call string // as strace names it
	errs string
	path func(r *run) []string
}

func init() {
	for _, f := range []diskFault{
		{"ENOSPC on writing positions", "write", "ENOSPC", positionFiles},
		{"EIO on writing positions", "write", "EIO", positionFiles},
		{"ENOSPC on overwriting positions", "pwrite64", "ENOSPC", latestFiles},
		{"EIO on overwriting positions", "pwrite64", "EIO", latestFiles},
		{"EROFS on creating positions", "openat", "EROFS", positionFiles},
		{"EIO on fsync of positions", "fsync", "EIO", positionFiles},
		{"EIO on fsync of the directory", "fsync", "EIO", stateDir},
		{"EIO on rename of positions", "renameat", "EIO", positionFiles},
	} {
		register(scenario{side: "agent", name: f.name, play: f.onPositions})
	}
	for _, f := range []diskFault{
		{"ENOSPC on writing dead letters", "write", "ENOSPC", deadLetterFile},
		{"EIO on writing dead letters", "write", "EIO", deadLetterFile},
		{"EROFS on opening dead letters", "openat", "EROFS", deadLetterFile},
		{"EIO on fsync of dead letters", "fsync", "EIO", deadLetterFile},
	} {
		register(scenario{side: "agent", name: f.name, play: f.onDeadLetters, refuses: true})
	}
}

// positionFiles is the durable file as it is made; it gets its name by rename.
func positionFiles(r *run) []string { return []string{r.agent.PositionsFile() + ".tmp"} }

// latestFiles are overwritten in place.
func latestFiles(r *run) []string { return r.agent.LatestFiles() }

func stateDir(r *run) []string { return []string{r.agent.Dir} }

func deadLetterFile(r *run) []string {
	return []string{filepath.Join(r.agent.Dir, "dead-letters.jsonl")}
}

// onPositions has positions fail while events are shipped, which must go on: once until it is mended, once until SIGKILL.
func (f diskFault) onPositions(r *run) {
	w := r.rotating()
	r.start()
	r.write(w, 700)
	r.waitDelivered()

	disk := r.failing(f)
	r.untilInjected(disk, 3, func() { r.write(w, 50) })
	r.waitDelivered()
	if !r.logged("positions file cannot be written; shipping goes on") {
		r.Error("the agent did not log that positions cannot be written")
	}
	if n := r.metric("auditferry_positions_commit_failures_total"); n == 0 {
		r.Error("auditferry_positions_commit_failures_total is 0")
	}
	r.waitAcknowledged()
	if f.call == "pwrite64" {
		disk.mend()
		r.write(w, 50)
	} else { // what could not be written is tried again, and written at last, though no event comes that moves the position
		r.untilInjected(disk, disk.failures()+3, func() {})
		disk.mend()
	}
	r.eventually("the durable positions are after all that was written", func() bool {
		return r.lsn(r.positions().durable) == r.bytesWritten() && r.logged("positions file is written again")
	})

	disk = r.failing(f)
	r.untilInjected(disk, 3, func() { r.write(w, 50) })
	r.kill()
	disk.mend()
	r.write(w, 500)
	r.start()
}

// untilInjected repeats more until the disk has failed n times.
func (r *run) untilInjected(disk *failingDisk, n int, more func()) {
	r.Helper()
	r.eventually("the disk has failed", func() bool {
		more()
		return disk.failures() >= n
	})
}

// onDeadLetters has the dead-letter file fail: the refused event may not count as done.
func (f diskFault) onDeadLetters(r *run) {
	r.answer("push", func(request lokitest.Request) lokitest.Reply {
		reply := lokitest.Refusing(request, func(e lokitest.Entry) string {
			if n, known := r.ledger.number(e.LineHash); !known || n%200 != 100 {
				return ""
			}
			return "entry for stream '" + e.Stream + "' has timestamp too old"
		})
		if reply.Status == http.StatusBadRequest {
			r.happened("refused")
		}
		return reply
	})
	w := r.rotating()
	r.start()
	r.write(w, 700)
	r.waitDelivered()
	for _, mended := range []bool{true, false} {
		r.waitAcknowledged() // a letter that is written is not yet durable and counted
		letters, dropped, start := len(r.deadLetters()), r.metric("auditferry_dropped_entries_total"), len(r.ledger.list())
		disk := r.failing(f)
		r.write(w, 400)
		r.eventually("the disk has failed", func() bool {
			return disk.failures() >= 3 && r.logged("Loki does not take pushes", "reason=dead_letter")
		})
		if f.call != "fsync" && len(r.deadLetters()) != letters {
			r.Errorf("%d dead letters, though the file cannot be written", len(r.deadLetters())-letters)
		}
		if now := r.metric("auditferry_dropped_entries_total"); now != dropped {
			r.Errorf("auditferry_dropped_entries_total went from %v to %v without a dead letter that is durable", dropped, now)
		}
		first := (start+99)/200*200 + 100
		if start%200 <= 100 {
			first = start/200*200 + 100
		}
		if at, before := r.positionOnDisk(), r.ledger.list()[first-1].end; at > before {
			r.Errorf("the position is after %d bytes; the event that is refused and not in the dead letters begins at %d", at, before)
		}
		if mended {
			disk.mend()
			r.waitDelivered()
			continue
		}
		r.kill()
		disk.mend()
		r.start()
	}
}
