package positions

import "fmt"

// alternated is the latest files: two that are overwritten in place, in turn. A write that is cut spoils one of them, and
// never the one with the newest content.
type alternated struct {
	account
	files [2]*overwritten
	// next is the index of the file to write: the one that does not hold the newest content.
	next int
}

// write puts content in the file whose turn it is. It stays its turn if that fails: the other one is still whole.
func (a *alternated) write() error {
	if err := a.files[a.next].write(&a.account); err != nil {
		return err
	}
	a.next = 1 - a.next
	return nil
}

// check lets go of a file that somebody removed, replaced or resized: to write on into what has no name would keep
// nothing. The next write makes it anew, and there, since the other one is now the only whole one.
func (a *alternated) check() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, f := range a.files {
		if f.file == nil {
			continue
		}
		if size, err := f.file.Size(); err == nil && size == f.size {
			continue
		}
		_ = f.close() // of no interest: what it held is not found under its name
		a.next, a.generation = i, 0
	}
}

func (a *alternated) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	return also(a.files[0].close(), a.files[1].close())
}

// pageSize is that of the file system's cache. A file of whole pages is overwritten without reading what it held, and
// rarely changes its size, which the file system would have to journal.
const pageSize = 4096

// overwritten is one of the latest files, kept open.
type overwritten struct {
	fs   fileSystem
	path string
	file placed // nil if not open
	size int64
}

// write overwrites the file by the content of the account. If it fails, the file is closed, and opened anew by the next
// write: what is wrong may lie in the open file alone.
func (o *overwritten) write(a *account) error {
	if err := o.open(); err != nil {
		return err
	}
	size := fitting(a.content.Len(), o.size)
	pad(&a.content, int(size))
	seal(a.content.Bytes())
	if size < o.size {
		if err := o.file.Truncate(size); err != nil {
			return also(fmt.Errorf("truncating %s: %w", o.path, err), o.close())
		}
	}
	if _, err := o.file.WriteAt(a.content.Bytes(), 0); err != nil {
		return also(fmt.Errorf("writing %s: %w", o.path, err), o.close())
	}
	o.size = size
	return nil
}

// fitting gives the size that a file of the given size gets for n bytes. It shrinks only when half of it is not needed.
func fitting(n int, size int64) int64 {
	needed := (int64(n) + pageSize - 1) / pageSize * pageSize
	if needed <= size && size <= 2*needed && size%pageSize == 0 {
		return size
	}
	return needed
}

func (o *overwritten) open() error {
	if o.file != nil {
		return nil
	}
	file, err := o.fs.Overwrite(o.path)
	if err != nil {
		return fmt.Errorf("opening %s: %w", o.path, err)
	}
	o.file = file
	if o.size, err = file.Size(); err != nil {
		return also(fmt.Errorf("opening %s: %w", o.path, err), o.close())
	}
	return nil
}

func (o *overwritten) close() error {
	if o.file == nil {
		return nil
	}
	err := o.file.Close()
	o.file = nil
	if err != nil {
		return fmt.Errorf("closing %s: %w", o.path, err)
	}
	return nil
}
