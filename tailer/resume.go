package tailer

import (
	"slices"
	"time"

	"github.com/auditferry/auditferry/positions"
)

// olderBackup is how long before the last acknowledged event a backup must have been rotated for it to count as read
// when the file of that event is gone. Lines are out of order by up to 2.2 s (DESIGN, "The real logs").
const olderBackup = time.Minute

// resume goes to the position. If no file has its first line, the file is gone. Of the others, what the position says was
// read is done with; the rest is to be read, wherever the names place it: after a step of the clock they lie.
func (c *chain) resume(from positions.Position) (at positions.Position, gap bool, err error) {
	at = from
	i := c.find(from)
	var current *link
	if i >= 0 {
		current = c.links[i]
	}
	var done, todo []*link
	for j, l := range c.links {
		switch {
		case l == current:
		case c.wasRead(l, j < i || i < 0 && l.rotated().Before(from.EventTime.Add(-olderBackup)), from):
			done = append(done, l)
		default:
			todo = append(todo, l)
		}
	}
	switch {
	case current == nil:
		at.FirstLine, at.Offset = positions.Hash{}, 0
		gap = from.Identified()
	case current.kind == active:
		todo = append(todo, current)
	default:
		todo = slices.Insert(todo, 0, current)
	}
	c.links, c.at = append(done, todo...), len(done)
	if current == nil {
		return at, gap, nil
	}
	current.read = from.Offset
	if todo[0] != current {
		return at, false, nil
	}
	if err := c.openFirst(current); err != nil {
		return at, false, err
	}
	if between, err := current.file.seek(from.Offset); err != nil || !between {
		// The file was damaged or rewritten since: it is read again, and Loki drops what it has.
		current.file.rewind()
		current.read = 0
	}
	at.Offset = current.file.offset
	return at, false, nil
}

// wasRead reports whether there is nothing to read in a file other than the position's, and notes how far it was read.
// before is what its name says, which counts where the position does not know.
func (c *chain) wasRead(l *link, before bool, from positions.Position) bool {
	if from.Others == nil || l.id == (positions.Hash{}) || l.id == from.FirstLine || c.twins(l.id) {
		if before && l.kind != active {
			l.done()
			return true
		}
		return false
	}
	read, known := from.Others[l.id]
	if known && l.kind != active && l.length <= read {
		l.done()
		return true
	}
	l.read = read
	return false
}

// twins reports whether several files have this identity.
func (c *chain) twins(id positions.Hash) bool {
	n := 0
	for _, l := range c.links {
		if l.id == id {
			n++
		}
	}
	return n > 1
}

// others is how far the files other than the one in hand have been read, for the position: those done with, and those
// that were put aside in the middle. Files that cannot be told apart are left out: in doubt they are read again.
func (c *chain) others() map[positions.Hash]int64 {
	read := make(map[positions.Hash]int64, len(c.links))
	for i, l := range c.links {
		if i != c.at && l.id != (positions.Hash{}) && (i < c.at || l.read > 0) && !c.twins(l.id) {
			read[l.id] = l.read
		}
	}
	return read
}

// find gives the index of the position's file. If two match, inode and name decide, and then the older one does: what
// is read twice is dropped by Loki, what is not read is lost.
func (c *chain) find(p positions.Position) int {
	best, score := -1, -1
	for i, l := range c.links {
		if l.id != p.FirstLine {
			continue
		}
		s := 0
		if l.inode() == p.Inode {
			s += 2
		}
		if l.stem == p.Name {
			s++
		}
		if s > score {
			best, score = i, s
		}
	}
	return best
}
