//go:build e2e

package faults

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func init() {
	for _, pack := range []bool{false, true} {
		packed := ", plain"
		if pack {
			packed = ", compressed"
		}
		source(scenario{name: "two apiservers on one path" + packed, unordered: true, play: twoApiservers(pack), torn: true})
	}
	source(
		scenario{name: "copytruncate, the writer appends", unordered: true, play: truncated(true)},
		scenario{name: "copytruncate, the writer leaves a hole", unordered: true, play: truncated(false)},
		scenario{name: "copytruncate while Loki is down", unordered: true, play: truncatedInOutage(1)},
		scenario{name: "copytruncate twice while Loki is down", unordered: true, play: truncatedInOutage(2)},
		scenario{name: "rm, the writer goes on", play: takenAway(os.Remove)},
		scenario{name: "mv to another directory, the writer goes on", play: takenAway(func(path string) error {
			return os.Rename(path, filepath.Join(filepath.Dir(filepath.Dir(path)), "moved.log"))
		})},
		scenario{name: "mv in the directory, the writer goes on", play: takenAway(func(path string) error {
			return os.Rename(path, path+".old")
		})},
		scenario{name: "the clock steps back an hour, the agent runs", unordered: true, play: clockBack(afterAll)},
		scenario{name: "the clock steps back an hour, the agent is down", unordered: true, play: clockBack(afterRotation)},
		scenario{name: "the clock steps back an hour, the agent is down and behind", unordered: true, play: clockBack(beforeRotation)},
		scenario{name: "the clock steps back an hour before the first start", unordered: true, play: clockBack(beforeStart)},
		scenario{name: "truncated to a half, the reader has caught up", unordered: true, play: halved},
		scenario{name: "half a line, and the rest 2 s later", play: tornLine},
		scenario{name: "lines of 5 MB", play: longLines},
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
			backup := r.rotate(one)
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
		r.rotate(w) // from here on without O_APPEND
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

// truncatedInOutage copies and truncates what is not read yet: the copies have it.
func truncatedInOutage(times int) func(*run) {
	return func(r *run) {
		w := r.byHand()
		r.by(w, 10)
		w.close() // opened again with O_APPEND
		r.start()
		r.allDelivered()
		r.server.Close()
		for range times {
			r.by(w, 2000)
			r.pass(time.Second) // a look at it
			copyTruncate(r.T, r.auditLog)
			r.pass(time.Second)
			r.paced(w, 300)
		}
		_, err := r.server.Start()
		r.must(err)
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
		text, err := os.ReadFile(r.auditLog)
		r.must(err)
		// What the cut has left of a line is one of its own, and damaged.
		r.wrote(text[bytes.LastIndexByte(text, '\n')+1:])
		w.raw([]byte("\n"))
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
			if backup := r.rotate(w); backup != "" {
				r.Fatalf("there was a file to rename: %s", backup)
			}
		}
		r.by(w, 50)
		r.rotate(w)
		r.by(w, 50)
	}
}

// clockBack steps the clock back between two rotations, so that the names of later backups come before those of earlier ones.
// Events carry the same clock. The agent is down from when away says: from the beginning, from
// before the last rotation in the old time, from after it, or only when all is over.
func clockBack(away int) func(*run) {
	return func(r *run) {
		clock := time.Duration(0)
		w := r.byHand()
		w.now = func() time.Time { return time.Now().Add(clock) }
		r.events.now = w.now
		leave := func(moment int) {
			if moment == away {
				r.acknowledged()
				r.kill()
			}
		}
		if away != beforeStart {
			r.start()
		}
		r.by(w, 50)
		leave(beforeRotation)
		r.by(w, 20)
		before := r.rotate(w)
		r.by(w, 50)
		if away == afterAll {
			r.allDelivered()
		}
		leave(afterRotation)
		clock = -time.Hour
		r.by(w, 50)
		after := r.rotate(w)
		if after > before {
			r.Fatalf("the clock did not step back: %s, then %s", before, after)
		}
		r.by(w, 50)
		r.rotate(w)
		r.by(w, 50)
		leave(afterAll)
		r.start()
		r.by(w, 50)
		r.rotate(w)
		r.by(w, 50)
	}
}

const (
	beforeStart = iota
	beforeRotation
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
	w := r.byHand()
	r.start()
	for n := range 4 {
		r.by(w, 20)
		value := strings.Repeat(string(rune('a'+n))+"0123456789", 5<<20/11)
		line := withResponse(r.event(), []byte(`{"kind":"ConfigMap","data":{"value":"`+value+`"}}`))
		r.wrote(line)
		w.write(line)
	}
	r.rotate(w)
	r.by(w, 20)
}

// withResponse gives an event with a response.
func withResponse(event, response []byte) []byte {
	at := bytes.LastIndex(event, []byte(`,"requestReceivedTimestamp":`))
	return join(event[:at], []byte(`,"responseObject":`), response, event[at:])
}
