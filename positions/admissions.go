package positions

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Admission says that something, which its words name, is admitted to the labels of a path from a position on.
type Admission struct {
	// Path is that of the log, as in Commit.
	Path string `json:"path"`
	// From is the first position for which it holds: an LSN. -1 where Since tells it.
	From int64 `json:"from"`
	// Since is the time of the first event for which it holds; zero if that does not matter.
	Since time.Time `json:"since,omitzero"`
	// Kind and Words are what is admitted, in UTF-8. What they mean is the business of whoever admits.
	Kind  string   `json:"kind"`
	Words []string `json:"words"`
}

// subject is the same for admissions of the same thing.
func (a *Admission) subject() string { return fmt.Sprintf("%q %q %q", a.Path, a.Kind, a.Words) }

// Admissions keeps admissions on disk, beside the positions: what was sent with a label must get it again when it is read
// again after a crash, and what was sent without it must not. So an admission is durable before anything is sent that uses
// it.
//
// The file, <stem>.admissions beside positions.json, is only appended to; see admissionsformat.go. While it cannot be written,
// nothing may be sent that needs it, which is the caller's part: to go on with labels that are not durable would give what is
// sent again after a crash another stream, and to go on without new ones would be the same the other way round, once the disk
// is well again. So that a disk that fills up does not stop the agent for long, or at all, the file has room for some hundred
// more at any time: what is overwritten has its blocks.
type Admissions struct {
	store    *Store
	path     string
	failures prometheus.Counter

	mu   sync.Mutex
	held []Admission    // all that there are, in their order
	at   map[string]int // subject: index in held
	// file is open if it holds all of held before unwritten; nil if it is to be written anew.
	file      placed
	end, size int64 // of the file: after its last line, and after the room behind it
	unwritten []Admission

	// trouble has a lock of its own, the innermost: mu is held while the disk is waited for, and who asks how things are must not be.
	troubleMu sync.Mutex
	trouble   error // of the last attempt to write; it changes under both locks
}

// OpenAdmissions reads the admissions of the paths that have a position in s, which was just opened; nobody else has the file
// while s is open. keep chooses from them what is still of use: the rest is removed from the file.
//
// A path without a position begins anew, and so do its admissions. If all positions were lost, what was admitted holds from
// the beginning, or by the time of events, as most of what Loki has says. What a crash has cut off at the end of the file was not used yet. Damage
// elsewhere is logged, the file is kept aside, and what is whole of it counts. The errors are those of Open.
func OpenAdmissions(s *Store, keep func([]Admission) []Admission) (*Admissions, error) {
	ext := filepath.Ext(s.config.File)
	a := &Admissions{
		store: s, path: strings.TrimSuffix(s.config.File, ext) + ".admissions",
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "auditferry_admissions_write_failures_total",
			Help: "Failed attempts to write the admissions file. While they last, nothing is pushed.",
		}),
	}
	if err := a.open(keep); err != nil {
		return nil, explain(s.config.File, err)
	}
	if r := s.config.Registerer; r != nil {
		if err := r.Register(a.failures); err != nil {
			return nil, fmt.Errorf("registering the metrics of admissions: %w", err)
		}
	}
	return a, nil
}

func (a *Admissions) open(keep func([]Admission) []Admission) error {
	if err := remove(a.store.fs, a.path+temporary); err != nil {
		return err
	}
	raw, err := a.store.fs.ReadFile(a.path)
	unreadable := errors.Is(err, syscall.EIO) // bad blocks are damage, as for positions
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !unreadable && !missing {
		return fmt.Errorf("reading admissions: %w", err)
	}
	found, err := decodeAdmissions(raw)
	if err != nil {
		return fmt.Errorf("%s %w", a.path, err)
	}
	a.hold(a.ofKnown(found.admissions)) // of one that was lowered, the last line counts
	merged := a.held
	a.held, a.at = nil, nil
	a.hold(keep(merged))
	switch {
	case missing && len(a.held) == 0:
		return nil // the first one makes it
	case unreadable || found.damage:
		if err := a.keepAside(raw); err != nil {
			return err
		}
	case found.cut:
		a.store.config.Logger.Info("admissions file was cut while it was written; nothing that was sent needs what is missing", "file", a.path)
	case found.versioned && found.lines == len(a.held) && !a.store.Lost():
		a.end, a.size = found.end, int64(len(raw))
		if a.file, err = a.store.fs.Overwrite(a.path); err != nil {
			return fmt.Errorf("opening %s: %w", a.path, err)
		}
		return nil
	}
	if err := a.write(nil); err != nil && !diskFull(err) {
		return err
	}
	return nil
}

// ofKnown gives the admissions of paths that go on where they were.
func (a *Admissions) ofKnown(all []Admission) (known []Admission) {
	for _, one := range all {
		_, hasPosition := a.store.Position(one.Path)
		if !hasPosition && !a.store.Lost() {
			continue
		}
		if !hasPosition {
			if one.From = 0; !one.Since.IsZero() {
				one.From = -1
			}
		}
		known = append(known, one)
	}
	return known
}

// keepAside keeps a copy of a damaged file, or moves one of which nothing can be read out of the way. It speaks before it acts,
// as for positions. The file itself stays until another replaces it, because what is whole of it counts. On a full disk there is
// no copy.
func (a *Admissions) keepAside(raw []byte) error {
	aside := a.path + ".damaged-" + a.store.now().UTC().Format("20060102T150405.000Z")
	a.store.config.Logger.Error("admissions file is damaged and kept aside; events that are sent again may get other labels than before",
		"file", a.path, "aside", aside)
	if raw == nil {
		if err := a.store.fs.Rename(a.path, aside); err != nil {
			return fmt.Errorf("keeping a damaged admissions file aside: %w", err)
		}
		return nil
	}
	f, err := a.store.fs.Create(aside)
	if err == nil {
		_, err = f.Write(raw)
		err = also(err, f.Close())
	}
	if err != nil && !diskFull(err) {
		return fmt.Errorf("keeping a damaged admissions file aside: %w", err)
	}
	return nil
}

// hold takes admissions into memory. Of the same thing the lowest position counts, in the place of the first.
func (a *Admissions) hold(more []Admission) {
	if a.at == nil {
		a.at = make(map[string]int)
	}
	for _, one := range more {
		subject := one.subject()
		i, twice := a.at[subject]
		if !twice {
			a.at[subject] = len(a.held)
			a.held = append(a.held, one)
		} else if one.From < a.held[i].From {
			a.held[i].From, a.held[i].Since = one.From, one.Since
		}
	}
}

// Append makes admissions durable, in their order, with those that could not be written before. After an error they are held,
// and the next call tries again. Each failure is counted, the changes of state are logged here.
func (a *Admissions) Append(more []Admission) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hold(more)
	a.unwritten = append(a.unwritten, more...)
	if len(a.unwritten) == 0 && a.trouble == nil {
		return nil
	}
	return a.write(a.unwritten)
}

// Trouble gives why the admissions could not be written at the last attempt, nil if they could. It does not wait for the disk.
func (a *Admissions) Trouble() error {
	a.troubleMu.Lock()
	defer a.troubleMu.Unlock()
	return a.trouble
}

// Close lets go of the file.
func (a *Admissions) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.store.config.Registerer; r != nil {
		r.Unregister(a.failures)
	}
	return a.shut()
}

func (a *Admissions) shut() error {
	if a.file == nil {
		return nil
	}
	err := a.file.Close()
	a.file = nil
	if err != nil {
		return fmt.Errorf("closing %s: %w", a.path, err)
	}
	return nil
}

// write makes the file hold all that is held, of which it lacks the last ones.
func (a *Admissions) write(lacking []Admission) error {
	err := a.append(lacking)
	if err != nil {
		err = also(err, a.shut())
	}
	logger := a.store.config.Logger
	switch {
	case err != nil:
		a.failures.Inc()
		if a.trouble == nil {
			logger.Error("admissions file cannot be written; nothing is pushed until it can", "file", a.path, "error", err)
		}
	case a.trouble != nil:
		logger.Info("admissions file is written again", "file", a.path)
	}
	a.troubleMu.Lock()
	a.trouble = err
	a.troubleMu.Unlock()
	if err == nil {
		a.unwritten = nil
	}
	return err
}

// append writes in place what the file lacks. A file that is not as it was left, or of which a write or an fsync has failed, is
// written anew.
func (a *Admissions) append(lacking []Admission) error {
	if a.file != nil {
		if size, err := a.file.Size(); err != nil || size != a.size {
			_ = a.shut() // of no interest: what it held is not found under its name
		}
	}
	if a.file == nil {
		return a.replace()
	}
	lines, err := encodeAdmissions(nil, lacking)
	if err != nil {
		return err
	}
	end := a.end + int64(len(lines))
	if end > a.size {
		a.size = end + spareAdmissions
		lines = withSpare(lines)
	}
	if _, err := a.file.WriteAt(lines, a.end); err != nil {
		return fmt.Errorf("writing %s: %w", a.path, err)
	}
	if err := a.file.Sync(); err != nil {
		return fmt.Errorf("syncing %s: %w", a.path, err)
	}
	a.end = end
	return nil
}

// replace writes the file anew.
func (a *Admissions) replace() error {
	content, err := encodeAdmissions(slices.Clip(admissionsHead), a.held)
	if err != nil {
		return err
	}
	end := int64(len(content))
	content = withSpare(content)
	if err := stage(a.store.fs, a.path, content); err != nil {
		return err
	}
	if err := publish(a.store.fs, a.path); err != nil {
		return err
	}
	file, err := a.store.fs.Overwrite(a.path)
	if err != nil {
		return fmt.Errorf("opening %s: %w", a.path, err)
	}
	a.file, a.end, a.size = file, end, int64(len(content))
	return nil
}
