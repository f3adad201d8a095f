package tailer

import (
	"slices"
	"time"

	"github.com/auditferry/auditferry/positions"
)

// Why events are missing, for positions.Gap.
const (
	reasonPositionFile = "position_file_gone" // the file of the last acknowledged event is gone
	reasonDeleted      = "deleted_unread"     // files were deleted before they were read
	reasonTruncated    = "truncated"          // somebody truncated a file before it was read
	reasonDamaged      = "damaged_backup"     // a compressed backup could not be unpacked to its end
)

// and is two losses between the same two events.
func and(a, b *positions.Gap) *positions.Gap {
	if a == nil || b == nil {
		if a == nil {
			return b
		}
		return a
	}
	return &positions.Gap{Reason: a.Reason, Files: a.Files + b.Files, Bytes: a.Bytes + b.Bytes}
}

// pending is what was lost at the end of the chain: it is missing before the next file to come.
type pending struct {
	gap    *positions.Gap
	behind *link // the file before it, if that was not read to its end; else the next file is the next one
	passed bool  // forget has come past that file
}

// follow begins a walk over the files from the one in hand on.
func (c *chain) follow() {
	c.lost.passed = !slices.Contains(c.links[min(c.at, len(c.links)):], c.lost.behind)
}

// lose notes that a file on the walk is gone that was not read: it is missing before the next one that is kept.
func (c *chain) lose(l *link, why string) {
	bytes := l.stored()
	c.observer.lost(l, bytes, why)
	gap := and(l.loss, &positions.Gap{Reason: reasonDeleted, Files: 1, Bytes: bytes})
	if c.lost.gap == nil {
		c.lost.passed = true
	}
	c.lost.gap = and(c.lost.gap, gap)
}

// kept notes that a file on the walk stays. What was lost before it is missing before it, and what is lost after it comes
// behind it.
func (c *chain) kept(l *link) {
	if c.lost.passed && c.lost.gap != nil {
		l.loss = and(c.lost.gap, l.loss)
		c.lost.gap = nil
	}
	if c.lost.gap == nil {
		c.lost.behind = l
	}
	c.lost.passed = c.lost.passed || c.lost.behind == l
}

// loseLate notes that a file that was left is gone with what came late to it: that is missing before what is read next.
func (c *chain) loseLate(l *link) {
	bytes := l.grown()
	if bytes == 0 {
		return
	}
	c.observer.lost(l, bytes, "deleted before what came late to it was read")
	gap := &positions.Gap{Reason: reasonDeleted, Files: 1, Bytes: bytes}
	if c.at < len(c.links) {
		gap = and(c.links[c.at].loss, gap)
		c.links[c.at].loss = gap
		return
	}
	c.lost.gap = and(c.lost.gap, gap)
}

// missed gives what was found missing since it was asked last, before what is read next.
func (c *chain) missed() *positions.Gap {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.links[c.at]
	loss := l.loss
	l.loss = nil
	return loss
}

// tick is how much a time that was taken later can be the smaller one: names of backups have milliseconds.
const tick = time.Millisecond

// unnamed is how soon after the last write to a file the next one begins at the latest, if nothing is between them, while
// files are deleted within moments: the modification time is as coarse as the kernel's tick.
const unnamed = 20 * time.Millisecond

// follows notes when the file before l was rotated. Lumberjack does so to make room for a line, so no event of the next
// file's first line is later. If it is, files between the two came and went unseen. pruned: done was deleted under a name
// that was not seen; then only the time of its last write is known.
func (l *link) follows(done *link, pruned bool) {
	switch {
	case l.read > 0, done.again: // a file that was turned back to was rotated before others that were read
	case done.kind == timed:
		l.after = done.time.Add(tick)
	case pruned && l.kind == timed:
		if info, err := done.file.f.Stat(); err == nil {
			l.after = info.ModTime().Add(unnamed)
		}
	}
}

// pruned reports whether the active file in hand went together with all older backups, as the writer deletes them, and not
// with the directory.
func (c *chain) pruned() bool {
	for _, l := range c.links[:c.at] {
		if l.kind == timed && !l.gone {
			return false
		}
	}
	l := c.links[c.at]
	return l.kind == active && l.gone && !l.moved
}

// Hole takes the time of the first event of the line that Next gave last, and reports whether it shows that events are missing
// before it: the line is the first of a file, and the file before it was rotated earlier. Then files came and went between
// two looks.
func (t *Tailer) Hole(event time.Time) bool {
	if !t.begins {
		return false
	}
	if !t.until.IsZero() && event.After(t.until) {
		// It was rotated before its own first event: the clock has stepped back, and among the backups names do not tell.
		t.stepped = true
	}
	return !t.stepped && !t.after.IsZero() && event.After(t.after)
}
