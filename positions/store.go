package positions

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ErrRefused is wrapped by what Commit returns for a position that it must not take: the caller has a bug, and trying
// again does not help. Any other error of Commit is one of writing.
var ErrRefused = errors.New("position refused")

// Config is where and how positions are kept.
type Config struct {
	// File is the durable file, positions.json; the latest files are <stem>.latest<ext> and <stem>.latest2<ext>, the lock is
	// <File>.lock.
	File string
	// Logger gets what Open found damaged, and when writing begins to fail and works again.
	Logger *slog.Logger
	// Registerer gets the metrics; nil for none.
	Registerer prometheus.Registerer
}

// Store holds the acknowledged position of each audit log path. Its methods may be called at the same time.
type Store struct {
	config  Config
	fs      fileSystem
	now     func() time.Time
	metrics *metrics
	lock    io.Closer
	lost    bool

	durable replaced
	latest  alternated

	// mu is never held while waiting for the disk. It is the innermost lock: those of the files are taken before it.
	mu   sync.Mutex
	held map[string]Position
	// generation counts the changes of held, from 1, so that a file can tell if it is up to date, and which of the latest
	// files is the newer one. It goes on from that of the files.
	generation uint64
}

// account is what the store keeps of each of the two ways in which what is held is written.
type account struct {
	kind string // the label of the metric: durable or latest
	path string // of the file, or the first of them

	// mu is held while writing. Each has its own, so that no Commit waits for an fsync.
	mu sync.Mutex
	// content is what is written; kept for its memory.
	content bytes.Buffer
	// generation is that of the positions in the file, see Store.generation; 0 if not known.
	generation uint64
	closed     bool
	// trouble is why the last write failed, nil if it did not. Store.mu guards it, so that who asks does not wait for the disk.
	trouble error
}

// Lost reports whether Open found positions files but none of them whole, so that every path begins anew, and what it
// had sent is repeated.
func (s *Store) Lost() bool { return s.lost }

// Trouble is why a positions file could not be written the last time, nil if all could. It keeps nobody from committing.
func (s *Store) Trouble() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.durable.trouble, s.latest.trouble)
}

// Position gives the last committed position of a path, named as in Commit, and whether there is one.
func (s *Store) Position(logPath string) (Position, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.held[logPath]
	return p, ok
}

// Paths gives the paths that have a position, named as in Commit, in no order.
func (s *Store) Paths() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.held))
}

// Commit takes p as the position that Loki has acknowledged for a path. Paths are compared as strings: where there are
// several destinations, their names are part of them. Position and the next Sync see p at once; when Commit returns nil,
// SIGKILL does not lose it. EventTime is kept in UTC.
//
// The error wraps ErrRefused if p is behind the position held, or cannot be kept; then nothing changed. Otherwise the
// latest files could not be written: p is held all the same, and the next Commit or Sync writes it. That is counted and,
// once, logged here: the caller goes on shipping.
func (s *Store) Commit(logPath string, p Position) error {
	generation, err := s.hold(logPath, p)
	if err != nil {
		return err
	}
	return s.bring(&s.latest.account, generation, s.latest.write)
}

// Sync makes durable what was committed before it; without news it writes nothing. When it returns nil, power loss does not
// lose that. A failure leaves the file as it was, is counted and, once, logged here; the next Sync tries again. It also
// looks if the latest files are still where Commit writes them.
func (s *Store) Sync() error {
	s.mu.Lock()
	generation := s.generation
	s.mu.Unlock()
	err := s.bring(&s.durable.account, generation, s.durable.write)
	s.latest.check() // last: it waits for a Commit, and the durable file need not
	return err
}

// Close ends Commit, makes a last Sync, whose error it returns, and lets another agent have the files. A second Close
// does nothing.
func (s *Store) Close() error {
	closeErr := s.latest.close()
	err := also(s.Sync(), closeErr)

	s.durable.mu.Lock()
	defer s.durable.mu.Unlock()
	if s.durable.closed {
		return nil
	}
	s.durable.closed = true
	s.metrics.unregister(s.config.Registerer)
	if unlockErr := s.lock.Close(); unlockErr != nil {
		err = also(err, fmt.Errorf("unlocking %s: %w", s.durable.path, unlockErr))
	}
	return err
}

// hold takes p into memory and gives the generation that has it.
func (s *Store) hold(logPath string, p Position) (uint64, error) {
	p = p.asRead()
	if err := validate(logPath, p); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before, ok := s.held[logPath]
	if ok && p.LSN < before.LSN {
		return 0, fmt.Errorf("%w: lsn %d of %s is behind %d", ErrRefused, p.LSN, logPath, before.LSN)
	}
	if !ok || !p.Equal(before) {
		s.held[logPath] = p
		s.generation++
	}
	return s.generation, nil
}

// bring has what is held written, unless the file has that generation already: another loop's Commit may have written it.
func (s *Store) bring(a *account, generation uint64, write func() error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.generation >= generation {
		return nil
	}
	if a.closed {
		return fmt.Errorf("writing %s: %w", a.path, os.ErrClosed)
	}
	begin := s.now()
	generation, err := s.snapshot(a)
	if err == nil {
		err = write()
	}
	s.wrote(a, generation, begin, err)
	return err
}

// snapshot encodes what is held as the content to write, and gives its generation.
func (s *Store) snapshot(a *account) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.generation, encode(&a.content, s.generation, s.held)
}

// wrote keeps account of an attempt to write. The log gets the changes of state only.
func (s *Store) wrote(a *account, generation uint64, begin time.Time, err error) {
	s.mu.Lock()
	before := a.trouble
	a.trouble = err
	s.mu.Unlock()
	if err != nil {
		s.metrics.failures.WithLabelValues(a.kind).Inc()
		if before == nil {
			s.config.Logger.Error("positions file cannot be written; shipping goes on, a crash now costs repeats",
				"file", a.path, "error", err)
		}
		return
	}
	if before != nil {
		s.config.Logger.Info("positions file is written again", "file", a.path)
	}
	a.generation = generation
	if a.kind == durableKind {
		s.metrics.observe(begin, s.now())
	}
}
