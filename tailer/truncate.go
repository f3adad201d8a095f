package tailer

import (
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
		if length < l.stands {
			if i == 0 {
				l.shrunk = true // the reader needs to know, and its identity to find the copy
			} else {
				l.id = positions.Hash{}
				c.observer.truncated()
			}
		}
		l.stands = length
	}
}

// truncated deals with the file in hand having become shorter, as copytruncate makes it. If the directory has a copy of
// what it was, that is read first, from offset on; then the file itself anew.
func (c *chain) truncated(offset int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.links[c.at]
	id := l.id
	l.file.rewind()
	// The copy was whole before the truncation, and a look may not have seen it yet.
	err := c.refresh(time.Now())
	l.id, l.shrunk, l.stands = positions.Hash{}, false, l.file.stored()
	if id == (positions.Hash{}) {
		return err
	}
	i := slices.IndexFunc(c.links, func(p *link) bool { return p.identity() == id })
	if i < 0 {
		return err
	}
	copied := c.links[i]
	if copied.file == nil {
		if err := c.reopen(copied); err != nil || copied.file == nil {
			return err
		}
	}
	c.links = slices.Delete(c.links, i, i+1)
	c.at = slices.Index(c.links, l)
	c.links = slices.Insert(c.links, c.at, copied)
	between, err := copied.file.seek(offset)
	if !between {
		copied.file.rewind() // no copy of what was read: Loki drops what it has
	}
	return err
}
