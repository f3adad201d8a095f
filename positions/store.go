package positions

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ErrRefused is wrapped by what Commit returns for a position that it must not take: the caller has a bug, and trying
// again does not help. Any other error of Commit is one of writing.
var ErrRefused = errors.New("position refused")

// Config is where and how positions are kept.
type Config struct {
	// File is the durable file, positions.json; the latest file is <stem>.latest<ext> and the lock <File>.lock.
	File string
	// Logger gets what Open found damaged, and when writing begins to fail and works again.
	Logger *slog.Logger
	// Registerer gets the metrics; nil for none.
	Registerer prometheus.Registerer
}

// Store holds the acknowledged position of each audit log path. Its methods may be called at the same time.
type Store struct {
	config  Config
	now     func() time.Time
	metrics *metrics
	lock    io.Closer
	lost    bool

	durable, latest *replaced

	// mu is never held while waiting for the disk. It is the innermost lock: those of the files are taken before it.
	mu   sync.Mutex
	held map[string]Position
	// generation counts the changes of held, from 1, so that a file can tell if it is up to date.
	generation uint64
}

// Lost reports whether Open found positions files but none of them whole, so that every path begins anew, and what it
// had sent is repeated.
func (s *Store) Lost() bool { return s.lost }

// Position gives the last committed position of a path, named as in Commit, and whether there is one.
func (s *Store) Position(logPath string) (Position, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.held[logPath]
	return p, ok
}

// Commit takes p as the position that Loki has acknowledged for a path. Paths are compared as strings. Position and the
// next Sync see p at once; when Commit returns nil, SIGKILL does not lose it. EventTime is kept in UTC.
//
// The error wraps ErrRefused if p is behind the position held, or cannot be kept; then nothing changed. Otherwise the
// latest file could not be written: p is held all the same, and the next Commit or Sync writes it. That is counted and,
// once, logged here: the caller goes on shipping.
func (s *Store) Commit(logPath string, p Position) error {
	generation, err := s.hold(logPath, p)
	if err != nil {
		return err
	}
	return s.bring(s.latest, generation)
}

// Sync makes durable what was committed before it; without news it does nothing. When it returns nil, power loss does not
// lose that. A failure leaves the file as it was, is counted and, once, logged here; the next Sync tries again.
func (s *Store) Sync() error {
	s.mu.Lock()
	generation := s.generation
	s.mu.Unlock()
	return s.bring(s.durable, generation)
}

// Close ends Commit, makes a last Sync, whose error it returns, and lets another agent have the files. A second Close
// does nothing.
func (s *Store) Close() error {
	s.latest.mu.Lock()
	s.latest.closed = true
	s.latest.mu.Unlock()
	err := s.Sync()

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

// bring replaces f by what is held, unless it has that generation already: another loop's Commit may have written it.
func (s *Store) bring(f *replaced, generation uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.generation >= generation {
		return nil
	}
	if f.closed {
		return fmt.Errorf("writing %s: %w", f.path, os.ErrClosed)
	}
	begin := s.now()
	generation, err := s.snapshot(f)
	if err == nil {
		err = f.stage()
	}
	if err == nil {
		err = f.publish()
	}
	s.wrote(f, generation, begin, err)
	return err
}

// snapshot encodes what is held as the content of f, and gives its generation.
func (s *Store) snapshot(f *replaced) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.generation, encode(&f.content, s.held)
}

// wrote keeps account of an attempt to replace f. The log gets the changes of state only.
func (s *Store) wrote(f *replaced, generation uint64, begin time.Time, err error) {
	if err != nil {
		s.metrics.failures.WithLabelValues(f.kind).Inc()
		if !f.failing {
			s.config.Logger.Error("positions file cannot be written; shipping goes on, a crash now costs repeats",
				"file", f.path, "error", err)
		}
		f.failing = true
		return
	}
	if f.failing {
		s.config.Logger.Info("positions file is written again", "file", f.path)
	}
	f.failing = false
	f.generation = generation
	if f == s.durable {
		s.metrics.observe(begin, s.now())
	}
}
