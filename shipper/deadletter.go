package shipper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"gopkg.in/natefinch/lumberjack.v2"
)

// A DeadLetter is one line of the dead-letter file: an entry that Loki refused for good, with all that is needed to push it
// again as it was. A line that is not JSON is what a full disk or a crash left of one; the whole one follows.
type DeadLetter struct {
	Time      time.Time         `json:"time"`      // of the refusal
	Reason    string            `json:"reason"`    // as in auditferry_dropped_entries_total
	Answer    string            `json:"answer"`    // status and text
	Labels    string            `json:"labels"`    // in Loki's text form
	Timestamp string            `json:"timestamp"` // RFC 3339 in UTC; text, so that a time that no push can hold is one here
	Metadata  []DeadLetterField `json:"structured_metadata,omitempty"`
	// Event is the line. If it is not valid UTF-8, which JSON cannot hold, EventBytes is it, in base64.
	Event      string `json:"event,omitempty"`
	EventBytes []byte `json:"event_base64,omitempty"`
}

// A DeadLetterField is one name and value of structured metadata; Bytes instead of Value if that is not valid UTF-8.
type DeadLetterField struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
	Bytes []byte `json:"value_base64,omitempty"`
}

func newDeadLetter(now time.Time, e Entry, a answer) DeadLetter {
	d := DeadLetter{Time: now.UTC(), Reason: a.reason(), Answer: a.words, Labels: e.Stream,
		Timestamp: e.Time.UTC().Format(time.RFC3339Nano)}
	d.Event, d.EventBytes = textOrBytes(e.Line)
	for _, m := range e.Metadata {
		f := DeadLetterField{Name: m.Name}
		f.Value, f.Bytes = textOrBytes(m.Value)
		d.Metadata = append(d.Metadata, f)
	}
	return d
}

func textOrBytes(b []byte) (string, []byte) {
	if utf8.Valid(b) {
		return string(b), nil
	}
	return "", b
}

// errDeadLettersFull stops an entry at the limit of the dead-letter files.
var errDeadLettersFull = errors.New("the dead-letter files are full: replay them (auditferry replay), move them away, or raise --dead-letter-max-size")

// minRotated keeps rotations apart: the names that lumberjack gives differ by the millisecond.
const minRotated = 1 << 20

// deadLetters is the dead-letter file. An entry is acknowledged after write has returned nil, so then it is on the disk, even
// if the power goes. A crash in between repeats it here; a failed write may leave a piece of a line, and is made again.
//
// lumberjack renames the file when it is full. It is closed after each letter, so that an operator can move or remove the
// files at any time, and letters go to what bears the name then.
type deadLetters struct {
	path  string
	limit int64                   // of all files together, in bytes
	each  int64                   // of one file, in bytes
	sync  func(path string) error // fsync; tests watch it and make it fail

	mu  sync.Mutex
	log lumberjack.Logger
}

// openDeadLetters checks path and takes it; the file itself is made by the first letter.
func openDeadLetters(path string, limit int64) (*deadLetters, error) {
	if path == "" {
		return nil, errors.New("--dead-letter-file is missing: name a file for the events that Loki refuses for good")
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("--dead-letter-file: its directory must exist: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("--dead-letter-file: %s is not a directory", filepath.Dir(path))
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("--dead-letter-file: %s is not a regular file", path)
	}
	// Rotation is ours to start, so lumberjack's own limit, in MiB, must only be out of the way of the longest letter.
	return &deadLetters{path: path, limit: limit, each: max(limit/8, minRotated), sync: syncFile,
		log: lumberjack.Logger{Filename: path, MaxSize: int(limit>>20) + 2}}, nil
}

// write appends d and returns once it is durable.
func (l *deadLetters) write(d DeadLetter) error {
	var line bytes.Buffer
	encoder := json.NewEncoder(&line)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(d); err != nil {
		return fmt.Errorf("encoding a dead letter: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size()+int64(line.Len()) > l.limit {
		return errDeadLettersFull
	}
	length, whole, err := l.current()
	if err != nil {
		return fmt.Errorf("dead-letter file: %w", err)
	}
	text := line.Bytes()
	switch {
	case length > 0 && length+int64(len(text)) > l.each:
		if err := l.log.Rotate(); err != nil {
			return fmt.Errorf("rotating the dead-letter file: %w", err)
		}
	case !whole:
		text = append([]byte{'\n'}, text...)
	}
	_, err = l.log.Write(text)
	if err = errors.Join(err, l.log.Close()); err != nil {
		return fmt.Errorf("writing a dead letter: %w", err)
	}
	if err := l.sync(l.path); err != nil {
		return fmt.Errorf("syncing the dead-letter file: %w", err)
	}
	return nil
}

// current returns the length of the file at the path, and whether it ends with a whole line.
func (l *deadLetters) current() (length int64, whole bool, err error) {
	f, err := os.Open(l.path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, true, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return 0, true, err
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, info.Size()-1); err != nil {
		return 0, false, err
	}
	return info.Size(), last[0] == '\n', nil
}

// size is the bytes of the file and of those that lumberjack made of it by rotation. What cannot be read counts nothing.
func (l *deadLetters) size() int64 {
	dir, base := filepath.Dir(l.path), filepath.Base(l.path)
	ext := filepath.Ext(base)
	files, _ := os.ReadDir(dir)
	total := int64(0)
	for _, f := range files {
		if f.Name() != base && !rotatedFrom(f.Name(), strings.TrimSuffix(base, ext), ext) {
			continue
		}
		if info, err := f.Info(); err == nil {
			total += info.Size()
		}
	}
	return total
}

// syncFile makes the file at path, and its name, durable. A sync covers what other descriptors of the file have written.
func syncFile(path string) error {
	for _, p := range []string{path, filepath.Dir(path)} {
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
