//go:build e2e

package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

// ledger knows of every line where it stands in the audit log, and what became of it at the endpoint. Lines are numbered in
// the order of writing. A life is the time from one start of the agent to its end; the agent of each is known by its tenant.
type ledger struct {
	latency time.Duration // an answer takes between none of it and all

	mu      sync.Mutex
	changed sync.Cond
	random  *rand.Rand
	numbers map[[sha256.Size]byte]int
	ends    []int64 // unpacked bytes of the audit log up to the end of each line: the position after it
	acked   []bool
	prefix  int // all lines before this one are acknowledged
	room    int64
	current int
	lives   []life
	foreign int // entries that are no line as it was written
}

// life is what one agent, from its start to its end, has pushed.
type life struct {
	from            int // line before which its position on disk stood at its start
	pushes          int // that arrived
	lowest, highest int // line that arrived; -1 for none
}

func newLedger(latency time.Duration, random *rand.Rand) *ledger {
	l := &ledger{latency: latency, random: random, numbers: map[[sha256.Size]byte]int{}}
	l.changed.L = &l.mu
	return l
}

// begin notes that an agent is about to start whose position is before line from. It gives its tenant. The writer may be room
// bytes ahead of it.
func (l *ledger) begin(from int, room int64) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current = len(l.lives)
	l.lives = append(l.lives, life{from: from, lowest: -1, highest: -1})
	l.room = room
	l.changed.Broadcast()
	return strconv.Itoa(l.current)
}

// end notes that the agent is gone, with what position on disk. It gives the line before which that is, and how far the
// endpoint has acknowledged all lines. An acknowledgement that was due after the end counts no more.
func (l *ledger) end(position int64) (line, prefix int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current = -1
	if position == 0 {
		return 0, l.prefix, nil
	}
	line, found := slices.BinarySearch(l.ends, position)
	if !found {
		return 0, l.prefix, fmt.Errorf("the position %d is not the end of a line", position)
	}
	return line + 1, l.prefix, nil
}

// wrote notes a line, given without its newline, that is about to be written.
func (l *ledger) wrote(line []byte) error {
	hash := sha256.Sum256(line)
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, twice := l.numbers[hash]; twice {
		return fmt.Errorf("line %d was written before", len(l.ends))
	}
	l.numbers[hash] = len(l.ends)
	l.ends = append(l.ends, l.written()+int64(len(line))+1)
	l.acked = append(l.acked, false)
	return nil
}

func (l *ledger) written() int64 { return l.endOf(len(l.ends)) }

// endOf gives the bytes of the lines before line n.
func (l *ledger) endOf(n int) int64 {
	if n == 0 {
		return 0
	}
	return l.ends[n-1]
}

// waitForRoom waits until the agent is not too far behind, or ctx ends.
func (l *ledger) waitForRoom(ctx context.Context) error {
	return l.wait(ctx, func() bool { return l.written()-l.endOf(l.prefix) < l.room })
}

// waitForPushes waits until n pushes of the current life have arrived.
func (l *ledger) waitForPushes(ctx context.Context, n int) error {
	return l.wait(ctx, func() bool { return l.lives[l.current].pushes >= n })
}

// waitForAll waits until every line is acknowledged.
func (l *ledger) waitForAll(ctx context.Context) error {
	return l.wait(ctx, func() bool { return l.prefix == len(l.ends) })
}

func (l *ledger) wait(ctx context.Context, reached func() bool) error {
	stop := context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.changed.Broadcast()
	})
	defer stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for !reached() {
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %d lines written, %d acknowledged in a row", ctx.Err(), len(l.ends), l.prefix)
		}
		l.changed.Wait()
	}
	return nil
}

// answer is the script of the endpoint: it stores all, and answers after a while.
func (l *ledger) answer(r lokitest.Request) lokitest.Reply {
	l.mu.Lock()
	defer l.mu.Unlock()
	of, err := strconv.Atoi(r.Tenant)
	if err != nil || of >= len(l.lives) {
		return lokitest.Refused(401, "unknown tenant")
	}
	in := &l.lives[of]
	in.pushes++
	var lines []int
	for _, e := range r.Entries {
		n, known := l.numbers[e.LineHash]
		if !known {
			l.foreign++
			continue
		}
		lines = append(lines, n)
		if in.lowest < 0 || n < in.lowest {
			in.lowest = n
		}
		in.highest = max(in.highest, n)
	}
	answered := make(chan struct{})
	time.AfterFunc(time.Duration(l.random.Int64N(int64(l.latency))), func() {
		l.acknowledge(of, lines)
		close(answered)
	})
	l.changed.Broadcast()
	return lokitest.After(answered, lokitest.OK())
}

// acknowledge notes lines as acknowledged, just before the answer is sent, if there is still an agent to hear it.
func (l *ledger) acknowledge(of int, lines []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if of != l.current {
		return
	}
	for _, n := range lines {
		l.acked[n] = true
	}
	for l.prefix < len(l.acked) && l.acked[l.prefix] {
		l.prefix++
	}
	l.changed.Broadcast()
}

// batches gives how many batches, of at most size bytes of lines or of one line, the lines in [from, to) are at the least.
func (l *ledger) batches(from, to int, size int64) int {
	count, filled := 0, size
	for n := from; n < to; n++ {
		bytes := l.ends[n] - l.endOf(n) - 1
		if count == 0 || filled+bytes > size {
			count, filled = count+1, 0
		}
		filled += bytes
	}
	return count
}
