package tailer

import (
	"errors"
	"slices"
	"time"

	"github.com/auditferry/auditferry/positions"
)

// watchLength notices that the active file was truncated in place. Only a look can tell: when the reader has waited for
// long, the file may be longer again than what was read of it.
func (c *chain) watchLength() {
	for i, l := range c.links[min(c.at, len(c.links)):] {
		if l.kind != active || l.file == nil {
			continue
		}
		length := l.file.stored()
		switch {
		case length >= l.stands:
		case i == 0: // the reader needs to know, and its identity to find the copy
			l.cuts = append(l.cuts, l.stands)
		default:
			lost := int64(0)
			if c.copyOf(l) < 0 {
				lost = max(0, l.stands-l.read)
			}
			c.observer.truncated(lost)
			l.loss = and(l.loss, truncation(lost))
			l.id, l.read, l.after = positions.Hash{}, 0, time.Time{}
		}
		l.stands = length
	}
}

// copyOf gives the index of a copy of l, as copytruncate makes it; -1 if there is none.
func (c *chain) copyOf(l *link) int {
	if l.id == (positions.Hash{}) {
		return -1
	}
	return slices.IndexFunc(c.links, func(p *link) bool { return p != l && p.identity() == l.id })
}

// truncation is the loss of bytes that were cut off; nil if there were none.
func truncation(bytes int64) *positions.Gap {
	if bytes <= 0 {
		return nil
	}
	return &positions.Gap{Reason: reasonTruncated, Bytes: bytes}
}

// truncated deals with the file in hand having become shorter, as copytruncate makes it. If the directory has a copy of
// what it was, that is read first, from offset on; else what had not been read at the last look is lost. Then the file
// itself is read anew. After an error nothing has changed: it is called again.
func (c *chain) truncated(offset int64) (lost *positions.Gap, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.links[c.at]
	if len(l.cuts) == 0 { // the reader was first to see it
		l.cuts = []int64{l.stands}
	}
	// The copy was whole before the truncation, and a look may not have seen it yet.
	if err := c.refresh(time.Now()); err != nil {
		return nil, err
	}
	i := c.copyOf(l)
	var copied *link
	if i >= 0 {
		copied = c.links[i]
		if copied.file == nil {
			if err := c.reopen(copied); err != nil || copied.file == nil {
				return nil, errors.Join(err, errMoved)
			}
		}
	}
	bytes := c.cutOff(l, offset, copied != nil)
	c.observer.truncated(bytes)
	l.file.rewind()
	l.file.pages.backlog = 0
	l.id, l.cuts, l.stands, l.read, l.after = positions.Hash{}, nil, l.file.stored(), 0, time.Time{}
	if copied != nil {
		c.readFirst(copied, offset)
	}
	return truncation(bytes), nil
}

// readFirst makes a copy of the file in hand the one in hand, from offset on.
func (c *chain) readFirst(copied *link, offset int64) {
	l := c.links[c.at]
	i := slices.Index(c.links, copied)
	c.links = slices.Delete(c.links, i, i+1)
	c.at = slices.Index(c.links, l)
	c.links = slices.Insert(c.links, c.at, copied)
	if between, err := copied.file.seek(offset); err != nil || !between {
		copied.file.rewind() // no copy of what was read, or damaged: in doubt, twice
	}
	copied.read, copied.fresh = copied.file.offset, false
}

// cutOff is how many bytes of the file in hand were cut off that were not read and are in no copy. It may have been truncated
// several times while the reader waited.
func (c *chain) cutOff(l *link, offset int64, copied bool) (bytes int64) {
	if !copied {
		bytes = max(0, l.cuts[0]-offset)
	}
	for _, length := range l.cuts[1:] {
		if !slices.ContainsFunc(c.links, func(p *link) bool { return p.fresh && p.stored() >= length }) {
			bytes += length
		}
	}
	return bytes
}
