package tailer

import (
	"os"
	"time"

	"github.com/auditferry/auditferry/positions"
)

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
	excess bool           // it is deleted, and too much is held
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
