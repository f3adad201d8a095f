package positions

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	durableKind = "durable"
	latestKind  = "latest"
)

// Open takes the lock, reads the positions, and makes what it found durable, which also proves that the agent can write
// there. Damaged files are kept aside and logged. See Lost for when nothing whole was left.
//
// Its errors say what to do: another agent has the file, the directory is missing or cannot be written, a file cannot be
// read, or a newer agent wrote it. A full disk is not an error, as it is none later: it is logged, and Sync tries again.
func Open(cfg Config) (*Store, error) {
	path, err := followLink(cfg.File)
	if err != nil {
		return nil, err
	}
	cfg.File = path
	return open(cfg, disk{}, time.Now)
}

// followLink gives what a symbolic link points to, because a rename onto the link would replace the link.
func followLink(path string) (string, error) {
	if path == "" {
		return "", errors.New("no positions file: name one with --positions-file")
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return path, nil // what is wrong with the path, if anything, is found by using it
	}
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("positions file %s is a symbolic link to nothing: name the file itself with "+
			"--positions-file: %w", path, err)
	}
	return target, nil
}

func open(cfg Config, fsys fileSystem, now func() time.Time) (_ *Store, err error) {
	ext := filepath.Ext(cfg.File)
	s := &Store{
		config:     cfg,
		now:        now,
		metrics:    newMetrics(),
		durable:    &replaced{fs: fsys, path: cfg.File, kind: durableKind, fsync: true},
		latest:     &replaced{fs: fsys, path: strings.TrimSuffix(cfg.File, ext) + ".latest" + ext, kind: latestKind},
		generation: 1,
	}
	s.lock, err = fsys.Lock(cfg.File + ".lock")
	if err != nil {
		return nil, explain(cfg.File, err)
	}
	defer func() {
		if err != nil {
			err = also(explain(cfg.File, err), s.lock.Close())
		}
	}()
	if err := s.recover(); err != nil {
		return nil, err
	}
	if err := s.metrics.register(cfg.Registerer); err != nil {
		return nil, err
	}
	return s, nil
}

// explain adds to an error of Open what to do about it.
func explain(path string, err error) error {
	dir := filepath.Dir(path)
	var other *inUseError
	switch {
	case errors.As(err, &other):
		return fmt.Errorf("positions file %s is %w: stop that one, or give each its own file with --positions-file",
			path, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("directory %s of the positions file does not exist: create it, or name another place with "+
			"--positions-file: %w", dir, err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("the agent must be able to read, create and rename files in %s: allow it, or name another "+
			"place with --positions-file: %w", dir, err)
	}
	return fmt.Errorf("opening positions file %s: %w", path, err)
}

// recover fills an empty store from the files, in the order that doc.go argues for.
func (s *Store) recover() error {
	for _, f := range []*replaced{s.durable, s.latest} {
		if err := f.discard(); err != nil {
			return err
		}
	}
	durable, err := s.durable.read()
	if err != nil {
		return err
	}
	latest, err := s.latest.read()
	if err != nil {
		return err
	}
	s.held = merge(durable.paths, latest.paths)

	begin := s.now()
	generation, err := s.snapshot(s.durable)
	if err != nil {
		return err
	}
	err = s.durable.stage()
	if err != nil && !diskFull(err) {
		return err
	}
	if asideErr := s.keepAside(durable, latest); asideErr != nil {
		return also(asideErr, s.durable.discard())
	}
	if err == nil {
		err = s.durable.publish()
	}
	if err != nil && !diskFull(err) {
		return err
	}
	s.wrote(s.durable, generation, begin, err)
	return nil
}

func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// contents is what was found in a positions file: paths if it is whole, damage if it exists and is not.
type contents struct {
	whole  bool
	paths  map[string]Position
	damage error
}

// read gives the contents of the file. The error is for a file that may be whole all the same.
func (r *replaced) read() (contents, error) {
	raw, err := r.fs.ReadFile(r.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return contents{}, nil
	case errors.Is(err, syscall.EIO): // bad blocks are damage: to refuse to start would lose events, not repeat some
		return contents{damage: err}, nil
	case err != nil:
		return contents{}, fmt.Errorf("reading positions: %w", err)
	}
	paths, err := decode(raw)
	var version versionError
	if errors.As(err, &version) {
		return contents{}, fmt.Errorf("%s %w", r.path, version)
	}
	if err != nil {
		return contents{damage: err}, nil
	}
	return contents{whole: true, paths: paths}, nil
}

// merge gives for each path the position that is ahead.
func merge(a, b map[string]Position) map[string]Position {
	merged := make(map[string]Position, len(a))
	for _, paths := range []map[string]Position{a, b} {
		for path, p := range paths {
			before, ok := merged[path]
			if !ok || p.LSN > before.LSN || p.LSN == before.LSN && before.Gap == nil { // a gap was found after the position
				merged[path] = p
			}
		}
	}
	return merged
}

// keepAside moves damaged files out of the way, for a person to look at. It speaks before it acts: after a crash in
// between, the files may not be there to tell.
func (s *Store) keepAside(durable, latest contents) error {
	s.lost = (durable.damage != nil || latest.damage != nil) && !durable.whole && !latest.whole
	if s.lost {
		s.config.Logger.Error("positions are lost: no positions file is whole; every path begins anew, "+
			"Loki will be sent again what it has", "file", s.durable.path)
	}
	for _, damaged := range []struct {
		file     *replaced
		contents contents
	}{{s.durable, durable}, {s.latest, latest}} {
		if damaged.contents.damage == nil {
			continue
		}
		path := damaged.file.path
		aside := path + ".damaged-" + s.now().UTC().Format("20060102T150405.000Z")
		s.config.Logger.Warn("positions file is damaged and kept aside",
			"file", path, "aside", aside, "damage", damaged.contents.damage)
		if err := damaged.file.fs.Rename(path, aside); err != nil {
			return fmt.Errorf("keeping a damaged positions file aside: %w", err)
		}
	}
	return nil
}
