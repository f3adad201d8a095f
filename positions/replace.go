package positions

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
)

// replaced is one of the two positions files: always replaced whole, never written in place.
type replaced struct {
	fs   fileSystem
	path string
	kind string // the label of the metric: durable or latest
	// fsync decides whether a replacement is durable when publish returns, or only visible.
	fsync bool

	// mu is held while the file is replaced. Each file has its own, so that no Commit waits for an fsync.
	mu sync.Mutex
	// content is what stage writes; kept for its memory.
	content bytes.Buffer
	// generation is that of the positions in the file, see Store.generation; 0 if not known.
	generation uint64
	failing    bool
	closed     bool
}

func (r *replaced) temporary() string { return r.path + ".tmp" }

// stage writes content to the temporary file; the file itself is not touched. If it fails, the temporary file is gone.
func (r *replaced) stage() error {
	f, err := r.fs.Create(r.temporary())
	if err != nil {
		return fmt.Errorf("creating %s: %w", r.temporary(), err)
	}
	if _, err = f.Write(r.content.Bytes()); err != nil {
		err = fmt.Errorf("writing %s: %w", r.temporary(), err)
	} else if r.fsync {
		if err = f.Sync(); err != nil {
			err = fmt.Errorf("syncing %s: %w", r.temporary(), err)
		}
	}
	if closeErr := f.Close(); closeErr != nil && err == nil {
		err = fmt.Errorf("closing %s: %w", r.temporary(), closeErr)
	}
	if err != nil {
		return also(err, r.discard())
	}
	return nil
}

// publish puts what stage wrote in the place of the file.
func (r *replaced) publish() error {
	if err := r.fs.Rename(r.temporary(), r.path); err != nil {
		return also(fmt.Errorf("replacing %s: %w", r.path, err), r.discard())
	}
	if !r.fsync {
		return nil
	}
	if err := r.fs.SyncDir(filepath.Dir(r.path)); err != nil {
		return fmt.Errorf("syncing the directory of %s: %w", r.path, err)
	}
	return nil
}

// discard removes the temporary file, if there is one.
func (r *replaced) discard() error {
	if err := r.fs.Remove(r.temporary()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing %s: %w", r.temporary(), err)
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
