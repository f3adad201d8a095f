package rig

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Names of corpus files. The repository carries the first two; the full corpus has all.
const (
	SampleLog   = "sample.log"
	MetadataLog = "metadata.log.gz"
	MixedLog    = "mixed.log.gz"
	BigLog      = "big.log.gz"
)

// Corpus is a directory of real audit logs.
type Corpus struct{ Dir string }

// FindCorpus gives the corpus named by the environment variable AUDITFERRY_CORPUS, else ../shared/corpus beside the
// repository, else the sample that the repository carries in hack/corpus.
func FindCorpus() (Corpus, error) {
	if dir := os.Getenv("AUDITFERRY_CORPUS"); dir != "" {
		if _, err := os.Stat(dir); err != nil {
			return Corpus{}, fmt.Errorf("finding the corpus of AUDITFERRY_CORPUS: %w", err)
		}
		return Corpus{Dir: dir}, nil
	}
	root, err := RepoRoot()
	if err != nil {
		return Corpus{}, err
	}
	shared := Corpus{Dir: filepath.Join(root, "..", "shared", "corpus")}
	if shared.Full() {
		return shared, nil
	}
	return Corpus{Dir: filepath.Join(root, "hack", "corpus")}, nil
}

// Full says whether the big files that the repository does not carry are there.
func (c Corpus) Full() bool {
	for _, name := range []string{MixedLog, BigLog} {
		if _, err := os.Stat(filepath.Join(c.Dir, name)); err != nil {
			return false
		}
	}
	return true
}

// Mixed names the file with events of all levels: of the full corpus, else the sample.
func (c Corpus) Mixed() string {
	if c.Full() {
		return MixedLog
	}
	return SampleLog
}

// Lines gives the lines of one file in order, without their newlines. A line is valid until the next one is asked for.
func (c Corpus) Lines(name string) iter.Seq2[[]byte, error] {
	return FileLines(filepath.Join(c.Dir, name))
}

// FileLines gives the lines of a file, unpacked if its name ends in .gz, without their newlines. A last line without a
// newline is given too. A line is valid until the next one is asked for; after an error nothing follows.
func FileLines(path string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		file, err := os.Open(path)
		if err != nil {
			yield(nil, fmt.Errorf("reading lines: %w", err))
			return
		}
		defer file.Close()
		var from io.Reader = file
		if strings.HasSuffix(path, ".gz") {
			if from, err = gzip.NewReader(file); err != nil {
				yield(nil, fmt.Errorf("reading lines of %s: %w", path, err))
				return
			}
		}
		scanner := bufio.NewScanner(from)
		scanner.Buffer(nil, 64<<20)
		scanner.Split(splitLines)
		for scanner.Scan() {
			if !yield(scanner.Bytes(), nil) {
				return
			}
		}
		if err := scanner.Err(); err != nil {
			yield(nil, fmt.Errorf("reading lines of %s: %w", path, err))
		}
	}
}

// splitLines is bufio.ScanLines without its removal of a carriage return, which is part of the line.
func splitLines(data []byte, atEOF bool) (int, []byte, error) {
	advance, line, err := bufio.ScanLines(data, atEOF)
	if advance > len(line) && line != nil {
		line = data[:advance]
		if line[advance-1] == '\n' {
			line = line[:advance-1]
		}
	}
	return advance, line, err
}

// pause is the time between the last event of one pass over a file and the first of the next.
const pause = time.Second

// Replay gives the lines of the named files in order, their two timestamps moved by a constant per file, so that the files
// follow one another in time and the last event of the last file is at end. A name may be repeated: the lines of each pass
// differ by their timestamps. A line is valid until the next one is asked for.
func (c Corpus) Replay(end time.Time, names ...string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		shifts, err := c.shifts(end, names)
		if err != nil {
			yield(nil, err)
			return
		}
		var moved []byte
		for i, name := range names {
			for line, err := range c.Lines(name) {
				if err == nil {
					moved, err = shifts[i].Append(moved[:0], line)
				}
				if err != nil {
					yield(nil, fmt.Errorf("replaying %s: %w", name, err))
					return
				}
				if !yield(moved, nil) {
					return
				}
			}
		}
	}
}

// Passes gives how often Replay must be given the named files to make up size bytes of lines that are not shorter than atLeast.
func (c Corpus) Passes(size int64, atLeast int, names ...string) (int, error) {
	var once int64
	for _, name := range names {
		for line, err := range c.Lines(name) {
			if err != nil {
				return 0, err
			}
			if len(line) >= atLeast {
				once += int64(len(line)) + 1
			}
		}
	}
	if once == 0 {
		return 0, fmt.Errorf("no line of %v has %d bytes", names, atLeast)
	}
	return int((size + once - 1) / once), nil
}

// shifts gives how far each pass must be moved, reckoned back from end.
func (c Corpus) shifts(end time.Time, names []string) ([]Shift, error) {
	type span struct{ first, last time.Time }
	spans := map[string]span{}
	shifts := make([]Shift, len(names))
	for i := len(names) - 1; i >= 0; i-- {
		s, ok := spans[names[i]]
		if !ok {
			first, last, err := c.span(names[i])
			if err != nil {
				return nil, err
			}
			s = span{first, last}
			spans[names[i]] = s
		}
		shifts[i] = Shift(end.Sub(s.last).Truncate(time.Microsecond))
		end = end.Add(s.first.Sub(s.last) - pause)
	}
	return shifts, nil
}

// span gives the earliest and the latest stageTimestamp of a file.
func (c Corpus) span(name string) (first, last time.Time, err error) {
	for line, err := range c.Lines(name) {
		if err != nil {
			return first, last, err
		}
		at, err := StageTime(line)
		if err != nil {
			return first, last, fmt.Errorf("finding the time span of %s: %w", name, err)
		}
		if first.IsZero() || at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	if first.IsZero() {
		return first, last, fmt.Errorf("finding the time span of %s: %w", name, errors.New("no lines"))
	}
	return first, last, nil
}

// AuditFiles gives the files of an audit log path, oldest first: the backups that lumberjack named after the time of their
// rotation, and the active file. A backup that is there plain and, not yet whole, as .gz is given plain.
func AuditFiles(path string) ([]string, error) {
	ext := filepath.Ext(path)
	backups, err := filepath.Glob(strings.TrimSuffix(path, ext) + "-*" + ext + "*")
	if err != nil {
		return nil, fmt.Errorf("listing the files of %s: %w", path, err)
	}
	slices.Sort(backups)
	backups = slices.CompactFunc(backups, func(plain, packed string) bool { return packed == plain+".gz" })
	return append(backups, path), nil
}
