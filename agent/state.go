package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// stateConfig is where the agent keeps what must outlive it.
type stateConfig struct {
	PositionsFile  string `placeholder:"FILE" group:"state" help:"What Loki has acknowledged. Default: ${positions_default}."`
	DeadLetterFile string `placeholder:"FILE" group:"state" help:"Events that Loki refuses for good, with its answer. With several --loki-url, each has its own beside it: dead-letters.HOST_PORT.jsonl. Default: dead-letters.jsonl beside the positions file."`
}

// complete fills in the defaults, which depend on the user and the environment.
func (c *stateConfig) complete() error {
	if c.PositionsFile == "" {
		c.PositionsFile = defaultPositionsFile()
		if !filepath.IsAbs(c.PositionsFile) {
			return errors.New("--positions-file is missing, and there is no home directory ($HOME) to keep state in: name a file")
		}
	}
	if c.DeadLetterFile == "" {
		c.DeadLetterFile = filepath.Join(filepath.Dir(c.PositionsFile), "dead-letters.jsonl")
	}
	return nil
}

// makeStateDir makes the directory of the positions if it is the default one: then nobody was told to make it.
func (c *stateConfig) makeStateDir() error {
	if c.PositionsFile != defaultPositionsFile() {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(c.PositionsFile), 0o700); err != nil {
		return fmt.Errorf("making the default directory for the state: %w: name another place with --positions-file", err)
	}
	return nil
}

// defaultPositionsFile is where systemd says that state goes (systemd.exec(5), StateDirectory), else the place that
// the file system hierarchy has for it, else the user's own.
func defaultPositionsFile() string {
	dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":") // systemd gives a list
	if dir == "" && os.Geteuid() == 0 {
		dir = "/var/lib/auditferry"
	}
	if dir == "" {
		dir = os.Getenv("XDG_STATE_HOME")
		if dir == "" {
			home, _ := os.UserHomeDir()
			dir = filepath.Join(home, ".local", "state")
		}
		dir = filepath.Join(dir, "auditferry")
	}
	return filepath.Join(dir, "positions.json")
}
