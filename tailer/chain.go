package tailer

import (
	"fmt"
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

// unfinished is how old a backup without a readable first line must be to count as damaged, or as having none, rather
// than half written: packed, or copied by copytruncate.
const unfinished = 10 * time.Second

// chain knows the files of one path in reading order: those done with, the one in hand, those ahead. All from the one
// in hand on are held open from when they were first seen, because a backup can live for a fraction of a second.
type chain struct {
	dir      string
	names    namer
	maxGone  int64 // bytes of deleted files to hold
	maxOpen  int
	observer *observer

	mu      sync.Mutex
	links   []*link
	at      int // index of the one in hand; len(links) is 0 as long as the path has no file
	changed time.Time
	looked  time.Time
	loss    *positions.Gap // what is missing before the next file to come
	where   os.FileInfo    // the directory at the last look; nil if it was missing
}

// link is one file of the chain.
type link struct {
	entry                // as last seen
	file  *file          // nil when done with, or when too many are open
	id    positions.Hash // zero until the first line is whole
	gone  bool           // deleted from the directory

	stands int64   // length at the last look
	cuts   []int64 // lengths at looks after which it was shorter: somebody truncated it

	length int64          // in unpacked bytes, as the survey found it
	read   int64          // how far it was read when it was put away; reading goes on there
	left   int64          // its stored length then: what is beyond came late
	since  time.Time      // when that was
	again  bool           // it was turned back to
	torn   bool           // what it has after its last newline will not be completed any more
	fresh  bool           // it came while a later file was in hand, and was not read yet
	moved  bool           // the directory that it was in is not the present one
	after  time.Time      // before its first line was written: when the file before it was rotated; zero if not known
	loss   *positions.Gap // what is missing before it
}

// is reports whether the directory entry is this file under whatever name. An inode cannot be given again while the
// file is held. Lumberjack gives a name once, also to the compressed form. A renamed file that is not held (logrotate's
// numbers shift) has stopped growing: inode, size and time of the last change together tell.
func (l *link) is(e *entry) bool {
	if l.file != nil && os.SameFile(l.file.info, e.info) {
		return true
	}
	if l.once() && e.once() && l.stem == e.stem {
		return true
	}
	return l.file == nil && l.gz == e.gz && os.SameFile(l.info, e.info) && l.info.Size() == e.info.Size() &&
		l.info.ModTime().Equal(e.info.ModTime())
}

// identity is the hash of the first line, looked up again as long as that line was not whole.
func (l *link) identity() positions.Hash {
	if l.id == (positions.Hash{}) && l.file != nil {
		if id, whole, err := l.file.identify(); err == nil && whole {
			l.id = id
		}
	}
	return l.id
}

// stored is the length on disk, as far as it is known.
func (l *link) stored() int64 {
	if l.file != nil {
		return l.file.stored()
	}
	return l.info.Size()
}

// unread is the number of unpacked bytes, if the file is open.
func (l *link) unread() int64 {
	if l.file != nil {
		return l.file.size()
	}
	return l.info.Size()
}

// scan looks at the directory and holds what is new. When nothing has changed it costs one stat, and one of the active
// file. While the directory is missing all stays as it was: it can come back as it was.
func (c *chain) scan(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
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
	for i, l := range c.links {
		switch {
		case l.gone && l.file == nil && i < c.at:
			if n := l.grown(); n > 0 {
				c.observer.lost(l, "deleted before what came late to it was read")
				c.loss = and(c.loss, &positions.Gap{Reason: reasonDeleted, Files: 1, Bytes: n})
			}
			at--
			continue
		case l.gone && l.file == nil:
			c.lose(l, "deleted before it could be opened")
			continue
		}
		if i >= c.at {
			l.loss, c.loss = and(c.loss, l.loss), nil
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

// sameAs reports whether a file that has stopped growing has this identity, be it that of a fragment.
func (l *link) sameAs(id positions.Hash) bool {
	if l.identity() == id {
		return true
	}
	if l.id != (positions.Hash{}) || l.file == nil {
		return false
	}
	fragment, _, err := l.file.identify()
	return err == nil && fragment == id
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
	if !done.canGrow() {
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
