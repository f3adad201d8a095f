package shipper

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Letters is a dead-letter file out of use, whose entries are pushed again:
//
//	letters, err := shipper.TakeLetters(path)
//	for e, err := letters.Next(); err == nil; e, err = letters.Next() { … }
//	// and when all that it gave is acknowledged, by a Client whose DeadLetterFile is letters.Refused:
//	letters.Settle()
//	letters.Close()
//
// The file is deleted as a whole, by Settle. Until then it holds all that it held, so a crash costs a second replay, of which
// Loki drops what it has.
type Letters struct {
	Path    string // of the file, beside the one that it was taken from
	Refused string // of a file that does not exist yet, for what is refused again
	// AddLabels are added to the stream of every entry.
	AddLabels map[string]string

	file   *os.File
	reader *letterReader
}

// rotatedName is that of a file that nobody writes to any more: lumberjack's, with ours the same and six letters more, which
// keep them apart from lumberjack's and from one another.
var rotatedName = regexp.MustCompile(`^(.+)-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}(-[A-Z2-7]{6})?$`)

// rotatedFrom reports whether a file was stem+ext once. Others may lie beside it, such as those of another destination.
func rotatedFrom(name, stem, ext string) bool {
	name, ok := strings.CutSuffix(name, ext)
	if !ok || !strings.HasPrefix(name, stem+"-") { // most are not, and the expression is slow
		return false
	}
	parts := rotatedName.FindStringSubmatch(name)
	return parts != nil && parts[1] == stem
}

// besides gives a new name for a file like path, which counts as one of its rotated files (see deadLetters.size), and whether
// path is one already.
func besides(path string, now time.Time) (name string, rotated bool) {
	dir, base := filepath.Split(path)
	ext := filepath.Ext(base)
	stem := strings.TrimSuffix(base, ext)
	if parts := rotatedName.FindStringSubmatch(stem); parts != nil {
		stem, rotated = parts[1], true
	}
	return dir + stem + now.UTC().Format("-2006-01-02T15-04-05.000-") + rand.Text()[:6] + ext, rotated
}

// ErrNoLetters is wrapped by what CheckLetters returns for a dead-letter file that has no whole letter in it.
var ErrNoLetters = errors.New("there is nothing to replay")

// CheckLetters says why path cannot be replayed: it is no file, cannot be read, or has no dead letter in it.
func CheckLetters(path string) error {
	info, err := os.Stat(path) // first: opening a pipe would wait
	if err != nil {
		return fmt.Errorf("the dead-letter file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", path)
	}
	if info.Size() == 0 {
		return fmt.Errorf("%s is empty: %w", path, ErrNoLetters)
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("the dead-letter file: %w", err)
	}
	defer f.Close()
	r := newLetterReader(f)
	_, err = r.next()
	if errors.Is(err, io.EOF) && r.late == 0 {
		if _, rotated := besides(path, time.Now()); rotated { // what a replay has left
			return fmt.Errorf("none of the lines of %s is a whole dead letter: %w", path, ErrNoLetters)
		}
		return fmt.Errorf("%s is not a dead-letter file: none of its lines is a dead letter", path)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading the dead-letter file %s: %w", path, err)
	}
	return nil
}

// TakeLetters takes the dead-letter file at path out of use: it is renamed, unless it has the name of a rotated file, and
// locked, so that nobody else replays it.
//
// An agent may be writing to it, and need not be told. It opens the file anew for each letter, and goes on with a new one. A
// letter that it is just writing can land in the renamed file, even after that was read or deleted. But the agent syncs
// the file by its name, before it takes the letter for written; only the agent itself makes a new file of that name, and
// not between its own write and sync; so the sync fails, and the letter is written again, into the new file.
func TakeLetters(path string) (*Letters, error) {
	if err := CheckLetters(path); err != nil {
		return nil, err
	}
	path, err := filepath.EvalSymlinks(path) // a renamed link would leave the file in use
	if err != nil {
		return nil, fmt.Errorf("the dead-letter file: %w", err)
	}
	l := &Letters{Path: path}
	var rotated bool
	if l.Refused, rotated = besides(path, time.Now()); !rotated {
		l.Path, _ = besides(path, time.Now())
		if err := os.Rename(path, l.Path); err != nil {
			return nil, fmt.Errorf("moving the dead-letter file aside: %w", err)
		}
		if err := syncDir(l.Path); err != nil {
			return nil, fmt.Errorf("moving %s aside to %s: %w", path, l.Path, err)
		}
	}
	if l.file, err = openLocked(l.Path); err != nil {
		return nil, err
	}
	l.reader = newLetterReader(l.file)
	return l, nil
}

// openLocked opens the file at path for this replay alone.
func openLocked(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the dead-letter file: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%s is being replayed by another auditferry", path)
	} else if err != nil {
		err = fmt.Errorf("locking %s: %w", path, err)
	} else {
		err = stillAt(path, f)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// stillAt fails if another replay has deleted the file before it was locked.
func stillAt(path string, f *os.File) error {
	open, err := f.Stat()
	if err != nil {
		return err
	}
	named, err := os.Stat(path)
	if err == nil && !os.SameFile(open, named) {
		err = &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return err
}

// Next gives the next entry, as it was when Loki refused it but for AddLabels; io.EOF after the last one. What is no whole
// letter, or cannot be pushed, it passes over: that is for Settle.
func (l *Letters) Next() (Entry, error) {
	for {
		e, err := l.reader.next()
		switch {
		case errors.Is(err, io.EOF):
			return Entry{}, io.EOF
		case err != nil:
			return Entry{}, fmt.Errorf("reading the dead-letter file %s: %w", l.Path, err)
		case len(l.AddLabels) == 0:
			return e, nil
		}
		if e.Stream, err = withLabels(e.Stream, l.AddLabels); err == nil {
			return e, nil
		}
		l.reader.pass(&l.reader.pieces)
	}
}

// Unpushable tells what Next has passed over: lines that are no whole letters, and letters with a time that no push can hold.
func (l *Letters) Unpushable() (pieces, late int) { return l.reader.pieces, l.reader.late }

// Settle deletes the file; all entries that Next gave must be acknowledged. What Next has passed over is first moved, as
// it is, to the file of the refused.
func (l *Letters) Settle() error {
	if err := l.keepOthers(); err != nil {
		return fmt.Errorf("keeping what is no dead letter: %w", err)
	}
	if err := os.Remove(l.Path); err != nil {
		return fmt.Errorf("all is replayed, but the file stays: %w", err)
	}
	_ = syncDir(l.Path) // without it, a power failure can bring the file back: replayed again, Loki drops it
	return nil
}

func (l *Letters) keepOthers() error {
	if pieces, late := l.Unpushable(); pieces+late == 0 {
		return nil
	}
	f, err := os.OpenFile(l.Refused, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, e := range l.reader.others {
		if _, err := io.Copy(f, io.NewSectionReader(l.file, e.offset, e.length)); err != nil {
			return err
		}
	}
	if !l.reader.ended {
		if _, err := f.WriteString("\n"); err != nil {
			return err
		}
	}
	return syncFile(l.Refused)
}

// Abandon leaves the file, which still has all letters, to another replay; those that were refused again are in no other
// file then.
func (l *Letters) Abandon() error {
	if err := os.Remove(l.Refused); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the file of the refused: %w", err)
	}
	return nil
}

// Close lets go of the file and its lock.
func (l *Letters) Close() { l.file.Close() }

// syncDir makes the names beside path durable.
func syncDir(path string) error {
	f, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
