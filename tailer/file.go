package tailer

import (
	"bufio"
	"compress/flate"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/auditferry/auditferry/positions"
)

// file is one file of the chain, held open: neither a rename nor its deletion takes it away.
type file struct {
	gz   bool
	f    *os.File
	info os.FileInfo // as it was when opened: tells the inode, not the size

	unpacked *bufio.Reader // of a .gz, from its beginning on
	offset   int64         // unpacked bytes read so far
	pages    pages

	known atomic.Int64 // bytes that it has on disk at the least, as far as was seen
}

// open opens the entry of a directory. What is opened may be another file than the listing saw, if a rotation came in
// between: the caller compares.
func (e *entry) open(dir string) (*file, error) {
	f, err := os.Open(filepath.Join(dir, e.name()))
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("looking at %s: %w", f.Name(), err)
	}
	opened := &file{gz: e.gz, f: f, info: info}
	opened.known.Store(info.Size())
	if e.kind == active {
		opened.pages.backlog = info.Size()
	}
	expectSequential(f)
	return opened, nil
}

func (f *file) close() {
	f.drop()
	_ = f.f.Close()
}

// read reads on from the offset; io.EOF says that there is no more for now. A plain file may grow after that.
func (f *file) read(p []byte) (int, error) {
	if !f.gz {
		n, err := f.f.ReadAt(p, f.offset)
		f.offset += int64(n)
		f.passed(f.offset)
		if f.offset > f.known.Load() {
			f.known.Store(f.offset)
		}
		if n > 0 && errors.Is(err, io.EOF) {
			err = nil
		}
		return n, err
	}
	if f.unpacked == nil {
		if err := f.unpack(); err != nil {
			return 0, err
		}
	}
	n, err := f.unpacked.Read(p)
	f.offset += int64(n)
	return n, err
}

const unpackBuffer = 64 << 10

func (f *file) unpack() error {
	z, err := gzip.NewReader(bufio.NewReaderSize(&onDisk{file: f}, unpackBuffer))
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF // an empty file is no gzip file: lumberjack has only just created it
	}
	if err != nil {
		return err
	}
	f.unpacked = bufio.NewReader(z)
	return nil
}

// onDisk is a .gz as it lies there, from its beginning on.
type onDisk struct {
	*file
	at int64
}

func (d *onDisk) Read(p []byte) (int, error) {
	n, err := d.f.ReadAt(p, d.at)
	d.at += int64(n)
	d.passed(d.at)
	return n, err
}

// seek makes offset the next byte to read, reading through what is packed. It reports whether offset can be a place
// between two lines: just after a newline, at the beginning, or at the end of the file. It is not if the file was
// rewritten since, or cut by a power failure: then the file is to be read from its beginning, because what the
// apiserver has written after the cut may lie before offset.
func (f *file) seek(offset int64) (bool, error) {
	f.rewind()
	if offset == 0 {
		return true, nil
	}
	if !f.gz {
		return f.seekPlain(offset)
	}
	if err := f.unpack(); err != nil {
		return false, err
	}
	if _, err := io.CopyN(io.Discard, f.unpacked, offset-1); err != nil {
		return false, notEOF(err)
	}
	last, err := f.unpacked.ReadByte()
	if err != nil {
		return false, notEOF(err)
	}
	f.offset = offset
	_, next := f.unpacked.Peek(1)
	return last == '\n' || errors.Is(next, io.EOF), nil
}

// notEOF makes no error of the end of a file.
func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (f *file) seekPlain(offset int64) (bool, error) {
	var last [2]byte
	n, err := f.f.ReadAt(last[:], offset-1)
	if n == 0 {
		return false, notEOF(err)
	}
	f.offset = offset
	return last[0] == '\n' || n == 1 && errors.Is(err, io.EOF), nil
}

func (f *file) rewind() {
	f.offset, f.unpacked = 0, nil
	f.pages.reread()
}

// identify gives the hash of the first line, or of all there is if the file has no newline: then whole is false and
// the hash is an identity only if the file has stopped growing. An empty file has none. The reading position stays.
func (f *file) identify() (id positions.Hash, whole bool, err error) {
	var r io.Reader = io.NewSectionReader(f.f, 0, 1<<62)
	if f.gz {
		if r, err = gzip.NewReader(r); err != nil {
			return id, false, fmt.Errorf("unpacking %s: %w", f.f.Name(), err)
		}
	}
	sum := sha256.New()
	lines := bufio.NewReaderSize(r, 4<<10)
	for empty := true; ; {
		part, err := lines.ReadSlice('\n')
		sum.Write(part)
		empty = empty && len(part) == 0
		switch {
		case err == nil:
			return positions.Hash(sum.Sum(nil)), true, nil
		case errors.Is(err, io.EOF) && empty:
			return positions.Hash{}, false, nil
		case errors.Is(err, io.EOF):
			return positions.Hash(sum.Sum(nil)), false, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return id, false, fmt.Errorf("reading the first line of %s: %w", f.f.Name(), err)
		}
	}
}

// size is the length of the file in unpacked bytes. For a .gz it is what its last four bytes say, which is right up
// to 4 GiB and good enough for a lag.
func (f *file) size() int64 {
	size := f.stored()
	var tail [4]byte
	if !f.gz || size < int64(len(tail)) {
		return size
	}
	if _, err := f.f.ReadAt(tail[:], size-int64(len(tail))); err != nil {
		return size
	}
	return int64(binary.LittleEndian.Uint32(tail[:]))
}

// stored is the length of the file as it lies on disk. Some file systems (FUSE) tell, even of an open file, about what has
// its name by now: then it is the length that is known.
func (f *file) stored() int64 {
	if info, err := f.f.Stat(); err == nil && os.SameFile(info, f.info) {
		f.known.Store(info.Size())
	}
	return f.known.Load()
}

// end is how far the file was read, as it lies on disk.
func (f *file) end() int64 {
	if f.gz {
		return f.stored()
	}
	return f.offset
}

// damagedPack tells a .gz whose contents are broken, for good, from one that cannot be read for the moment.
func damagedPack(err error) bool {
	var corrupt flate.CorruptInputError
	return errors.As(err, &corrupt) || errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) ||
		errors.Is(err, io.ErrUnexpectedEOF)
}
