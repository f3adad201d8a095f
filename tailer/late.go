package tailer

import (
	"slices"
	"time"
)

// Two apiservers can have overlapping lives on one path. Each rotates by its own count, so one goes on appending to a file
// that the other has renamed, and that has been left. Such files are kept open for a while, and turned back to when they
// have grown; also when gzip has taken their name away: what is written after it exists in the open file only.
const (
	keepLeft = 4           // files that are kept open after they were left
	lateFor  = time.Minute // for so long when they are deleted or packed: they take up disk
)

// canGrow reports whether somebody may go on writing to a file that was left.
func (l *link) canGrow() bool {
	return l.file != nil && !l.file.gz && (l.kind == timed || l.kind == active)
}

// grown is by how many bytes a file that was left has grown since.
func (l *link) grown() int64 {
	switch {
	case l.fresh:
		return max(1, l.unread())
	case l.torn:
		return l.left - l.read
	case l.canGrow():
		return max(0, l.file.stored()-l.left)
	case l.file == nil && l.kind == timed && l.gz:
		return max(0, l.length-l.read)
	case l.file == nil && l.kind == timed:
		return max(0, l.info.Size()-l.left)
	}
	return 0
}

// measure notes the unpacked length of a file that is not open and was packed: what came late is in the .gz only.
func (c *chain) measure(l *link) {
	if f, err := l.open(c.dir); err == nil {
		l.length = f.size()
		f.close()
	}
}

// late gives the index of a file that was left and has grown, -1 if there is none.
func (c *chain) late() int {
	return slices.IndexFunc(c.links[:min(c.at, len(c.links))], func(l *link) bool { return l.grown() > 0 })
}

// turnBack takes a file that was left and has grown before the one in hand, which is put aside, read up to there.
func (c *chain) turnBack(read int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.late()
	if i < 0 {
		return false
	}
	if l := c.links[i]; l.file == nil {
		if err := c.reopen(l); err != nil || l.file == nil {
			return false // the next look tells
		}
	}
	c.links[c.at].read = read
	c.bring(i)
	return true
}

// bring makes a file that was left the one in hand again.
func (c *chain) bring(i int) {
	l := c.links[i]
	l.after, l.again, l.fresh = time.Time{}, !l.fresh, false
	c.links = slices.Delete(c.links, i, i+1)
	c.at--
	c.links = slices.Insert(c.links, c.at, l)
}

// written reports whether a plain file that is open was written to of late.
func (l *link) written() bool {
	info, err := l.file.f.Stat()
	return err == nil && time.Since(info.ModTime()) < lateFor
}

// holdLeft opens the newest files that are done with at the start: another apiserver may be writing to them.
func (c *chain) holdLeft() {
	for _, l := range c.links[max(0, c.at-keepLeft):c.at] {
		if l.kind == timed && !l.gz {
			_ = c.reopen(l) // what cannot be opened now is looked at when the directory changes
			l.since = time.Now()
		}
	}
}

// letGo closes what was left long enough ago, and forgets it if it is deleted.
func (c *chain) letGo(now time.Time) {
	open := 0
	for i := min(c.at, len(c.links)) - 1; i >= 0; i-- {
		l := c.links[i]
		if l.file == nil {
			continue
		}
		open++
		if l.grown() > 0 || open <= keepLeft && (!l.gone && !l.gz || now.Sub(l.since) <= lateFor) {
			continue
		}
		if l.torn = l.read < l.left && l.file != nil && !l.file.gz; l.torn {
			continue // the reader takes the rest first
		}
		l.file.close()
		l.file = nil
		if l.gone {
			c.links = slices.Delete(c.links, i, i+1)
			c.at--
		}
	}
}
