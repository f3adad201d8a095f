package tailer

import (
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/auditferry/auditferry/positions"
)

// unfinished is how old a backup without a readable first line must be to count as damaged, or as having none, rather
// than half written: packed, or copied by copytruncate.
const unfinished = 10 * time.Second

// merge brings the chain up to a listing. Not settled: a file was renamed, deleted or is being compressed under our
// hands, so the directory is to be listed again. After an error, what comes later waits, so that the order is kept.
func (c *chain) merge(entries []entry, now time.Time) (settled bool, err error) {
	known := c.match(entries)
	settled = true
	for i := range entries {
		if known[i] != nil {
			continue
		}
		l, ok, meetErr := c.meet(&entries[i], now)
		if meetErr != nil {
			settled, err = false, meetErr
			break
		}
		settled = settled && ok
		known[i] = l
		if l != nil && !slices.Contains(c.links, l) {
			c.insert(l)
		}
	}
	if settled {
		c.forget()
		c.limitGone()
	}
	if holdErr := c.hold(); err == nil {
		err = holdErr
	}
	return settled, err
}

// match tells which entries are files that the chain knows, and takes over their present names. The others of the
// chain are gone, unless it turns out that they were renamed and compressed between two looks.
func (c *chain) match(entries []entry) []*link {
	for _, l := range c.links {
		l.gone = true
	}
	known := make([]*link, len(entries))
	for i := range entries {
		for _, l := range c.links {
			if l.is(&entries[i]) {
				packed := entries[i].gz && !l.gz
				l.entry, l.gone = entries[i], false
				if packed && l.file == nil {
					c.measure(l)
				}
				known[i] = l
				break
			}
		}
	}
	return known
}

// forget drops the files that are done with and gone, and those that went before they could be opened.
func (c *chain) forget() {
	kept := c.links[:0]
	at := c.at
	c.follow()
	for i, l := range c.links {
		switch {
		case l.gone && l.file == nil && i < c.at:
			c.loseLate(l)
			at--
			continue
		case l.gone && l.file == nil:
			c.lose(l, "deleted before it could be opened")
			continue
		}
		if i >= c.at {
			c.kept(l)
		}
		kept = append(kept, l)
	}
	clear(c.links[len(kept):])
	c.links, c.at = kept, at
}

// meet decides what an unknown entry is: a file of the chain that was renamed or compressed between two looks, a copy
// of one, or a new one. Nothing yet (nil and not ok) if it cannot be told at this moment.
func (c *chain) meet(e *entry, now time.Time) (l *link, ok bool, err error) {
	f, err := e.open(c.dir)
	if os.IsNotExist(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("opening an audit log: %w", err)
	}
	if !os.SameFile(f.info, e.info) {
		f.close()
		return nil, false, nil
	}
	id, whole, err := f.identify()
	growing := err != nil || !whole && e.copied()
	if growing && now.Sub(e.info.ModTime()) < unfinished {
		f.close()
		return nil, false, nil
	}
	fresh := &link{entry: *e, file: f, stands: f.stored()}
	if err != nil || id == (positions.Hash{}) || e.kind == active {
		return fresh, true, nil
	}
	fresh.id = id
	return c.recognise(fresh), true, nil
}

// recognise gives the link of the chain that a backup is: one that is gone under its old name, or else the backup
// itself. A copy of a file that is still there, as copytruncate makes it, goes before that file: it is done with if the
// reader has come to the file, and else is read first, because the file will be truncated.
func (c *chain) recognise(backup *link) *link {
	for _, l := range c.links {
		if l.gone && l.sameAs(backup.id) {
			backup.file.close()
			l.entry, l.gone = backup.entry, false
			return l
		}
	}
	i := slices.IndexFunc(c.links, func(l *link) bool { return l.identity() == backup.id })
	if i < 0 || !backup.copied() {
		return backup
	}
	if i <= c.at {
		backup.file.close()
		backup.file = nil
		backup.read, backup.left = backup.stands, backup.stands
		c.at++
	}
	c.links = slices.Insert(c.links, i, backup)
	return backup
}

// insert puts a new file among those ahead of which nothing was read yet. If the active file is in hand already, it goes
// before that, as one that is to be turned back to: logrotate has copied and truncated that file, and more than once.
func (c *chain) insert(l *link) {
	if c.at < len(c.links) && l.kind != active && c.links[c.at].kind == active && !c.links[c.at].gone {
		l.fresh = true
		c.links = slices.Insert(c.links, c.at, l)
		c.at++
		return
	}
	read := newest(c.links[:min(c.at+1, len(c.links))])
	at := len(c.links)
	for ; at > c.at+1; at-- {
		if next := c.links[at-1]; next.gone || next.read > 0 || l.order(next, read) > 0 {
			break
		}
	}
	c.links = slices.Insert(c.links, at, l)
}
