//go:build e2e

package faults

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

func init() {
	for _, pack := range []bool{false, true} {
		packed := ", plain"
		if pack {
			packed = ", compressed"
		}
		register(scenario{side: "source", name: "two apiservers on one path" + packed, unordered: true, play: twoApiservers(pack)})
	}
	register(
		scenario{side: "source", name: "copytruncate, the writer appends", unordered: true, play: truncated(true)},
		scenario{side: "source", name: "copytruncate, the writer leaves a hole", unordered: true, play: truncated(false)},
		scenario{side: "source", name: "rm, the writer goes on", play: takenAway(os.Remove)},
		scenario{side: "source", name: "mv to another directory, the writer goes on", play: takenAway(func(path string) error {
			return os.Rename(path, filepath.Join(filepath.Dir(filepath.Dir(path)), "moved.log"))
		})},
		scenario{side: "source", name: "mv in the directory, the writer goes on", play: takenAway(func(path string) error {
			return os.Rename(path, path+".old")
		})},
		scenario{side: "source", name: "the clock steps back an hour, the agent runs", unordered: true, play: clockBack(afterAll)},
		scenario{side: "source", name: "the clock steps back an hour, the agent is down", unordered: true, play: clockBack(afterRotation)},
		scenario{side: "source", name: "the clock steps back an hour, the agent is down and behind", unordered: true, play: clockBack(beforeRotation)},
		scenario{side: "source", name: "truncated to a half, the reader has caught up", unordered: true, play: halved},
		scenario{side: "source", name: "half a line, and the rest 2 s later", play: tornLine},
		scenario{side: "source", name: "lines of 5 MB", play: longLines},
	)
}

// twoApiservers lets two writers have the same file open. Each rotates by its own count, so the other goes on appending to
// what has become a backup; once that is packed, to a file that has no name any more.
func twoApiservers(pack bool) func(*run) {
	return func(r *run) {
		w := r.byHand()
		r.by(w, 10)
		w.close()
		one, other := r.byHand(), r.byHand()
		r.start()
		both := func(n int) {
			for range n {
				r.by(one, 1)
				r.by(other, 1)
			}
		}
		both(50)
		r.allDelivered()
		for range 3 {
			backup := one.rotate()
			both(50)
			r.pass(time.Second) // the agent has come to the new file, and may think that the backup is done
			both(50)
			if pack {
				compress(r.T, backup, nil)
				both(50)
			}
			if size := r.bytesOnDisk(); size == r.bytesWritten() == pack {
				r.Errorf("%d bytes on disk, %d written, packed: %t", size, r.bytesWritten(), pack)
			}
			one, other = other, one
		}
	}
}

// truncated copies and truncates the file under the writer while the reader has caught up.
func truncated(appends bool) func(*run) {
	return func(r *run) {
		w := r.byHand()
		r.by(w, 10)
		w.rotate() // from here on without O_APPEND
		r.by(w, 10)
		if appends {
			w.close()
		}
		r.start()
		for range 3 {
			r.paced(w, 300)
			r.allDelivered()
			hole := copyTruncate(r.T, r.auditLog)
			r.paced(w, 100)
			text, err := os.ReadFile(r.auditLog)
			r.must(err)
			if holes := bytes.HasPrefix(text, make([]byte, hole)); holes == appends {
				r.Fatalf("the file begins with a hole of %d bytes: %t", hole, holes)
			}
		}
	}
}

// halved cuts off the second half of the file, which was read. Its first line stays.
func halved(r *run) {
	w := r.byHand()
	r.by(w, 100)
	w.close() // opened again with O_APPEND
	r.by(w, 100)
	r.start()
	for range 3 {
		r.allDelivered()
		info, err := os.Stat(r.auditLog)
		r.must(err)
		r.must(os.Truncate(r.auditLog, info.Size()/2))
		w.raw([]byte("\n")) // so that what follows the cut is a line
		r.paced(w, 50)
	}
	r.allDelivered()
	if r.metric("auditferry_truncations_total") == 0 {
		r.Error("the agent noticed no truncation")
	}
}

// takenAway removes the name of the file in hand. The apiserver notices when it rotates, and makes a new file.
func takenAway(take func(path string) error) func(*run) {
	return func(r *run) {
		w := r.byHand()
		r.start()
		for range 2 {
			r.by(w, 50)
			r.allDelivered()
			r.must(take(r.auditLog))
			for range 3 {
				r.by(w, 50)
				r.allDelivered() // though no name leads to it
			}
			r.by(w, 50)
			if backup := w.rotate(); backup != "" {
				r.Fatalf("there was a file to rename: %s", backup)
			}
		}
		r.by(w, 50)
		w.rotate()
		r.by(w, 50)
	}
}

// clockBack steps the clock back between two rotations, so that the names of later backups come before those of earlier ones.
// Events carry the same clock. The agent is down from when away says: from before the last rotation in the old time, from after
// it, or only when all is over.
func clockBack(away int) func(*run) {
	return func(r *run) {
		clock := time.Duration(0)
		w := r.byHand()
		w.now = func() time.Time { return time.Now().Add(clock) }
		leave := func(moment int) {
			if moment == away {
				r.allDelivered()
				r.kill()
			}
		}
		r.start()
		r.by(w, 50)
		leave(beforeRotation)
		r.by(w, 20)
		before := w.rotate()
		r.by(w, 50)
		leave(afterRotation)
		clock = -time.Hour
		r.events.shift -= rig.Shift(time.Hour)
		r.by(w, 50)
		after := w.rotate()
		if after > before {
			r.Fatalf("the clock did not step back: %s, then %s", before, after)
		}
		r.by(w, 50)
		w.rotate()
		r.by(w, 50)
		leave(afterAll)
		r.start()
		r.by(w, 50)
		w.rotate()
		r.by(w, 50)
	}
}

const (
	beforeRotation = iota
	afterRotation
	afterAll
)

// tornLine writes half a line. It may not be shipped as long as the rest can come.
func tornLine(r *run) {
	w := r.byHand()
	r.start()
	for range 3 {
		r.by(w, 10)
		r.allDelivered()
		before := len(r.server.Entries())
		line := r.nextEvent()
		w.raw(line[:len(line)/2])
		r.pass(2 * time.Second)
		if after := len(r.server.Entries()); after != before {
			r.Errorf("%d entries came of half a line", after-before)
		}
		w.raw(append(line[len(line)/2:], '\n'))
	}
}

// longLines writes responses of 5 MB among others.
func longLines(r *run) {
	const end = `,"requestReceivedTimestamp":`
	w := r.byHand()
	r.start()
	for n := range 4 {
		r.by(w, 20)
		line, err := r.events.line()
		r.must(err)
		at := bytes.LastIndex(line, []byte(end))
		body := `,"responseObject":{"kind":"ConfigMap","data":{"value":"` + strings.Repeat(string(rune('a'+n))+"0123456789", 5<<20/11) + `"}}`
		line = append(append(append([]byte{}, line[:at]...), body...), line[at:]...)
		r.wrote(line)
		w.write(line)
	}
	w.rotate()
	r.by(w, 20)
}
