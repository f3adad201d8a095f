package tailer

import (
	"slices"
	"time"
)

// paceOf is how many rotations, the newest ones, tell how often the log is rotated.
const paceOf = 10

// Headroom is how long it will take until the file that is read now is deleted, if the log is rotated at the pace of late
// and as many backups are kept as there are now: kube-apiserver's --audit-log-maxbackup is not known, but it is not less. It is
// 0 for a file that is deleted already and held open, and negative as long as too few rotations have been seen to tell.
func (t *Tailer) Headroom(now time.Time) time.Duration { return t.chain.headroom(now) }

func (c *chain) headroom(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	var rotations []time.Time
	older := 0 // backups that are deleted before the file in hand
	for i, l := range c.links {
		if l.gone && i == c.at && l.kind != active {
			return 0
		}
		if l.gone || l.kind == active {
			continue
		}
		if i < c.at {
			older++
		}
		rotations = append(rotations, l.rotated())
	}
	if len(rotations) < 2 {
		return -1
	}
	slices.SortFunc(rotations, time.Time.Compare)
	rotations = rotations[max(0, len(rotations)-paceOf):]
	first, last := rotations[0], rotations[len(rotations)-1]
	interval := last.Sub(first) / time.Duration(len(rotations)-1)
	passed := max(0, now.Sub(last))
	interval = max(interval, passed) // it has become quiet
	return max(0, time.Duration(older+1)*interval-passed)
}
