package tailer

import (
	"fmt"
	"os"
	"slices"
)

// hold opens what is ahead, the oldest first, and always the active file: its name is not its own. A backup that has
// been compressed meanwhile is held in that form, so that the disk gets its plain form back; unless it is a new one that
// another apiserver may be writing to, which is not in the .gz.
func (c *chain) hold() error {
	var firstErr error
	open := 0
	for i, l := range c.links[min(c.at, len(c.links)):] {
		wanted := i == 0 || l.kind == active || open < c.maxOpen
		if !wanted && l.file != nil && !l.gone {
			l.file.close()
			l.file = nil
		}
		old := c.at+i+1+keepLeft < len(c.links)
		if wanted && (l.file == nil || i > 0 && l.gz && !l.file.gz && !l.gone && (old || !l.written())) {
			if err := c.reopen(l); err != nil && firstErr == nil {
				firstErr = err
			}
		}
		if l.file != nil {
			open++
		}
	}
	return firstErr
}

// reopen opens the file under its present name, at its beginning, and lets go of the form that was open before. It
// does so only if what it finds is that file.
func (c *chain) reopen(l *link) error {
	f, err := l.open(c.dir)
	if os.IsNotExist(err) {
		return nil // the next look will find it under another name, or gone
	}
	if err != nil {
		return fmt.Errorf("opening an audit log: %w", err)
	}
	if !os.SameFile(f.info, l.info) {
		f.close()
		return nil
	}
	if l.file != nil {
		if id, _, err := f.identify(); err != nil || !l.sameAs(id) || f.size() < l.file.stored() {
			f.close()
			return nil // a damaged .gz, or one that was made too early: what we hold is whole
		}
		l.file.close()
	}
	l.file, l.stands, l.cuts = f, f.stored(), nil
	return nil
}

// limitGone lets go of the oldest deleted files ahead when all of them together take more of the disk than allowed.
func (c *chain) limitGone() {
	var sum int64
	for _, l := range slices.Backward(c.links[min(c.at+1, len(c.links)):]) {
		if !l.gone {
			continue
		}
		if sum += l.stored(); sum > c.maxGone {
			l.excess = true
		}
	}
	if sum <= c.maxGone {
		return
	}
	c.follow()
	c.links = slices.DeleteFunc(c.links, c.dropExcess)
}

// dropExcess lets go of a file that is too much to hold.
func (c *chain) dropExcess(l *link) bool {
	if !l.excess {
		if slices.Index(c.links, l) >= c.at {
			c.kept(l)
		}
		return false
	}
	c.lose(l, "deleted, and more than may be held open waits to be read")
	l.file.close()
	return true
}

// close lets go of every file.
func (c *chain) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	files, bytes := 0, int64(0)
	for i, l := range c.links[min(c.at, len(c.links)):] {
		if n := l.unread() - l.read; l.gone && l.file != nil && (i > 0 || n > l.file.offset-l.read) {
			files++
			bytes += n
		}
	}
	if files > 0 {
		c.observer.givenUp(files, bytes)
	}
	c.release()
}

func (c *chain) release() {
	for _, l := range c.links {
		if l.file != nil {
			l.file.close()
			l.file = nil
		}
	}
	c.links, c.at = nil, 0
}
