package positions

import (
	"io"
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
	Rename(from, to string) error
	Remove(name string) error
	// SyncDir makes the creates, renames and removes in the directory durable.
	SyncDir(name string) error
}

type file interface {
	io.WriteCloser
	// Sync makes what was written durable; the name of the file is the business of SyncDir.
	Sync() error
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
