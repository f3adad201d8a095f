package tailer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/auditferry/auditferry/positions"
)

// Start says where a path is begun that has no position yet.
type Start struct {
	// End begins after what is there now.
	End bool
	// Since leaves out the backups that were rotated before it. Zero: the oldest backup is the first.
	Since time.Time
}

// begin finds where reading begins: at the position, if there is one, else as start says. It returns the position at
// that place and whether the position's file was missing.
func (c *chain) begin(from *positions.Position, start Start) (at positions.Position, gap bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range listAttempts {
		c.release()
		if at, gap, err = c.place(from, start); !errors.Is(err, errMoved) {
			break
		}
	}
	return at, gap, err
}

// errMoved says that a file was renamed or compressed between two of our looks.
var errMoved = errors.New("the audit logs were rotated while they were looked at")

func (c *chain) place(from *positions.Position, start Start) (at positions.Position, gap bool, err error) {
	if err := c.survey(); err != nil {
		return at, false, err
	}
	switch {
	case from == nil && start.End:
		at, err = c.beginEnd()
	case from == nil || !from.Identified() && from.Others == nil:
		if from != nil {
			at = *from
		}
		c.skip(start.Since)
		c.leaveOld()
		if c.at < len(c.links) { // so that it is missed if it goes before anything was acknowledged
			c.beginOf(&at)
		}
	default:
		at, gap, err = c.resume(*from)
		if c.leaveOld() {
			c.beginOf(&at)
			at.Others = nil
		}
	}
	if err != nil {
		return at, false, err
	}
	if at.Others == nil {
		at.Others = c.others()
	}
	c.holdLeft()
	return at, gap, c.hold()
}

// survey lists the chain and reads every first line: afterwards a file is recognised even when it was renamed and
// compressed. A rotation in between is noticed, and the survey done again.
func (c *chain) survey() error {
	for range listAttempts {
		entries, _, err := c.names.list(c.dir)
		if err != nil {
			return err
		}
		c.links = make([]*link, 0, len(entries))
		settled := true
		for i := range entries {
			l := &link{entry: entries[i]}
			c.links = append(c.links, l)
			ok, err := l.survey(c.dir)
			if err != nil {
				return err
			}
			settled = settled && ok
		}
		if settled {
			return nil
		}
	}
	return nil
}

func (l *link) survey(dir string) (settled bool, err error) {
	f, err := l.open(dir)
	if os.IsNotExist(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("opening an audit log: %w", err)
	}
	defer f.close()
	if !os.SameFile(f.info, l.info) {
		return false, nil
	}
	l.length = f.size()
	// A damaged .gz has no identity, and is reported when its turn comes.
	if id, whole, err := f.identify(); err == nil && (whole || l.kind != active) {
		l.id = id
	}
	return true, nil
}

func (c *chain) skip(before time.Time) {
	for c.at < len(c.links)-1 && c.links[c.at].kind != active && c.links[c.at].rotated().Before(before) {
		c.links[c.at].done()
		c.at++
	}
}

// done says of a file that the survey found that there is nothing to read in it.
func (l *link) done() { l.read, l.left = l.length, l.info.Size() }

// beginEnd goes to the end of the last file that has a whole first line.
func (c *chain) beginEnd() (at positions.Position, err error) {
	for i, l := range slices.Backward(c.links) {
		if l.id == (positions.Hash{}) {
			continue
		}
		c.at = i
		for _, before := range c.links[:i] {
			before.done()
		}
		if err := c.openFirst(l); err != nil {
			return at, err
		}
		end, err := l.file.lastLineEnd()
		if err != nil {
			return at, err
		}
		_, err = l.file.seek(end)
		l.read = end
		return positions.Position{FirstLine: l.id, Offset: end, Name: l.stem, Inode: l.inode()}, err
	}
	return at, nil
}

// openFirst opens the file that reading begins with.
func (c *chain) openFirst(l *link) error {
	err := c.reopen(l)
	if err == nil && l.file == nil {
		err = errMoved
	}
	return err
}

// lastLineEnd is the offset after the last newline.
func (f *file) lastLineEnd() (end int64, err error) {
	f.rewind()
	buf := make([]byte, unpackBuffer)
	for {
		n, err := f.read(buf)
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			end = f.offset - int64(n-i-1)
		}
		if errors.Is(err, io.EOF) || damagedPack(err) {
			return end, nil
		}
		if err != nil {
			return 0, fmt.Errorf("looking for the end of %s: %w", f.f.Name(), err)
		}
	}
}
