package main

import (
	"sync/atomic"
	"time"
)

// A pulse tells from outside whether a loop lives. The loop goes on by itself at least as often as its tailer looks at the directory,
// so nothing need wake it to find out.
type pulse struct {
	turns  atomic.Int64 // rises as the loop leaves what it awaited; the tailer counts the rest
	awaits atomic.Int32 // how many things are awaited now that may take for ever
}

// await begins to wait for what is no business of the loop, until end is called.
func (p *pulse) await() (end func()) {
	p.awaits.Add(1)
	return func() {
		p.turns.Add(1) // first: who sees that nothing is awaited any more must see that the loop went on
		p.awaits.Add(-1)
	}
}

// alive gives what rises while the loop lives, and whether it may stand still.
func (f *follower) alive() (turns int64, excused bool) {
	excused = f.pulse.awaits.Load() > 0
	return f.pulse.turns.Load() + f.tail.Turns(), excused
}

// A vigil judges the loops of the followers by looking at them from time to time.
//
// A loop is dead if it stands still in its own work (describing, batching), in its tailer, or at a lock. It is not, whatever it
// takes, while it waits for Loki, which it says (pulse), or for a file system that hangs, which the kernel says: then a thread
// stands in a system call. A restart would help against neither, and would take the other paths and destinations down. What waits
// for new lines turns over at each look at the directory.
type vigil struct {
	loops   []watchedLoop
	hung    map[string]bool // the system calls in which threads stood at the last look at which a loop stood still
	hanging func() map[string]bool
}

type watchedLoop struct {
	path     string
	alive    func() (turns int64, excused bool)
	patience time.Duration // it may stand still for so long
	turns    int64
	moved    time.Time // when turns was seen to have risen, or the loop to be excused
}

// newVigil judges loops that are looked at every interval. One that turns over less often, as it polls so seldom, gets longer.
func newVigil(followers []*follower, interval time.Duration, now time.Time) *vigil {
	v := &vigil{hanging: hangingCalls}
	for _, f := range followers {
		v.loops = append(v.loops, watchedLoop{path: f.path, alive: f.alive, patience: max(interval, 2*f.tail.Rest()), turns: -1, moved: now})
	}
	return v
}

// dead gives the path of a loop that is dead, and for how long it has been standing still; "" if there is none.
func (v *vigil) dead(now time.Time) (path string, still time.Duration) {
	for i := range v.loops {
		l := &v.loops[i]
		turns, excused := l.alive()
		if turns != l.turns || excused {
			l.turns, l.moved = turns, now
			continue
		}
		if s := now.Sub(l.moved); s >= l.patience && s > still {
			path, still = l.path, s
		}
	}
	if path == "" {
		v.hung = nil
		return "", 0
	}
	before := v.hung
	v.hung = v.hanging()
	for call := range v.hung {
		if before == nil || before[call] {
			return "", 0 // the file system hangs, or may: the next look tells
		}
	}
	return path, still
}
