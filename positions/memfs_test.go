package positions

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"
)

var errCrash = errors.New("crashed")

// memFS is one directory in memory that knows what a power loss may leave of it. A path is the whole name.
type memFS struct {
	// live is what processes see: it survives SIGKILL.
	live map[string]*inode
	// synced is the directory at its last SyncDir, unsynced what was done to it since.
	synced   map[string]*inode
	unsynced []change
	locked   map[string]bool

	calls []string // the calls made, "op name"
	// intercept, if set, is asked before call number i. The call fails with its error; a write that fails so has
	// written half, or what cut says.
	intercept func(i int, op, name string) error
	cut       func(n int) int
	// lying makes fsync, or that of the directory, return nil and do nothing: "sync" or "syncdir".
	lying string
}

// inode is a file: data is what a read gives, synced what is on the disk for sure, before what a read gave before it was
// last written in place.
type inode struct {
	data, synced, before []byte
	dirty                bool
}

// change is one step of the directory: all of it or nothing reaches the disk. A nil inode is no entry.
type change map[string]*inode

func newMemFS(content map[string][]byte) *memFS {
	m := &memFS{live: map[string]*inode{}, locked: map[string]bool{}}
	for name, data := range content {
		m.live[name] = &inode{data: data, synced: data}
	}
	m.synced = maps.Clone(m.live)
	return m
}

func (m *memFS) call(op, name string) error {
	m.calls = append(m.calls, op+" "+name)
	if m.intercept == nil {
		return nil
	}
	if err := m.intercept(len(m.calls)-1, op, name); err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

func (m *memFS) change(c change) {
	m.unsynced = append(m.unsynced, c)
	apply(m.live, c)
}

func apply(dir map[string]*inode, c change) {
	for name, i := range c {
		if i == nil {
			delete(dir, name)
		} else {
			dir[name] = i
		}
	}
}

func (m *memFS) find(op, name string) (*inode, error) {
	if i := m.live[name]; i != nil {
		return i, nil
	}
	return nil, &fs.PathError{Op: op, Path: name, Err: syscall.ENOENT}
}

func (m *memFS) Lock(name string) (io.Closer, error) {
	if err := m.call("lock", name); err != nil {
		return nil, err
	}
	if m.locked[name] {
		return nil, &inUseError{}
	}
	m.locked[name] = true
	return closer(func() error { delete(m.locked, name); return nil }), nil
}

type closer func() error

func (c closer) Close() error { return c() }

func (m *memFS) ReadFile(name string) ([]byte, error) {
	if err := m.call("read", name); err != nil {
		return nil, err
	}
	i, err := m.find("read", name)
	if err != nil {
		return nil, err
	}
	return bytes.Clone(i.data), nil
}

func (m *memFS) Create(name string) (file, error) {
	if err := m.call("create", name); err != nil {
		return nil, err
	}
	f := m.made(name)
	f.inode.data, f.inode.dirty = nil, true
	return f, nil
}

func (m *memFS) Overwrite(name string) (placed, error) {
	if err := m.call("open", name); err != nil {
		return nil, err
	}
	return m.made(name), nil
}

// made gives the file of that name, an empty one if there is none.
func (m *memFS) made(name string) *memFile {
	i := m.live[name]
	if i == nil {
		i = &inode{dirty: true}
		m.change(change{name: i})
	}
	return &memFile{fs: m, name: name, inode: i}
}

func (m *memFS) Rename(from, to string) error {
	if err := m.call("rename", from); err != nil {
		return err
	}
	i, err := m.find("rename", from)
	if err == nil {
		m.change(change{from: nil, to: i})
	}
	return err
}

func (m *memFS) Remove(name string) error {
	if err := m.call("remove", name); err != nil {
		return err
	}
	_, err := m.find("remove", name)
	if err == nil {
		m.change(change{name: nil})
	}
	return err
}

func (m *memFS) SyncDir(name string) error {
	if err := m.call("syncdir", name); err != nil {
		return err
	}
	if m.lying != "syncdir" {
		m.synced, m.unsynced = maps.Clone(m.live), nil
	}
	return nil
}

type memFile struct {
	fs    *memFS
	name  string
	inode *inode
}

func (f *memFile) Write(p []byte) (int, error) {
	n, err := f.fs.written("write", f.name, len(p))
	f.inode.data = append(f.inode.data, p[:n]...)
	return n, err
}

// WriteAt does not touch the bytes that another inode or the test may share.
func (f *memFile) WriteAt(p []byte, at int64) (int, error) {
	n, err := f.fs.written("overwrite", f.name, len(p))
	data := make([]byte, max(len(f.inode.data), int(at)+n))
	copy(data, f.inode.data)
	copy(data[at:], p[:n])
	f.inode.before, f.inode.data, f.inode.dirty = f.inode.data, data, true
	return n, err
}

// written gives how much of n bytes a write takes.
func (m *memFS) written(op, name string, n int) (int, error) {
	err := m.call(op, name)
	switch {
	case err == nil:
		return n, nil
	case m.cut != nil:
		return m.cut(n), err
	}
	return n / 2, err
}

func (f *memFile) Truncate(size int64) error {
	err := f.fs.call("truncate", f.name)
	if err == nil {
		f.inode.before, f.inode.data, f.inode.dirty = f.inode.data, f.inode.data[:size], true
	}
	return err
}

func (f *memFile) Size() (int64, error) {
	if err := f.fs.call("size", f.name); err != nil {
		return 0, err
	}
	if f.fs.live[f.name] != f.inode {
		return 0, errors.New("another file, or none")
	}
	return int64(len(f.inode.data)), nil
}

func (f *memFile) Sync() error {
	if err := f.fs.call("sync", f.name); err != nil {
		return err
	}
	if f.fs.lying != "sync" {
		f.inode.synced, f.inode.dirty = bytes.Clone(f.inode.data), false
	}
	return nil
}

func (f *memFile) Close() error { return f.fs.call("close", f.name) }

// killed gives what SIGKILL leaves: all that the calls did.
func (m *memFS) killed() map[string][]byte {
	content := map[string][]byte{}
	for name, i := range m.live {
		content[name] = bytes.Clone(i.data)
	}
	return content
}

// powerLosses gives every content of the directory that a power loss may leave: any subset of the unsynced changes, and of
// each file that is not synced any of survivals.
func (m *memFS) powerLosses(yield func(map[string][]byte) bool) {
	seen := map[string]bool{}
	for subset := range 1 << len(m.unsynced) {
		dir := maps.Clone(m.synced)
		for i, c := range m.unsynced {
			if subset&(1<<i) != 0 {
				apply(dir, c)
			}
		}
		if key := entries(dir); !seen[key] {
			seen[key] = true
			if !expand(dir, slices.Sorted(maps.Keys(dir)), map[string][]byte{}, yield) {
				return
			}
		}
	}
}

// entries gives names and inodes in the order of the names: a directory to compare.
func entries(dir map[string]*inode) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(dir)) {
		fmt.Fprintf(&b, "%s %p\n", name, dir[name])
	}
	return b.String()
}

// expand adds the files names of dir to content, each in all the ways in which it may have survived.
func expand(dir map[string]*inode, names []string, content map[string][]byte, yield func(map[string][]byte) bool) bool {
	if len(names) == 0 {
		return yield(maps.Clone(content))
	}
	for _, data := range dir[names[0]].survivals(strings.HasSuffix(names[0], ".tmp")) {
		content[names[0]] = data
		if !expand(dir, names[1:], content, yield) {
			return false
		}
	}
	return true
}

// survivals gives what a power loss may leave of the bytes of a file. Of a temporary file, which nobody reads, it gives
// the extremes only.
func (i *inode) survivals(temporary bool) [][]byte {
	if !i.dirty {
		return [][]byte{i.data}
	}
	all := [][]byte{i.data, i.synced}
	n := len(bytes.TrimRight(i.data, "\n")) // a change within the padding damages nothing
	if n == 0 || temporary {
		return all
	}
	if i.before != nil {
		mixed := func(n int) []byte { return append(bytes.Clone(i.data[:n]), i.before[min(n, len(i.before)):]...) }
		same := 0
		for same < min(n, len(i.before)) && i.data[same] == i.before[same] {
			same++
		}
		// Of what was appended, half; and blocks that the file has grown by and that were not written.
		all = append(all, i.before, mixed(n/2), mixed(same+(n-same)/2))
		if len(i.data) > len(i.before) {
			all = append(all, append(mixed(same), make([]byte, len(i.data)-max(same, len(i.before)))...))
		}
		return all
	}
	zeroed := func(from int) []byte { return append(bytes.Clone(i.data[:from]), make([]byte, len(i.data)-from)...) }
	return append(all, i.data[:1], i.data[:n/2], i.data[:n], zeroed(0), zeroed(n/2), zeroed(n))
}
