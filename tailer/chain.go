package tailer

import (
	"os"
	"slices"
	"sync"
	"time"

	"github.com/auditferry/auditferry/positions"
)

// maxOpen bounds the descriptors that one path holds. Backups beyond it are opened as those before them are done.
const maxOpen = 512

// settle is how old the last change of a directory must be before an equal modification time is believed to mean
// "unchanged": file systems keep it only as fine as the kernel's tick.
const settle = 100 * time.Millisecond

// chain knows the files of one path in reading order: those done with, the one in hand, those ahead. All from the one
// in hand on are held open from when they were first seen, because a backup can live for a fraction of a second.
type chain struct {
	dir      string
	names    namer
	maxGone  int64 // bytes of deleted files to hold
	maxOpen  int
	oldest   time.Time // see Config.Oldest
	old      Old       // what was left out for it
	observer *observer

	mu      sync.Mutex
	links   []*link
	at      int // index of the one in hand; len(links) is 0 as long as the path has no file
	changed time.Time
	looked  time.Time
	lost    pending
	where   os.FileInfo // the directory at the last look; nil if it was missing

	confined, denied bool // see Tailer.Confine; the last look was refused
	home             os.FileInfo
}

// scan looks at the directory and holds what is new. When nothing has changed it costs one stat, and one of the active
// file. While the directory is missing all stays as it was: it can come back as it was.
func (c *chain) scan(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.look(now)
	c.opened(err)
	return err
}

func (c *chain) look(now time.Time) error {
	c.watchLength()
	c.letGo(now)
	info, err := os.Stat(c.dir)
	c.stay(info)
	if err == nil && !c.changed.IsZero() && info.ModTime().Equal(c.changed) &&
		c.looked.Sub(c.changed) > settle {
		return c.hold()
	}
	return c.refresh(now)
}

// quiet is how long the directory can be left alone after a look.
func (c *chain) quiet(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changed.IsZero() || now.Sub(c.changed) < lively { // also if it did not settle, or the clock stepped back
		return quietLively
	}
	return quiet
}

// stay notes whether the directory is still the one that it was at the last look; nil if it is missing.
func (c *chain) stay(info os.FileInfo) {
	if c.where != nil && (info == nil || !os.SameFile(c.where, info)) {
		for _, l := range c.links {
			l.moved = true
		}
	}
	c.where = info
}

// refresh lists the directory until the chain agrees with it.
func (c *chain) refresh(now time.Time) error {
	c.changed = time.Time{}
	for range listAttempts {
		entries, changed, err := c.names.list(c.dir)
		if err != nil || changed.IsZero() {
			return err
		}
		settled, err := c.merge(entries, now)
		if err != nil {
			return err
		}
		if settled {
			c.changed, c.looked = changed, now
			return nil
		}
	}
	return nil
}

// inHand gives the file that is to be read now; not ok if there is none yet. It has no open file if it cannot be opened.
func (c *chain) inHand() (now link, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at >= len(c.links) {
		return link{}, false
	}
	return *c.links[c.at], true
}

// begun gives how far the files other than the one in hand have been read.
func (c *chain) begun() map[positions.Hash]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.others()
}

// superseded reports whether the file in hand has stopped growing: it is not the active one any more, and a later one
// has content. An empty later one does not tell: after an external mv, or with logrotate's create, the apiserver
// writes on to the old file until it rotates.
func (c *chain) superseded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at >= len(c.links) || c.links[c.at].kind == active && !c.links[c.at].gone {
		return false
	}
	for _, l := range c.links[min(c.at+1, len(c.links)):] {
		if l.stored() > 0 {
			return true
		}
	}
	return false
}

// identified notes the identity of the file in hand, once its first line is whole, and gives when it was rotated, if it
// was by now.
func (c *chain) identified(id positions.Hash) (rotated time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at >= len(c.links) {
		return rotated
	}
	l := c.links[c.at]
	l.id = id
	if l.kind == timed {
		rotated = l.time.Add(tick)
	}
	return rotated
}

// next puts the file in hand away, which was read up to there, and takes the one after it. If that cannot be opened, every
// look tries again, and tells.
func (c *chain) next(read int64, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	done := c.links[c.at]
	done.read, done.left, done.since, done.torn = read, done.file.end(), now, false
	if c.at+1 < len(c.links) {
		c.links[c.at+1].follows(done, c.pruned())
	}
	c.at++
	if done.canGrow() {
		done.file.drop()
	} else {
		done.file.close()
		done.file = nil
	}
	if done.gone && done.file == nil {
		c.links = slices.Delete(c.links, c.at-1, c.at)
		c.at--
	}
	c.letGo(now)
	if i := c.late(); i >= 0 {
		c.bring(i)
	}
	_ = c.hold()
}

// unread is the number of bytes on disk from the beginning of the file in hand on.
func (c *chain) unread() (sum int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, l := range c.links {
		switch {
		case i == c.at:
			sum += l.unread()
		case i > c.at:
			sum += max(0, l.unread()-l.read)
		default:
			sum += l.grown()
		}
	}
	return sum
}
