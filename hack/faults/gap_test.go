//go:build e2e

package faults

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

func init() {
	for _, s := range []scenario{
		{name: "the position's file pruned while the agent is down", play: positionPruned},
		{name: "the backups after the position's file pruned, agent down", play: nextPruned},
		{name: "two holes between files, agent down", play: twoHoles(false)},
		{name: "two holes between files, SIGKILL again and again", play: twoHoles(true)},
		{name: "backups come and go during SIGSTOP", play: prunedInStop},
		{name: "backups pruned beyond --hold-deleted in an outage", flags: []string{"--hold-deleted=1MiB"}, counted: true, play: beyondHold},
		{name: "truncated to nothing before it was read", counted: true, play: truncatedUnread},
		{name: "a .gz cut in the middle", play: cutPack},
		{name: "SIGKILL between a gap entry's push and its answer", play: killedInGap(pruneOnce)},
		{name: "SIGKILL between that push and its answer, truncated", play: killedInGap(truncateOnce)},
		{name: "SIGKILL between a gap and the next event", play: killedBeforeEvent},
	} {
		s.side, s.ordered, s.destroys = "gap", true, true
		register(s)
	}
}

// eventClock gives a writer whose backups are named by the time of the event that comes next, which is when lumberjack rotates.
// All of it lies in the past: quiet makes hours of it.
func (r *run) eventClock() *byHand {
	r.events.start = r.events.start.Add(-3 * time.Hour)
	w := r.byHand()
	w.now = func() time.Time { return r.events.start.Add(time.Duration(r.events.next) * time.Millisecond) }
	return w
}

// quiet is a time without events.
func (r *run) quiet() { r.events.start = r.events.start.Add(10 * time.Minute) }

// file writes a file of n events, a while after the one before it.
func (r *run) file(w *byHand, n int) {
	r.Helper()
	last := w.now().Add(-time.Millisecond)
	r.must(os.Chtimes(r.auditLog, last, last)) // as if it had been written then
	r.quiet()
	w.rotate()
	r.by(w, n)
}

// positionPruned deletes the file of the position, of which a part was not read, and the next one.
func positionPruned(r *run) {
	w := r.eventClock()
	r.by(w, 50)
	r.file(w, 50)
	r.start()
	r.acknowledged()
	r.kill()
	r.by(w, 30)
	for range 3 {
		r.file(w, 100)
	}
	if gone := prune(r.T, r.auditLog, 1); gone != 3 {
		r.Fatalf("%d backups deleted", gone)
	}
	r.start()
}

// nextPruned keeps the file of the position and deletes the two after it: nothing but the times tells.
func nextPruned(r *run) {
	w := r.eventClock()
	r.by(w, 50)
	r.start()
	r.acknowledged()
	r.stop()
	r.by(w, 30)
	for range 4 {
		r.file(w, 100)
	}
	remove(r.T, backups(r.T, r.auditLog)[1:3]...)
	r.start()
}

// twoHoles deletes every other file after the position's. With kills, no run of the agent lasts for long.
func twoHoles(kills bool) func(*run) {
	return func(r *run) {
		w := r.eventClock()
		r.by(w, 50)
		r.start()
		r.acknowledged()
		r.kill()
		for range 5 {
			r.file(w, 60)
		}
		all := backups(r.T, r.auditLog)
		remove(r.T, all[1], all[3])
		for n := range 20 {
			if !kills {
				break
			}
			r.start()
			r.pass(time.Duration(20*n) * time.Millisecond)
			r.kill()
		}
		r.start()
	}
}

// prunedInStop stops the agent for long enough that files come and go of which it never learns.
func prunedInStop(r *run) {
	w := r.eventClock()
	r.start()
	r.by(w, 50)
	r.file(w, 50)
	r.allDelivered()
	r.freeze()
	r.by(w, 30)
	for range 4 {
		r.file(w, 100)
	}
	prune(r.T, r.auditLog, 1)
	r.must(r.agent.Signal(syscall.SIGCONT))
	r.file(w, 50)
}

// beyondHold deletes more than may be held open while Loki is away.
func beyondHold(r *run) {
	w := r.eventClock()
	r.start()
	r.by(w, 50)
	r.allDelivered()
	r.server.Close()
	for range 8 {
		before := r.metric("auditferry_lag_bytes")
		r.file(w, 600) // 700 KB
		r.eventually("the agent has seen the file", func() bool { return r.metric("auditferry_lag_bytes") != before })
		prune(r.T, r.auditLog, 1)
	}
	r.eventually("the agent lets go of a file", func() bool { return r.metric("auditferry_lost_files_total") > 0 })
	_, err := r.server.Start()
	r.must(err)
	r.file(w, 50)
}

// truncatedUnread truncates the file in hand while Loki is away and most of it is not read.
func truncatedUnread(r *run) {
	w := r.eventClock()
	r.start()
	truncateOnce(r, w)
}

// truncateOnce takes Loki away, truncates the file in hand while most of it is not read, and brings Loki back.
func truncateOnce(r *run, w *byHand) {
	r.by(w, 50)
	w.close() // opened again with O_APPEND
	r.acknowledged()
	r.server.Close()
	r.by(w, 5000)
	size := r.bytesOnDisk()
	r.eventually("the agent has seen it", func() bool { return r.metric("auditferry_lag_bytes") > float64(size)/2 })
	r.pass(time.Second) // a look at it
	r.must(os.Truncate(r.auditLog, 0))
	// Only a look can tell, and a file that has grown back tells nothing.
	r.eventually("the agent has looked", func() bool { return r.metric("auditferry_lag_bytes") < float64(size)/2 })
	r.pass(time.Second)
	r.quiet()
	r.by(w, 100)
	_, err := r.server.Start()
	r.must(err)
}

// cutPack cuts a packed backup that was not read. What can be unpacked of it is delivered, the last line of that as a fragment.
func cutPack(r *run) {
	w := r.eventClock()
	r.by(w, 50)
	r.start()
	r.acknowledged()
	r.kill()
	r.file(w, 1000)
	r.file(w, 100)
	packed := backups(r.T, r.auditLog)[1]
	compress(r.T, packed, nil)
	packed += ".gz"
	info, err := os.Stat(packed)
	r.must(err)
	text, last := []byte(nil), []byte(nil)
	// What is left of the last line may not be a whole one, nor hold its time, which the agent does not look for in damage.
	for size := info.Size() / 2; len(last) == 0 || bytes.Contains(last, []byte(`"stageTimestamp"`)); size-- {
		r.must(os.Truncate(packed, size))
		text = r.unpack(packed)
		last = text[bytes.LastIndexByte(text, '\n')+1:]
	}
	if len(text) < 64<<10 {
		r.Fatalf("%d bytes can be unpacked", len(text))
	}
	r.wrote(last)
	r.by(w, 1)
	r.start()
}

// unpack gives what can be unpacked of a .gz that is cut.
func (r *run) unpack(name string) []byte {
	r.Helper()
	file, err := os.Open(name)
	r.must(err)
	defer file.Close()
	z, err := gzip.NewReader(file)
	r.must(err)
	text, err := io.ReadAll(z)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		r.Fatalf("the .gz is not cut: %v", err)
	}
	return text
}

// pruneOnce deletes the file of the position, and the next one, while the agent is down.
func pruneOnce(r *run, w *byHand) {
	r.by(w, 50)
	r.acknowledged()
	r.kill()
	for range 3 {
		r.file(w, 100)
	}
	prune(r.T, r.auditLog, 1)
	r.start()
}

// killedInGap kills the agent when its gap entry is stored and before it learns of that. The next run tells it again, with equal
// content, or it would be shown twice. Of a truncation that run sees no more than that the file of the position is gone.
func killedInGap(destroy func(*run, *byHand)) func(*run) {
	return func(r *run) {
		w := r.eventClock()
		never := make(chan struct{})
		r.Cleanup(func() { close(never) })
		r.server.Answer(func(request lokitest.Request) lokitest.Reply {
			for _, e := range request.Entries {
				if e.Labels["event"] == "gap" {
					r.happened("a gap entry came")
					return lokitest.After(never, lokitest.OK())
				}
			}
			return lokitest.OK()
		})
		r.start()
		destroy(r, w)
		r.eventually("a gap entry comes", func() bool { return r.times("a gap entry came") > 0 })
		r.kill()
		r.server.Answer(nil)
		r.by(w, 50)
		r.start()
		r.eventually("the gap entry comes again", func() bool {
			for _, e := range r.server.Entries() {
				if e.Labels["event"] == "gap" && e.Count > 1 {
					return true
				}
			}
			return false
		})
	}
}

// killedBeforeEvent kills the agent when it has read past a gap, and no event has come yet that says where the gap ends.
func killedBeforeEvent(r *run) {
	w := r.eventClock()
	r.start()
	r.by(w, 50)
	r.acknowledged()
	r.kill()
	before := r.positionOnDisk()
	r.by(w, 30)
	r.quiet()
	w.rotate()
	words := []byte("no event")
	r.wrote(words)
	w.write(words)
	prune(r.T, r.auditLog, 0)
	r.start()
	r.eventually("the position is after the line", func() bool { return r.positionOnDisk() > before })
	r.kill()
	r.by(w, 50)
	r.start()
}
