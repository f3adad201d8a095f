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
	// written half.
	intercept func(i int, op, name string) error
	// lying makes fsync, or that of the directory, return nil and do nothing: "sync" or "syncdir".
	lying string
}

// inode is a file: data is what a read gives, synced what is on the disk for sure.
type inode struct {
	data, synced []byte
	dirty        bool
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
	i := m.live[name]
	if i == nil {
		i = &inode{}
		m.change(change{name: i})
	}
	i.data, i.dirty = nil, true
	return &memFile{fs: m, name: name, inode: i}, nil
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
	if err := f.fs.call("write", f.name); err != nil {
		f.inode.data = append(f.inode.data, p[:len(p)/2]...)
		return len(p) / 2, err
	}
	f.inode.data = append(f.inode.data, p...)
	return len(p), nil
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
	n := len(i.data)
	zeroed := func(from int) []byte { return append(bytes.Clone(i.data[:from]), make([]byte, n-from)...) }
	all := [][]byte{i.data, i.synced}
	if n > 0 && !temporary {
		all = append(all, i.data[:1], i.data[:n/2], i.data[:n-1], zeroed(0), zeroed(n/2), zeroed(n-1))
	}
	return all
}
