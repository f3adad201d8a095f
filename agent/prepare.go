package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const prepareDescription = `Makes the directory of --positions-file, and gives it, and the agent's files in it, to the user that the agent is to run as. For an init container before an agent that is not root: it runs as uid 0, and needs no capability but CAP_CHOWN.

auditferry prepare --owner=65534:65534 --positions-file=/var/lib/auditferry/positions.json

The directory itself is made, with mode 0700, if it is missing; the one that it is in must be there. Run it while no agent uses the directory. It can be run again at any time. The environment and the --config file of the agent count here too, as far as the flags are the same.`

// prepareLine is what kong parses of a command line with the command prepare.
type prepareLine struct {
	prepareConfig
	stateConfig
	ConfigFile configFile `name:"config" placeholder:"FILE" group:"operation" help:"Settings in YAML: that of the agent will do."`
}

// prepareConfig is what is for prepare alone.
type prepareConfig struct {
	Owner owner `required:"" placeholder:"UID[:GID]" group:"state" help:"Who gets the directory: numbers, as in 65534:65534. Without GID, the group stays as it is."`
}

// owner is a user and a group, -1 for a group that is not given.
type owner struct{ uid, gid int }

// UnmarshalText reads UID or UID:GID.
func (o *owner) UnmarshalText(text []byte) error {
	user, group, both := strings.Cut(string(text), ":")
	uid, err := strconv.ParseUint(user, 10, 31)
	gid := uint64(0)
	if err == nil && both {
		gid, err = strconv.ParseUint(group, 10, 31)
	}
	if err != nil {
		return fmt.Errorf("%q is not a user: write its number, or that and its group's, as in 65534:65534", text)
	}
	o.uid, o.gid = int(uid), -1
	if both {
		o.gid = int(gid)
	}
	return nil
}

// String writes an owner as it is read.
func (o owner) String() string {
	if o.gid < 0 {
		return strconv.Itoa(o.uid)
	}
	return fmt.Sprintf("%d:%d", o.uid, o.gid)
}

// parsePrepare reads the command line of prepare, without that word.
func parsePrepare(args []string, stdout io.Writer) (*Config, error) {
	var line prepareLine
	if _, err := parseInto(&line, "auditferry prepare", prepareDescription, args, stdout); err != nil {
		return nil, err
	}
	if err := line.complete(); err != nil {
		return nil, err
	}
	return &Config{stateConfig: line.stateConfig, prepare: line.prepareConfig}, nil
}

// prepare makes the directory of the positions and gives it away.
//
// It takes one that belongs to another user first: root without its capabilities may list only what is its own, and nobody can put a
// file of others' there, by a link, while it gives away what is in it. The files come before the directory: one that is stopped
// halfway is done by the next, whatever is given away by then.
func prepare(cfg *Config, stdout io.Writer) error {
	dir, to := filepath.Dir(cfg.PositionsFile), cfg.prepare.Owner
	switch err := os.Mkdir(dir, 0o700); {
	case errors.Is(err, fs.ErrExist):
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("making the directory of --positions-file: %w: make %s first, or name another file", err, filepath.Dir(dir))
	case err != nil:
		return fmt.Errorf("making the directory of --positions-file: %w", err)
	}
	if err := os.Chown(dir, os.Geteuid(), -1); err != nil {
		return explainChown(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("opening the directory of --positions-file: %w", err)
	}
	defer func() { _ = root.Close() }() // nothing was written through it
	info, err := root.Stat(".")
	if err != nil {
		return fmt.Errorf("opening the directory of --positions-file: %w", err)
	}
	if err := root.Chmod(".", 0o700); err != nil {
		return fmt.Errorf("closing %s to others for a moment: %w", dir, err)
	}
	given, err := giveFiles(root, cfg)
	err = errors.Join(err, root.Chmod(".", info.Mode()))
	if err != nil {
		return fmt.Errorf("giving the files in %s to %v: %w", dir, to, explainChown(err))
	}
	if err := root.Chown(".", to.uid, to.gid); err != nil {
		return fmt.Errorf("giving %s to %v: %w", dir, to, explainChown(err))
	}
	fmt.Fprintf(stdout, "%s belongs to %v, and files of the agent in it: %d\n", dir, to, given)
	return nil
}

// giveFiles gives away the agent's files in a directory, and says how many there are. Whoever could write there may have put
// links among them, so what is not a regular file, or has a name elsewhere too, is left alone.
func giveFiles(root *os.Root, cfg *Config) (given int, err error) {
	dir, err := root.Open(".")
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		if !cfg.ownsName(name) {
			continue
		}
		done, err := give(dir, name, cfg.prepare.Owner)
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone meanwhile
		}
		if err != nil {
			return given, err
		}
		if done {
			given++
		}
	}
	return given, nil
}

// ownsName reports whether a file in the directory of the positions has the name of one of the agent's: these begin with the
// name of the positions file or of the dead-letter file, up to the extension.
func (c *stateConfig) ownsName(name string) bool {
	return slices.ContainsFunc([]string{c.PositionsFile, c.DeadLetterFile}, func(file string) bool {
		if filepath.Dir(file) != filepath.Dir(c.PositionsFile) {
			return false
		}
		base := filepath.Base(file)
		rest, ok := strings.CutPrefix(name, strings.TrimSuffix(base, filepath.Ext(base)))
		return name == base || ok && (strings.HasPrefix(rest, ".") || strings.HasPrefix(rest, "-"))
	})
}

// explainChown adds what to do to an error of permission.
func explainChown(err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("%w: run it as uid 0 (it is %d) with the capability CAP_CHOWN", err, os.Geteuid())
}
