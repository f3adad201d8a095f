package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/alecthomas/units"
	promconfig "github.com/prometheus/common/config"

	"github.com/auditferry/auditferry/agent/audit"
	"github.com/auditferry/auditferry/shipper"
	"github.com/auditferry/auditferry/tailer"
)

// Config is all that can be set, by flag, by environment (AUDITFERRY_ and the name of the flag) or in the --config
// file. Flags win over the environment, which wins over the file.
type Config struct {
	AuditLogPath []string      `placeholder:"FILE" group:"source" help:"Audit log of a kube-apiserver (its --audit-log-path). Its backups are read too. Repeatable. It need not exist yet."`
	StartAt      string        `default:"beginning" placeholder:"WHERE" group:"source" help:"Where to begin with a path that has no position yet: beginning (of the oldest backup), end, or a time (RFC 3339). Default: ${default}."`
	MaxReadLine  Size          `default:"16MiB" placeholder:"SIZE" group:"source" help:"A longer line is damage: its first bytes are sent as malformed, the rest is counted. Default: ${default}."`
	PollInterval time.Duration `default:"250ms" placeholder:"TIME" group:"source" help:"How often to look when the file system sends no notification. Default: ${default}."`
	HoldDeleted  Size          `default:"256MiB" placeholder:"SIZE" group:"source" help:"Unread backups that kube-apiserver has deleted are kept open up to this much of the disk, per path. Default: ${default}."`

	pushConfig
	BatchWait time.Duration `default:"1s" placeholder:"TIME" group:"loki" help:"Lines are pushed when the oldest has waited this long. Default: ${default}."`

	Node    string            `placeholder:"NAME" group:"labels" help:"Label node. Default: $$NODE_NAME, else the host name."`
	Cluster string            `placeholder:"NAME" group:"labels" help:"Label cluster; none if not given."`
	Label   map[string]string `placeholder:"NAME=VALUE" group:"labels" help:"A further label of every stream. Repeatable."`

	PositionsFile     string `placeholder:"FILE" group:"state" help:"What Loki has acknowledged. Default: ${positions_default}."`
	DeadLetterFile    string `placeholder:"FILE" group:"state" help:"Events that Loki refuses for good, with its answer. Default: dead-letters.jsonl beside the positions file."`
	DeadLetterMaxSize Size   `default:"256MiB" placeholder:"SIZE" group:"state" help:"When the dead letters come to this size, pushing stops rather than drop an event. Default: ${default}."`

	ListenAddress string `default:"127.0.0.1:9611" placeholder:"ADDR" group:"operation" help:"Serves /metrics, /healthz and /readyz. Empty: not at all. Default: ${default}."`
	logConfig
	LogFile         string        `placeholder:"FILE" group:"operation" help:"Write the agent's own log there, rotated at 10 MB with 3 backups. Default: stderr."`
	ShutdownTimeout time.Duration `default:"10s" placeholder:"TIME" group:"operation" help:"At SIGTERM: how long to finish pushes. What is not acknowledged then is read again at the next start. Default: ${default}."`
	CheckConfig     bool          `group:"operation" help:"Check the configuration and what it names, say what is wrong, and exit."`
	DryRun          bool          `group:"operation" help:"Read what is there now, print the streams, entries and bytes that a first start would push, and exit. Touches neither Loki nor positions."`

	replay replayConfig
}

// pushConfig is where and how to push, for the agent as for replay.
type pushConfig struct {
	LokiURL        string        `name:"loki-url" placeholder:"URL" group:"loki" help:"Loki: the server (http://loki:3100) or the full push URL. Required to push."`
	LokiTenantID   string        `name:"loki-tenant-id" placeholder:"ID" group:"loki" help:"Tenant, sent as X-Scope-OrgID."`
	LokiHTTPConfig string        `name:"loki-http-config" placeholder:"FILE" group:"loki" help:"TLS, basic auth, bearer token, OAuth2, proxy and headers, in the format of Prometheus' http_config. Files that it names are read again when they change."`
	LokiTimeout    time.Duration `name:"loki-timeout" default:"10s" placeholder:"TIME" group:"loki" help:"How long one push may take before it is tried again. Default: ${default}."`
	BatchSize      Size          `default:"1MiB" placeholder:"SIZE" group:"loki" help:"Lines are pushed when they come to this size. Default: ${default}."`
	LokiStreamRate Size          `name:"loki-stream-rate" default:"900KiB" placeholder:"SIZE" group:"loki" help:"Bytes per second pushed to one stream at the most. Faster ones, Loki cuts into shards (shard_streams), between which it does not drop what is sent again after a crash. 0: as fast as it goes; then raise per_stream_rate_limit in Loki too, which may drop without a word. Default: ${default}."`
	PushesInFlight int           `default:"2" placeholder:"N" group:"loki" help:"Pushes under way at a time, per path. Default: ${default}."`
	BackoffMin     time.Duration `default:"500ms" placeholder:"TIME" group:"loki" help:"Pause after a failed push; it doubles up to --backoff-max, with jitter. Pushing never gives up. Default: ${default}."`
	BackoffMax     time.Duration `default:"1m" placeholder:"TIME" group:"loki" help:"Longest pause between two tries, give or take half of it. Default: ${default}."`
}

// logConfig is what the program says of itself, on stderr or in a file.
type logConfig struct {
	LogLevel  string `default:"info" enum:"debug,info,warn,error" placeholder:"LEVEL" group:"operation" help:"${enum}. Default: ${default}."`
	LogFormat string `default:"text" enum:"text,json" placeholder:"FORMAT" group:"operation" help:"${enum}. Default: ${default}."`
}

// Size is a number of bytes, written 1048576, 1MiB or 1MB (which is the same).
type Size int64

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		var b units.Base2Bytes
		if b, err = units.ParseBase2Bytes(string(text)); err != nil {
			return fmt.Errorf("%q is not a size: write 1048576, 512KiB or 1MiB", text)
		}
		n = int64(b)
	}
	*s = Size(n)
	return nil
}

// validate refuses what cannot work, naming the flag.
func (c *Config) validate() error {
	err := refuseSmall([]minimum{
		{"--max-read-line", c.MaxReadLine >= 1<<10}, {"--hold-deleted", c.HoldDeleted >= 0},
		{"--dead-letter-max-size", c.DeadLetterMaxSize >= 1<<10},
		{"--poll-interval", c.PollInterval >= time.Millisecond}, {"--batch-wait", c.BatchWait >= time.Millisecond},
		{"--shutdown-timeout", c.ShutdownTimeout >= 0},
	})
	if err != nil {
		return err
	}
	if len(c.AuditLogPath) == 0 {
		return errors.New("--audit-log-path is missing: give the file that kube-apiserver writes, for example --audit-log-path=/var/log/kubernetes/audit/audit.log")
	}
	if err := c.pushConfig.validate(c.DryRun); err != nil {
		return err
	}
	if _, err := c.start(); err != nil {
		return err
	}
	if _, err := audit.NewDescriber(c.labels(c.AuditLogPath[0])); err != nil {
		return fmt.Errorf("--node, --cluster or --label: %w", err)
	}
	if c.ListenAddress != "" {
		if _, _, err := net.SplitHostPort(c.ListenAddress); err != nil {
			return fmt.Errorf("--listen-address=%s: want HOST:PORT: %w", c.ListenAddress, err)
		}
	}
	return c.validatePaths()
}

// validate refuses what cannot work; noLoki says that none is needed.
func (c *pushConfig) validate(noLoki bool) error {
	err := refuseSmall([]minimum{
		{"--batch-size", c.BatchSize >= 1<<10}, {"--loki-stream-rate", c.LokiStreamRate == 0 || c.LokiStreamRate >= 1<<10},
		{"--loki-timeout", c.LokiTimeout >= time.Millisecond}, {"--pushes-in-flight", c.PushesInFlight >= 1},
		{"--backoff-min", c.BackoffMin >= time.Millisecond},
	})
	if err != nil {
		return err
	}
	if c.BackoffMax < c.BackoffMin {
		return fmt.Errorf("--backoff-max=%v is less than --backoff-min=%v", c.BackoffMax, c.BackoffMin)
	}
	if c.LokiURL == "" && noLoki {
		return nil
	}
	if c.LokiURL == "" {
		return errors.New("--loki-url is missing: give the address of Loki, for example --loki-url=http://loki:3100")
	}
	_, err = shipper.PushURL(c.LokiURL)
	return err
}

// minimum is whether the value of a flag is as large as makes sense.
type minimum struct {
	flag string
	ok   bool
}

func refuseSmall(flags []minimum) error {
	for _, f := range flags {
		if !f.ok {
			return fmt.Errorf("%s is too small", f.flag)
		}
	}
	return nil
}

func (c *Config) validatePaths() error {
	seen := make(map[string]bool)
	for i, path := range c.AuditLogPath {
		if path == "" || path == "-" {
			return fmt.Errorf("--audit-log-path=%q: kube-apiserver must write to a file, not to its standard output", path)
		}
		if strings.ContainsRune(path, utf8.RuneError) { // also what kong made of bytes that are none
			return fmt.Errorf("--audit-log-path=%q is not UTF-8, in which positions are kept", path)
		}
		absolute, err := filepath.Abs(path)
		if err != nil {
			return fmt.Errorf("--audit-log-path=%s: %w", path, err)
		}
		if seen[absolute] {
			return fmt.Errorf("--audit-log-path=%s is given twice", path)
		}
		if info, err := os.Stat(absolute); err == nil && info.IsDir() {
			return fmt.Errorf("--audit-log-path=%s is a directory: name the file that kube-apiserver writes, for example %s",
				path, filepath.Join(path, "audit.log"))
		}
		seen[absolute] = true
		c.AuditLogPath[i] = absolute
	}
	return nil
}

// start gives --start-at.
func (c *Config) start() (tailer.Start, error) {
	switch c.StartAt {
	case "beginning":
		return tailer.Start{}, nil
	case "end":
		return tailer.Start{End: true}, nil
	}
	since, err := time.Parse(time.RFC3339, c.StartAt)
	if err != nil {
		return tailer.Start{}, fmt.Errorf("--start-at=%s: want beginning, end or a time such as 2026-11-23T08:00:00Z", c.StartAt)
	}
	return tailer.Start{Since: since}, nil
}

// complete fills in the defaults that depend on the machine.
func (c *Config) complete() error {
	if c.Node == "" {
		c.Node = os.Getenv("NODE_NAME")
	}
	if c.Node == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("--node is not given and there is no host name: %w", err)
		}
		c.Node = host
	}
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
func (c *Config) makeStateDir() error {
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

// labels is what every stream of a path has in common. The path is a label only where there are several.
func (c *Config) labels(path string) audit.Config {
	labels := audit.Config{Node: c.Node, Cluster: c.Cluster, Static: c.Label}
	if len(c.AuditLogPath) > 1 {
		labels.Filename = path
	}
	return labels
}

// httpConfig reads --loki-http-config.
func (c *pushConfig) httpConfig() (promconfig.HTTPClientConfig, error) {
	if c.LokiHTTPConfig == "" {
		return promconfig.DefaultHTTPClientConfig, nil
	}
	http, _, err := promconfig.LoadHTTPConfigFile(c.LokiHTTPConfig)
	if err != nil {
		return promconfig.HTTPClientConfig{}, fmt.Errorf("--loki-http-config=%s: %w", c.LokiHTTPConfig, err)
	}
	return *http, nil
}
