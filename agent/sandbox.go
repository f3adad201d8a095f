package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// The values of --landlock.
const (
	landlockBestEffort = "best-effort"
	landlockRequire    = "require"
	landlockOff        = "off"
)

// sandbox remembers what the kernel lets the agent open. Its rules are about files and directories as they were, whatever their
// names are by now.
type sandbox struct {
	bound  map[string]os.FileInfo
	pinned []*os.File // of /proc: the kernel makes these anew, as other files, once nobody holds them

	mu      sync.Mutex
	waiting error // what the end of the agent waits for; nil: it is not to end
}

// look notes what is there before the rules are made.
func (s *sandbox) look(paths ...string) {
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil {
			s.bound[path] = info
		}
	}
}

// confine lets the kernel refuse what is not in the view, as far as --landlock says and the kernel can.
func (a *agent) confine(targets []target) error {
	if a.cfg.Landlock == landlockOff {
		return nil
	}
	v, err := a.cfg.view(targets)
	if err != nil {
		return err
	}
	s := &sandbox{bound: make(map[string]os.FileInfo)}
	s.look(v.dirs...)
	s.look(v.files...)
	s.look(v.write...)
	homes := make(map[string]os.FileInfo)
	for _, f := range a.followers {
		homes[f.path], _ = os.Stat(filepath.Dir(f.path)) // nil: it does not exist yet
	}
	if slices.ContainsFunc(targets, func(t target) bool { return t.needsRoots() }) {
		_, _ = x509.SystemCertPool() // reads those of the system, once; without any, those of last resort are taken
	}
	abi, lacks, err := s.enforce(v, a.cfg.Landlock == landlockRequire)
	switch {
	case err != nil && a.cfg.Landlock == landlockRequire:
		return fmt.Errorf("--landlock=require: %w", err)
	case err != nil:
		a.logger.Warn("not confined by Landlock", "error", err)
		return nil
	}
	if lacks != "" {
		a.logger.Warn("confined by Landlock in part", "abi", abi, "lacks", lacks)
	}
	for _, f := range a.followers {
		f.tail.Confine(homes[f.path])
	}
	for _, dir := range v.missing {
		a.logger.Warn("the directory of an audit log does not exist yet; until the next start, all that is in the one above it may be read",
			"directory", dir)
	}
	for _, dir := range v.exposed() {
		a.logger.Warn("the audit logs lie below where the agent writes: the sandbox does not protect them; give the agent's state and its "+
			"log directories of their own", "directory", dir)
	}
	a.sandbox = s
	a.logger.Info("confined by Landlock", "abi", abi, "may_read", distinct(v.audit, v.auditFiles, v.dirs, v.files), "may_write", distinct(v.write))
	return nil
}

const startAgain = "since the start, and the sandbox allows only what was there then: stopping, so that whoever runs the agent starts " +
	"it again (--landlock=off: no sandbox)"

// replaced gives an error if something else has the name now of what the agent may open, which is refused.
func (s *sandbox) replaced() error {
	for path, was := range s.bound {
		if info, err := os.Stat(path); err != nil || os.SameFile(was, info) {
			continue
		}
		f, err := os.Open(path)
		if err == nil {
			err = f.Close()
		}
		if errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("%s was replaced %s", path, startAgain)
		}
	}
	return nil
}

// awaits says what the end of the agent waits for, nil if it is not to end.
func (s *sandbox) awaits() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting
}

// await notes what the end of the agent waits for, and reports whether that is news.
func (s *sandbox) await(what error) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	news = what != nil && (s.waiting == nil || s.waiting.Error() != what.Error())
	s.waiting = what
	return news
}
