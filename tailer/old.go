package tailer

import (
	"time"

	"github.com/auditferry/auditferry/positions"
)

// Old is backups that were left out because all that they hold is too old.
type Old struct {
	Files int
	Bytes int64 // as they lie on disk, as far as they were not read before
	// Until is when the last of them was rotated: nothing in them is newer. Zero if there are none.
	Until time.Time
}

// leaveOld passes over the backups before a backup that was rotated before the oldest time that counts, and reports whether
// there were any. The time in the file's own name is not enough: a second apiserver may have written on to it until it rotated
// itself. Only lumberjack's names tell a time, and only where they follow each other: after a step of the clock they do not.
func (c *chain) leaveOld() (any bool) {
	c.old = Old{}
	for c.at+1 < len(c.links) {
		l, next := c.links[c.at], c.links[c.at+1]
		if l.kind != timed || next.kind != timed || !l.time.Before(next.time) || !next.time.Before(c.oldest) {
			break
		}
		if bytes := l.notRead(); bytes > 0 {
			c.old.Files++
			c.old.Bytes += bytes
			c.old.Until = l.time
		}
		if l.file != nil {
			l.file.close()
			l.file = nil
		}
		l.done()
		c.at++
		any = true
	}
	return any
}

// notRead is how many bytes on disk of a file that the survey found are not read; of a .gz all or nothing.
func (l *link) notRead() int64 {
	switch {
	case l.read >= l.length:
		return 0
	case l.gz:
		return l.info.Size()
	}
	return l.length - l.read
}

// beginOf makes the place where the file in hand is to be read on the position.
func (c *chain) beginOf(at *positions.Position) {
	l := c.links[c.at]
	at.FirstLine, at.Offset, at.Name, at.Inode = l.id, l.read, l.stem, l.inode()
}
