//go:build e2e

package faults

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

// ledger knows what was written, in the order of writing. It may be used from several goroutines.
type ledger struct {
	mu    sync.Mutex
	lines []writtenLine
	known map[[sha256.Size]byte]int // where in lines
}

type writtenLine struct {
	hash [sha256.Size]byte
	time time.Time // its stageTimestamp; zero if it has none
	end  int64     // bytes written up to its end, newlines included
}

func newLedger() *ledger { return &ledger{known: map[[sha256.Size]byte]int{}} }

// wrote notes a line, given without its newline. It says whether it is a new one.
func (l *ledger) wrote(line []byte) bool {
	at, err := rig.StageTime(line)
	if err != nil {
		at = time.Time{}
	}
	w := writtenLine{hash: sha256.Sum256(line), time: at, end: int64(len(line)) + 1}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, twice := l.known[w.hash]; twice {
		return false
	}
	if n := len(l.lines); n > 0 {
		w.end += l.lines[n-1].end
	}
	l.known[w.hash] = len(l.lines)
	l.lines = append(l.lines, w)
	return true
}

// list gives a snapshot of what was written.
func (l *ledger) list() []writtenLine {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines[:len(l.lines):len(l.lines)]
}

// number gives the place of a line in list.
func (l *ledger) number(hash [sha256.Size]byte) (int, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, ok := l.known[hash]
	return n, ok
}
