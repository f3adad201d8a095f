package positions

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
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
	latest := strings.TrimSuffix(cfg.File, ext) + ".latest"
	s := &Store{
		config:  cfg,
		fs:      fsys,
		now:     now,
		metrics: newMetrics(),
		durable: replaced{account: account{kind: durableKind, path: cfg.File}, fs: fsys},
		latest: alternated{
			account: account{kind: latestKind, path: latest + ext},
			files:   [2]*overwritten{{fs: fsys, path: latest + ext}, {fs: fsys, path: latest + "2" + ext}},
		},
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
	if err := s.discard(); err != nil {
		return err
	}
	durable, err := s.read(s.durable.path)
	if err != nil {
		return err
	}
	var latest [2]contents
	for i, f := range s.latest.files {
		if latest[i], err = s.read(f.path); err != nil {
			return err
		}
	}
	newest := newer(latest)
	s.latest.next = 1 - newest
	s.held = merge(durable.Paths, overlay(latest[1-newest].Paths, latest[newest].Paths))
	s.generation = 1 + max(durable.Generation, latest[0].Generation, latest[1].Generation)

	begin := s.now()
	generation, err := s.snapshot(&s.durable.account)
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
	s.wrote(&s.durable.account, generation, begin, err)
	return nil
}

// discard removes the temporary files that a crash left: of the durable file, and of the latest one as the agents before
// the second one wrote it.
func (s *Store) discard() error {
	if err := s.durable.discard(); err != nil {
		return err
	}
	return remove(s.fs, s.latest.path+".tmp")
}

func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// contents is what was found in a positions file: the document if it is whole, damage if it exists and is not.
type contents struct {
	document
	path   string
	whole  bool
	damage error
}

// read gives the contents of a file. The error is for one that may be whole all the same.
func (s *Store) read(path string) (contents, error) {
	raw, err := s.fs.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return contents{path: path}, nil
	case errors.Is(err, syscall.EIO): // bad blocks are damage: to refuse to start would lose events, not repeat some
		return contents{path: path, damage: err}, nil
	case err != nil:
		return contents{}, fmt.Errorf("reading positions: %w", err)
	}
	d, err := decode(raw)
	var version versionError
	if errors.As(err, &version) {
		return contents{}, fmt.Errorf("%s %w", path, version)
	}
	if err != nil {
		return contents{path: path, damage: err}, nil
	}
	return contents{path: path, document: d, whole: true}, nil
}

// newer gives which of the latest files was written last. Without a generation that is the first: an agent wrote it that
// knows no second one, so after that.
func newer(latest [2]contents) int {
	switch first, second := latest[0], latest[1]; {
	case !first.whole:
		return 1
	case !second.whole, first.Generation == 0, first.Generation > second.Generation:
		return 0
	}
	return 1
}

// overlay gives for each path the position that is ahead, of two latest files; at the same lsn that of the newer one.
func overlay(older, newer map[string]Position) map[string]Position {
	merged := make(map[string]Position, len(newer))
	maps.Copy(merged, older)
	for path, p := range newer {
		if before, ok := merged[path]; !ok || p.LSN >= before.LSN {
			merged[path] = p
		}
	}
	return merged
}

// merge gives for each path the position that is ahead.
func merge(a, b map[string]Position) map[string]Position {
	merged := make(map[string]Position, len(a))
	for _, paths := range []map[string]Position{a, b} {
		for path, p := range paths {
			before, ok := merged[path]
			if !ok || p.LSN > before.LSN || p.LSN == before.LSN && p.knows() >= before.knows() {
				merged[path] = p
			}
		}
	}
	return merged
}

// keepAside moves damaged files out of the way, for a person to look at. It speaks before it acts: after a crash in
// between, the files may not be there to tell.
func (s *Store) keepAside(durable contents, latest [2]contents) error {
	var damaged []contents
	for _, c := range []contents{durable, latest[0], latest[1]} {
		if c.damage != nil {
			damaged = append(damaged, c)
		}
	}
	s.lost = len(damaged) > 0 && !durable.whole && !latest[0].whole && !latest[1].whole
	if s.lost {
		s.config.Logger.Error("positions are lost: no positions file is whole; every path begins anew, "+
			"Loki will be sent again what it has", "file", s.durable.path)
	}
	for _, c := range damaged {
		if c.path != s.durable.path && (latest[0].whole || latest[1].whole) && !errors.Is(c.damage, syscall.EIO) {
			s.config.Logger.Info("positions file was cut while it was overwritten; the other one counts",
				"file", c.path, "damage", c.damage)
			continue
		}
		aside := c.path + ".damaged-" + s.now().UTC().Format("20060102T150405.000Z")
		s.config.Logger.Warn("positions file is damaged and kept aside", "file", c.path, "aside", aside, "damage", c.damage)
		if err := s.fs.Rename(c.path, aside); err != nil {
			return fmt.Errorf("keeping a damaged positions file aside: %w", err)
		}
	}
	return nil
}
