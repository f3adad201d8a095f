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

	"github.com/auditferry/auditferry/agent/audit"
	"github.com/auditferry/auditferry/tailer"
)

// Config is all that can be set, by flag, by environment (AUDITFERRY_ and the name of the flag) or in the --config
// file. Flags win over the environment, which wins over the file.
type Config struct {
	AuditLogPath []string      `placeholder:"FILE" group:"source" help:"Audit log of a kube-apiserver (its --audit-log-path). Its backups are read too. Repeatable. It need not exist yet."`
	StartAt      string        `default:"beginning" placeholder:"WHERE" group:"source" help:"Where to begin with a path that has no position yet: beginning (of the oldest backup), end, or a time (RFC 3339). Default: ${default}."`
	MaxReadLine  Size          `default:"16MiB" placeholder:"SIZE" group:"source" help:"A longer line is damage: its first bytes are sent as malformed, the rest is counted. Default: ${default}."`
	PollInterval time.Duration `default:"250ms" placeholder:"TIME" group:"source" help:"How often to look when the file system sends no notification; a quarter as often once it has sent some. Default: ${default}."`
	HoldDeleted  Size          `default:"256MiB" placeholder:"SIZE" group:"source" help:"Unread backups that kube-apiserver has deleted are kept open up to this much of the disk, per path and --loki-url. Default: ${default}."`

	pushConfig
	MaxLineSize Size          `default:"256KiB" placeholder:"SIZE" group:"loki" help:"A longer event is reduced until it fits: managedFields, then responseObject, requestObject and annotations are removed, long strings and lists elsewhere (a URL) are cut, and its annotation auditferry.io/reduced tells their sizes and hashes. What cannot be reduced, as it is not one event, goes to the dead letters. As max_line_size in Loki. 0: no limit. Default: ${default}."`
	BatchWait   time.Duration `default:"1s" placeholder:"TIME" group:"loki" help:"Lines are pushed when the oldest has waited this long. Default: ${default}."`

	LokiRejectOld time.Duration `name:"loki-reject-old" default:"168h" placeholder:"TIME" group:"loki" help:"Loki's reject_old_samples_max_age. What is within 10 minutes of being older is not sent, nor what is over 9 minutes in the future: see --old-events. 0: Loki takes events of any age. Default: ${default}."`
	OldEvents     string        `default:"skip" enum:"skip,dead-letter,restamp" placeholder:"WHAT" group:"loki" help:"What to do with events older than --loki-reject-old: skip (leave them out, backups that hold nothing else unread), dead-letter, or restamp (send them at the oldest time that Loki takes, their own in the metadata event_time). Each stretch of them is told in Loki (event=gap). Events in the future go to the dead letters; with restamp, they are sent at the present time. Default: ${default}."`

	Node    string            `placeholder:"NAME" group:"labels" help:"Label node. Default: $$NODE_NAME, else the host name."`
	Cluster string            `placeholder:"NAME" group:"labels" help:"Label cluster; none if not given."`
	Label   map[string]string `placeholder:"NAME=VALUE" group:"labels" help:"A further label of every stream. Repeatable."`

	UserLabel      string   `default:"name" enum:"name,class,none" placeholder:"WHAT" group:"labels" help:"Label user: the name (of kubelets system:node), the class (system:node, system:serviceaccount, system, system:anonymous, unauthenticated, user) or none. Where it is not the name, that is in structured metadata as username. Default: ${default}."`
	MaxStreams     int      `default:"1000" placeholder:"N" group:"labels" help:"The most streams that this agent makes, with all its paths, for each --loki-url. From nine tenths of it on, the label user of a new one is other, and at its end the resource too; what they were is in structured metadata. Default: ${default}."`
	LabelFields    []string `default:"verb,user,resource" placeholder:"FIELD" group:"labels" help:"Fields of an event that are labels, of verb, user, resource, namespace, code, level, stage, decision, impersonated_user, groups and annotation:KEY. Repeatable. Default: ${default}."`
	MetadataFields []string `default:"audit_id,stage,level,user,impersonated_user,namespace,name,code,decision,source_ip,user_agent,verb,resource" placeholder:"FIELD" group:"labels" help:"Fields of an event that are structured metadata where no label says the same: those that can be labels, audit_id, name, source_ip and user_agent. Repeatable. Default: ${default}."`

	stateConfig
	DeadLetterMaxSize Size `default:"256MiB" placeholder:"SIZE" group:"state" help:"When the dead letters of a --loki-url come to this size, pushing to it stops rather than drop an event. Default: ${default}."`

	ListenAddress string `default:"127.0.0.1:9611" placeholder:"ADDR" group:"operation" help:"Serves /metrics, /healthz and /readyz. Empty: not at all. Default: ${default}."`
	Pprof         bool   `group:"operation" help:"Serve Go's profiles under /debug/pprof/ of --listen-address, to clients on the same machine alone (as with kubectl port-forward)."`
	logConfig
	Landlock        string        `default:"best-effort" enum:"best-effort,require,off" placeholder:"WHAT" group:"operation" help:"Once it runs, have the kernel refuse what the agent does not need: it may read the directories of the audit logs, and what DNS, --loki-http-config and its own metrics take, and write where its state and --log-file lie. best-effort: as far as the kernel can (Linux 5.13; truncation from 6.2 on); require: all of it, or do not start; off. Default: ${default}."`
	LogFile         string        `placeholder:"FILE" group:"operation" help:"Write the agent's own log there, rotated at 10 MB with 3 backups. Default: stderr."`
	ShutdownTimeout time.Duration `default:"10s" placeholder:"TIME" group:"operation" help:"At SIGTERM: how long to finish pushes. What is not acknowledged then is read again at the next start. Default: ${default}."`
	CheckConfig     bool          `group:"operation" help:"Check the configuration and what it names, say what is wrong, and exit."`
	DryRun          bool          `group:"operation" help:"Read what is there now, print the streams, entries and bytes that a first start would push, and exit. Touches neither Loki nor positions."`

	replay  replayConfig
	prepare prepareConfig
	now     func() time.Time // nil: time.Now
}

// pushConfig is where and how to push, for the agent as for replay.
type pushConfig struct {
	LokiURL        []string      `name:"loki-url" sep:"none" placeholder:"URL" group:"loki" help:"Loki: the server (http://loki:3100) or the full push URL. Required to push. Repeatable for the agent: each gets everything, by itself, and none waits for another."`
	LokiTenantID   []string      `name:"loki-tenant-id" sep:"none" placeholder:"ID" group:"loki" help:"Tenant, sent as X-Scope-OrgID. With several --loki-url: once for all, or once for each in their order, empty for none."`
	LokiHTTPConfig []string      `name:"loki-http-config" sep:"none" placeholder:"FILE" group:"loki" help:"TLS, basic auth, bearer token, OAuth2, proxy and headers, in the format of Prometheus' http_config. Files that it names are read again when they change. With several --loki-url: once for all, or once for each in their order, empty for none."`
	LokiTimeout    time.Duration `name:"loki-timeout" default:"10s" placeholder:"TIME" group:"loki" help:"How long one push may take before it is tried again. Default: ${default}."`
	BatchSize      Size          `default:"1MiB" placeholder:"SIZE" group:"loki" help:"Lines are pushed when they come to this size. Default: ${default}."`
	LokiStreamRate Size          `name:"loki-stream-rate" default:"900KiB" placeholder:"SIZE" group:"loki" help:"Bytes per second pushed to one stream at the most. Faster ones, Loki cuts into shards (shard_streams), between which it does not drop what is sent again after a crash. 0: as fast as it goes; then raise per_stream_rate_limit in Loki too, which may drop without a word. Default: ${default}."`
	PushesInFlight int           `default:"0" placeholder:"N" group:"loki" help:"Pushes under way at a time, per path and --loki-url. 0: 2, and with --loki-stream-rate=0 up to 7 more, for all paths of a --loki-url together, while Loki answers slowly. Default: ${default}."`
	BackoffMin     time.Duration `default:"500ms" placeholder:"TIME" group:"loki" help:"Pause after a failed push; it doubles up to --backoff-max, with jitter. Pushing never gives up. Default: ${default}."`
	BackoffMax     time.Duration `default:"1m" placeholder:"TIME" group:"loki" help:"Longest pause between two tries, give or take half of it. Default: ${default}."`

	LokiRate         Size     `name:"loki-rate" default:"0" placeholder:"SIZE" group:"loki" help:"Bytes of lines and structured metadata pushed per second at the most, all paths together, to each --loki-url. 0: as fast as Loki's rate limit for the tenant allows, which is found out. Default: ${default}."`
	LokiAcceptStatus []Status `name:"loki-accept-status" placeholder:"CODE" group:"loki" help:"A further status, from 200 to 299, that acknowledges a push. For other servers than Loki, which answers 204 to what it has stored and nothing else. Repeatable."`
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

// Status is an HTTP status that says that a request was successful, 200 to 299.
type Status int

// UnmarshalText reads a status.
func (s *Status) UnmarshalText(text []byte) error {
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 200 || n > 299 {
		return fmt.Errorf("%q cannot acknowledge a push: only a status from 200 to 299 can", text)
	}
	*s = Status(n)
	return nil
}

// acceptStatus gives --loki-accept-status.
func (c *pushConfig) acceptStatus() []int {
	codes := make([]int, len(c.LokiAcceptStatus))
	for i, s := range c.LokiAcceptStatus {
		codes[i] = int(s)
	}
	return codes
}

// validate refuses what cannot work, naming the flag.
func (c *Config) validate() error {
	err := refuseSmall([]minimum{
		{"--max-read-line", c.MaxReadLine >= 1<<10}, {"--hold-deleted", c.HoldDeleted >= 0},
		{"--dead-letter-max-size", c.DeadLetterMaxSize >= 1<<10}, {"--max-line-size", c.MaxLineSize == 0 || c.MaxLineSize >= minLineSize},
		{"--poll-interval", c.PollInterval >= time.Millisecond}, {"--batch-wait", c.BatchWait >= time.Millisecond},
		{"--shutdown-timeout", c.ShutdownTimeout >= 0}, {"--loki-reject-old", c.LokiRejectOld == 0 || c.LokiRejectOld >= time.Hour},
	})
	if err != nil {
		return err
	}
	if c.CheckConfig && c.DryRun {
		return errors.New("--check-config and --dry-run: give one of them")
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
	if err := c.validateLabels(); err != nil {
		return err
	}
	if c.Pprof && c.ListenAddress == "" {
		return errors.New("--pprof serves profiles on --listen-address, which is empty: give one")
	}
	if c.ListenAddress != "" {
		if _, _, err := net.SplitHostPort(c.ListenAddress); err != nil {
			return fmt.Errorf("--listen-address=%s: want HOST:PORT: %w", c.ListenAddress, err)
		}
	}
	return c.validatePaths()
}

// validateLabels refuses what Loki would, or what would let labels grow without bound.
func (c *Config) validateLabels() error {
	c.LabelFields, c.MetadataFields = given(c.LabelFields), given(c.MetadataFields)
	if err := audit.CheckLabelFields(c.LabelFields); err != nil {
		return fmt.Errorf("--label-fields: %w", err)
	}
	if err := audit.CheckMetadataFields(c.MetadataFields); err != nil {
		return fmt.Errorf("--metadata-fields: %w", err)
	}
	if err := c.labels(c.AuditLogPath[0]).Check(); err != nil {
		return fmt.Errorf("--node, --cluster, --label or --label-fields: %w", err)
	}
	if least := audit.MinStreams * len(c.AuditLogPath); c.MaxStreams < least {
		return fmt.Errorf("--max-streams=%d is too small: it takes at least %d, %d for each --audit-log-path", c.MaxStreams, least, audit.MinStreams)
	}
	return nil
}

// given gives the words of a list; none for a flag that is given without any.
func given(words []string) []string {
	if len(words) == 1 && words[0] == "" {
		return []string{}
	}
	return words
}

// validate refuses what cannot work; noLoki says that none is needed.
func (c *pushConfig) validate(noLoki bool) error {
	err := refuseSmall([]minimum{
		{"--batch-size", c.BatchSize >= 1<<10}, {"--loki-stream-rate", c.LokiStreamRate == 0 || c.LokiStreamRate >= 1<<10},
		{"--loki-rate", c.LokiRate == 0 || c.LokiRate >= 1<<10},
		{"--loki-timeout", c.LokiTimeout >= time.Millisecond}, {"--pushes-in-flight", c.PushesInFlight >= 0},
		{"--backoff-min", c.BackoffMin >= time.Millisecond},
	})
	if err != nil {
		return err
	}
	if c.BackoffMax < c.BackoffMin {
		return fmt.Errorf("--backoff-max=%v is less than --backoff-min=%v", c.BackoffMax, c.BackoffMin)
	}
	if len(splitURLs(c.LokiURL)) == 0 {
		if noLoki {
			return nil
		}
		return errors.New("--loki-url is missing: give the address of Loki, for example --loki-url=http://loki:3100")
	}
	_, err = c.targets()
	return err
}

// minLineSize is the least --max-line-size: what is left of an event is shorter, whatever a client without rights has sent (see
// agent/audit/reduce.go), so that it cannot fill the dead-letter file.
const minLineSize = 32 << 10

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

// clock is what time it is.
func (c *Config) clock() time.Time {
	if c.now != nil {
		return c.now()
	}
	return time.Now()
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
	return c.stateConfig.complete()
}

// labels is what every stream of a path has in common, and how long its lines may be. The path is a label only where there are several.
func (c *Config) labels(path string) audit.Config {
	labels := audit.Config{Node: c.Node, Cluster: c.Cluster, Static: c.Label, MaxLine: int(c.MaxLineSize),
		UserLabel: c.UserLabel, LabelFields: c.LabelFields, MetadataFields: c.MetadataFields}
	if len(c.AuditLogPath) > 1 {
		labels.Filename = path
	}
	return labels
}
