package positions

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// replaced is the durable file: always replaced whole, never written in place.
type replaced struct {
	account
	fs fileSystem
}

// write replaces the file by content.
func (r *replaced) write() error {
	if err := r.stage(); err != nil {
		return err
	}
	return r.publish()
}

// stage seals the content and writes it to the temporary file.
func (r *replaced) stage() error {
	seal(r.content.Bytes())
	return stage(r.fs, r.path, r.content.Bytes())
}

func (r *replaced) publish() error { return publish(r.fs, r.path) }

// discard removes the temporary file, if there is one.
func (r *replaced) discard() error { return remove(r.fs, r.path+temporary) }

// temporary ends the name of the file that is to replace another.
const temporary = ".tmp"

// stage writes content to the temporary file of a file and makes that durable; the file itself is not touched. If it fails,
// the temporary file is gone.
func stage(fsys fileSystem, path string, content []byte) error {
	path += temporary
	f, err := fsys.Create(path)
	if err != nil {
		return fmt.Errorf("creating %s: %w", path, err)
	}
	if _, err = f.Write(content); err != nil {
		err = fmt.Errorf("writing %s: %w", path, err)
	} else if err = f.Sync(); err != nil {
		err = fmt.Errorf("syncing %s: %w", path, err)
	}
	if closeErr := f.Close(); closeErr != nil && err == nil {
		err = fmt.Errorf("closing %s: %w", path, closeErr)
	}
	if err != nil {
		return also(err, remove(fsys, path))
	}
	return nil
}

// publish puts what stage wrote in the place of the file, for good.
func publish(fsys fileSystem, path string) error {
	if err := fsys.Rename(path+temporary, path); err != nil {
		return also(fmt.Errorf("replacing %s: %w", path, err), remove(fsys, path+temporary))
	}
	if err := fsys.SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("syncing the directory of %s: %w", path, err)
	}
	return nil
}

// remove removes a file, if there is one.
func remove(fsys fileSystem, name string) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing %s: %w", name, err)
	}
	return nil
}

// also joins to err what went wrong while clearing up after it, if anything did. Unlike errors.Join, it gives one line.
func also(err, second error) error {
	switch {
	case second == nil:
		return err
	case err == nil:
		return second
	}
	return fmt.Errorf("%w; and then: %w", err, second)
}
