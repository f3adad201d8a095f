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
	c.arrange(from, current, i)
	if current == nil {
		at.FirstLine, at.Offset = positions.Hash{}, 0
		return at, from.Identified(), nil
	}
	current.read = from.Offset
	if c.links[c.at] != current {
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

// arrange puts what was read first, then the position's file, which is link i, then the rest; the active file is the last.
func (c *chain) arrange(from positions.Position, current *link, i int) {
	var done, todo, known []*link
	unique := c.unique()
	gone := current == nil && from.Identified()
	for j, l := range c.links {
		switch {
		case l == current:
		case c.wasRead(l, unique, j < i || gone && l.rotated().Before(from.EventTime.Add(-olderBackup)), from):
			done = append(done, l)
		default:
			todo = append(todo, l)
		}
		if l == current || l.read > 0 {
			known = append(known, l)
		}
	}
	read := newest(known)
	if gone && from.Others != nil && from.EventTime.After(read) {
		read = from.EventTime
	}
	slices.SortStableFunc(todo, func(a, b *link) int { return a.order(b, read) })
	for _, l := range c.links {
		l.again = l.stepped(read) > 0 // or it was turned back to: what comes next was not written after it
	}
	switch {
	case current == nil:
	case current.kind == active:
		todo = append(todo, current)
	default:
		todo = slices.Insert(todo, 0, current)
	}
	c.links, c.at = append(done, todo...), len(done)
}

// wasRead reports whether there is nothing to read in a file other than the position's, and notes how far it was read.
// before is what its name says, which counts where the position does not know.
func (c *chain) wasRead(l *link, unique map[positions.Hash]bool, before bool, from positions.Position) bool {
	if from.Others == nil || l.id == from.FirstLine || !unique[l.id] {
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

// unique are the identities that only one file has.
func (c *chain) unique() map[positions.Hash]bool {
	unique := make(map[positions.Hash]bool, len(c.links))
	for _, l := range c.links {
		_, twin := unique[l.id]
		unique[l.id] = !twin && l.id != (positions.Hash{})
	}
	return unique
}

// others is how far the files other than the one in hand have been read, for the position: those done with, and those
// that were put aside in the middle. Files that cannot be told apart are left out: in doubt they are read again.
func (c *chain) others() map[positions.Hash]int64 {
	read := make(map[positions.Hash]int64, len(c.links))
	unique := c.unique()
	for i, l := range c.links {
		if i != c.at && (i < c.at || l.read > 0) && unique[l.id] {
			read[l.id] = l.read
		}
	}
	return read
}

// find gives the index of the position's file. If two match, inode and name decide, and then the older one does: what
// is read twice is dropped by Loki, what is not read is lost.
func (c *chain) find(p positions.Position) int {
	best, score := -1, -1
	if !p.Identified() {
		return best // an empty file has no identity either
	}
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
