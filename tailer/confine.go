package tailer

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"

	"github.com/auditferry/auditferry/positions"
)

// A ReplacedError says that another directory is in the place of that of the path, which the process may not open: see Confine.
type ReplacedError struct {
	Dir string
	// At is where reading goes on in the other directory. If all that was in the first one is read, it names no file, and
	// nothing is missing before what it says is read next.
	At positions.Position
}

func (e *ReplacedError) Error() string {
	return fmt.Sprintf("%s was replaced by another directory, which may not be opened", e.Dir)
}

// Confine says that the process cannot open another directory in the place of home, which is that of the path now; nil if there
// is none, and the first to come can be opened. Once there is another one, with a log in it, and the files that are held are
// read, Next gives a ReplacedError. Without permission for home itself, it is waited until there is some again.
func (t *Tailer) Confine(home os.FileInfo) {
	t.chain.mu.Lock()
	defer t.chain.mu.Unlock()
	t.chain.confined, t.chain.home = true, home
}

// Held reports whether a restart at a position, up to which everything was acknowledged, could find less than there is now: what is
// to be read, or the file of the position, is deleted, or is in a directory that another one has replaced, and only held open. In
// doubt it does.
func (t *Tailer) Held(acked positions.Position) bool {
	c := &t.chain
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.replaced() || c.where == nil {
		return len(c.links) > 0
	}
	found := false
	for i, l := range c.links {
		if i >= c.at && l.gone && l.unread() > l.read {
			return true
		}
		found = found || !l.gone && l.id == acked.FirstLine
	}
	return !found || !acked.Identified()
}

// replaced reports whether another directory is in the place of the one that may be opened.
func (c *chain) replaced() bool {
	return c.confined && c.denied && c.home != nil && c.where != nil && !os.SameFile(c.home, c.where)
}

// opened notes how an attempt to open the present directory and its files went.
func (c *chain) opened(err error) {
	c.denied = errors.Is(err, fs.ErrPermission)
	if c.home == nil && err == nil {
		c.home = c.where
	}
}

// shut reports whether nothing more will come but what is in a directory that may not be opened. What is held open may still be
// written to until the log in the other directory has something in it, as after a rotation.
func (c *chain) shut(path string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.replaced() {
		return false
	}
	log, err := os.Stat(path)
	if err != nil || !log.Mode().IsRegular() || log.Size() == 0 {
		return false
	}
	return c.at >= len(c.links) || c.links[c.at].file == nil || !os.SameFile(c.links[c.at].file.info, log)
}

// readOut reports whether all files that were found are read to their end but the one in hand, and nothing is missing.
func (c *chain) readOut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, l := range c.links[min(c.at, len(c.links)):] {
		if l.loss != nil || i > 0 && l.stored() > 0 || l.file == nil {
			return false
		}
	}
	return c.lost.gap == nil
}

// replaced ends the path. If something is missing, the position names the file in hand, so that the next start, which does not
// find it, tells a gap.
func (t *Tailer) replaced() error {
	at := t.at
	if t.loss == nil && t.chain.readOut() {
		others := maps.Clone(t.chain.begun())
		if at.Identified() {
			others[at.FirstLine] = at.Offset
		}
		at.FirstLine, at.Offset, at.Name, at.Inode, at.Others = positions.Hash{}, 0, "", 0, others
	}
	return &ReplacedError{Dir: t.chain.dir, At: at}
}
