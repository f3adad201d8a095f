package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

const description = `Carries Kubernetes audit logs from a control-plane node to Grafana Loki: every event once, through rotation, restarts and outages. The least that works:

auditferry --audit-log-path=/var/log/audit.log --loki-url=http://loki:3100

Each flag can also be set by environment (--loki-url as AUDITFERRY_LOKI_URL; several values with commas, several labels with semicolons) or in the --config file. Flags win over the environment, which wins over the file.`

// commandLine is what kong parses.
type commandLine struct {
	Config

	ConfigFile configFile `name:"config" placeholder:"FILE" group:"operation" help:"Settings in YAML: the names of the flags without the dashes."`

	ShowVersion kong.VersionFlag `name:"version" env:"-" help:"Print the version."`

	Run     struct{}     `cmd:"" default:"1" help:"Follow and push. This is the default."`
	Replay  replayWords  `cmd:"" passthrough:"" help:"Push dead letters again. It has its own flags: see auditferry replay --help."`
	Prepare prepareWords `cmd:"" passthrough:"" help:"Make the directory for the state and give it to the user that the agent is to run as. It has its own flags: see auditferry prepare --help."`
	Version struct{}     `cmd:"" help:"Print the version."`
}

// replayWords are all that follows the command replay. They are parsed by themselves, as a replayLine, so that a flag of the
// agent that means nothing to replay, such as --dry-run, is refused and not ignored.
type replayWords struct {
	Words []string `arg:"" name:"file" optional:""`
}

// prepareWords are those of prepare.
type prepareWords struct {
	Words []string `arg:"" name:"flag" optional:""`
}

var groups = []kong.Group{
	{Key: "source", Title: "What to read"},
	{Key: "loki", Title: "Where to push"},
	{Key: "labels", Title: "Labels"},
	{Key: "state", Title: "State on disk"},
	{Key: "operation", Title: "Operation"},
}

// finished is the exit code of a command line that was answered while it was parsed, as --help is.
type finished int

func (f finished) Error() string { return fmt.Sprintf("finished with exit code %d", int(f)) }

// parse reads flags, environment and configuration file. It gives the command: run, replay, prepare or version.
func parse(args []string, stdout io.Writer) (command string, cfg *Config, err error) {
	var line commandLine
	parsed, err := parseInto(&line, "auditferry", description, args, stdout)
	if err != nil {
		return "", nil, err
	}
	switch {
	case parsed.Command() == "version":
		return "version", nil, nil
	case strings.HasPrefix(parsed.Command(), "replay"):
		cfg, err := parseReplay(withoutCommand(args, line.Replay.Words), stdout)
		return "replay", cfg, err
	case strings.HasPrefix(parsed.Command(), "prepare"):
		cfg, err := parsePrepare(withoutCommand(args, line.Prepare.Words), stdout)
		return "prepare", cfg, err
	}
	if err := line.complete(); err != nil {
		return "", nil, err
	}
	if err := line.validate(); err != nil {
		return "", nil, err
	}
	return "run", &line.Config, nil
}

// withoutCommand leaves out the command itself, which is the word before those that follow it; flags may stand before it.
func withoutCommand(args, following []string) []string {
	at := len(args) - len(following) - 1
	return slices.Delete(slices.Clone(args), at, at+1)
}

// parseInto fills in line, a struct of kong's, of the program or command with that name.
func parseInto(line any, name, description string, args []string, stdout io.Writer) (parsed *kong.Context, err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case finished:
			err = r
		default:
			panic(r)
		}
	}()
	parser, err := newParser(line, name, description, stdout)
	if err != nil {
		return nil, err
	}
	if file := os.Getenv("AUDITFERRY_CONFIG"); file != "" && !slices.ContainsFunc(args, isConfigFlag) {
		args = append([]string{"--config=" + file}, args...)
	}
	if parsed, err = parser.Parse(args); err != nil {
		return nil, locate(err)
	}
	return parsed, nil
}

func newParser(line any, name, description string, stdout io.Writer) (*kong.Kong, error) {
	parser, err := kong.New(line,
		kong.Name(name),
		kong.Description(description),
		kong.ExplicitGroups(groups),
		kong.DefaultEnvars("AUDITFERRY"),
		kong.Vars{"positions_default": defaultPositionsFile(), "version": versionLine()},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 120}),
		kong.ValueFormatter(helpOf),
		kong.Writers(stdout, stdout),
		// Kong goes on parsing if this returns.
		kong.Exit(func(code int) { panic(finished(code)) }),
	)
	if err != nil {
		return nil, fmt.Errorf("building the command line: %w", err)
	}
	return parser, nil
}

// helpOf leaves out the name of the environment variable, which kong would add to every flag.
func helpOf(value *kong.Value) string { return value.Help }

func isConfigFlag(arg string) bool { return arg == "--config" || strings.HasPrefix(arg, "--config=") }

// locate leaves out what kong says before the reason.
func locate(err error) error {
	var parse *kong.ParseError
	if errors.As(err, &parse) {
		return errors.Unwrap(parse)
	}
	return err
}
