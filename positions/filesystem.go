package positions

import (
	"fmt"
	"io"
	"io/fs"
	"os"
)

// fileSystem is what the store asks of the operating system. Tests put one in its place that fails, crashes and loses
// power. Errors are those of package os.
type fileSystem interface {
	// Lock takes the lock file at name, creating it, until the Closer is closed: an *inUseError if another has it.
	Lock(name string) (io.Closer, error)
	ReadFile(name string) ([]byte, error)
	// Create gives an empty file, whether or not there was one.
	Create(name string) (file, error)
	// Overwrite gives a file as it is, to be written in place; an empty one if there was none.
	Overwrite(name string) (placed, error)
	Rename(from, to string) error
	Remove(name string) error
	// SyncDir makes the creates, renames and removes in the directory durable.
	SyncDir(name string) error
}

// file is one that is made anew.
type file interface {
	io.WriteCloser
	// Sync makes what was written durable; the name of the file is the business of SyncDir.
	Sync() error
}

// placed is a file that is written where it lies.
type placed interface {
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	// Sync makes what was written durable.
	Sync() error
	// Size is that of the file of this name. It is an error if that is not there any more, or another one.
	Size() (int64, error)
}

// disk is the fileSystem of the machine.
type disk struct{}

func (disk) ReadFile(name string) ([]byte, error) { return os.ReadFile(name) }

func (disk) Create(name string) (file, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err // not f: a nil *os.File in the interface is not nil
	}
	return f, nil
}

func (disk) Overwrite(name string) (placed, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	opened, err := f.Stat()
	if err != nil {
		return nil, also(err, f.Close())
	}
	return diskFile{f, opened}, nil
}

type diskFile struct {
	*os.File
	opened fs.FileInfo
}

func (f diskFile) Size() (int64, error) {
	named, err := os.Stat(f.Name())
	if err != nil {
		return 0, err
	}
	if !os.SameFile(f.opened, named) {
		return 0, fmt.Errorf("%s is another file than before", f.Name())
	}
	return named.Size(), nil
}

func (disk) Rename(from, to string) error { return os.Rename(from, to) }

func (disk) Remove(name string) error { return os.Remove(name) }

func (disk) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	err = d.Sync()
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	return err
}
