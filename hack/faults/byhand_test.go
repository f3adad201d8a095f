//go:build e2e

package faults

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// byHand writes an audit log by the same system calls as lumberjack, but one step at a time: it rotates when it is told, by
// a clock that can be set, and compresses and prunes only when it is told. One goroutine uses it; several of them may write
// one path, as several apiservers do.
type byHand struct {
	t    *testing.T
	path string
	now  func() time.Time // names the backups
	file *os.File
}

func newByHand(t *testing.T, path string) *byHand {
	w := &byHand{t: t, path: path, now: time.Now}
	t.Cleanup(w.close)
	return w
}

// write writes one line, given without its newline, by one write. The first opens the file.
func (w *byHand) write(line []byte) { w.raw(append(append([]byte(nil), line...), '\n')) }

// raw writes bytes as they are.
func (w *byHand) raw(text []byte) {
	w.t.Helper()
	if w.file == nil {
		w.open()
	}
	if _, err := w.file.Write(text); err != nil {
		w.t.Fatal(err)
	}
}

// open opens the file that is there, with O_APPEND, or makes one.
func (w *byHand) open() {
	w.t.Helper()
	var err error
	if w.file, err = os.OpenFile(w.path, os.O_APPEND|os.O_WRONLY, 0o600); os.IsNotExist(err) {
		w.file, err = os.OpenFile(w.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// rotate renames whatever stands at the path and makes a new file, without O_APPEND. It gives the name of the backup. No
// name is given twice: lumberjack would write over the first file, which takes two rotations in a millisecond.
func (w *byHand) rotate() (backup string) {
	w.t.Helper()
	w.close()
	at := w.now().UTC()
	ext := filepath.Ext(w.path)
	for {
		backup = strings.TrimSuffix(w.path, ext) + at.Format("-2006-01-02T15-04-05.000") + ext
		if !exists(backup) && !exists(backup+".gz") {
			break
		}
		at = at.Add(time.Millisecond)
	}
	err := os.Rename(w.path, backup)
	if os.IsNotExist(err) {
		err, backup = nil, "" // somebody took it away
	}
	if err == nil {
		w.file, err = os.OpenFile(w.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return backup
}

// close lets go of the file.
func (w *byHand) close() {
	if w.file == nil {
		return
	}
	if err := w.file.Close(); err != nil {
		w.t.Error(err)
	}
	w.file = nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// compress makes the .gz of a backup in two steps, and deletes the plain file: in between both lie there, the .gz cut.
func compress(t *testing.T, backup string, between func()) {
	t.Helper()
	plain, err := os.Open(backup)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	packed, err := os.OpenFile(backup+".gz", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	info, err := plain.Stat()
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(packed)
	if _, err := io.CopyN(z, plain, info.Size()/2); err != nil {
		t.Fatal(err)
	}
	if err := z.Flush(); err != nil {
		t.Fatal(err)
	}
	if between != nil {
		between()
	}
	if _, err := io.Copy(z, plain); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	remove(t, backup)
}

// backups gives the backups of a path, oldest first by name. A backup that lies there plain and packed is given twice.
func backups(t *testing.T, path string) []string {
	t.Helper()
	ext := filepath.Ext(path)
	names, err := filepath.Glob(strings.TrimSuffix(path, ext) + "-*" + ext + "*")
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// prune deletes the oldest backups but keep of them, and gives how many it deleted.
func prune(t *testing.T, path string, keep int) int {
	t.Helper()
	names := backups(t, path)
	gone := max(0, len(names)-keep)
	remove(t, names[:gone]...)
	return gone
}

func remove(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// copyTruncate copies the audit log to <path>.1, as logrotate's copytruncate does, after shifting earlier copies, and
// truncates it in place. It gives how long it was.
func copyTruncate(t *testing.T, path string) int64 {
	t.Helper()
	for n := 8; n > 0; n-- {
		if old := fmt.Sprintf("%s.%d", path, n); exists(old) {
			if err := os.Rename(old, fmt.Sprintf("%s.%d", path, n+1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path+".1", text, 0o600)
	}
	if err == nil {
		err = os.Truncate(path, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return int64(len(text))
}
