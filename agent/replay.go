package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/auditferry/auditferry/agent/audit"
	"github.com/auditferry/auditferry/shipper"
)

const replayDescription = `Pushes dead letters again, as they were, and deletes those that Loki takes. The agent need not be stopped. What Loki refuses again is in a new file beside FILE, with Loki's new answer. If a replay is interrupted, replay the file that it names: Loki drops what it has.

auditferry replay --loki-url=http://loki:3100 /var/lib/auditferry/dead-letters*.jsonl

Exit code 0: all are taken; 1: some are not. The environment and the --config file of the agent count here too, as far as the flags are the same. Where they name several --loki-url, each with its own dead letters (dead-letters.HOST_PORT*.jsonl), give the one whose letters FILE has.`

// replayLine is what kong parses of a command line with the command replay.
type replayLine struct {
	replayConfig
	pushConfig
	logConfig
	ConfigFile configFile `name:"config" placeholder:"FILE" group:"operation" help:"Settings in YAML: that of the agent will do."`
}

// replayConfig is what is for replay alone.
type replayConfig struct {
	Files []string `arg:"" name:"file" help:"Dead-letter file, in use or rotated."`
	// Not --label: that of the agent is in the letters already, and may have been another one then.
	AddLabel map[string]string `placeholder:"NAME=VALUE" group:"labels" help:"Adds a label to every entry. So they make new streams, into which Loki takes what it refused because it was over an hour behind the newest entry of its stream (too_far_behind). Repeatable."`
}

// parseReplay reads the command line of replay, without that word.
func parseReplay(args []string, stdout io.Writer) (*Config, error) {
	var line replayLine
	if _, err := parseInto(&line, "auditferry replay", replayDescription, args, stdout); err != nil {
		return nil, err
	}
	if err := line.pickTarget(); err != nil {
		return nil, err
	}
	if err := line.pushConfig.validate(false); err != nil {
		return nil, err
	}
	if err := (audit.Config{Node: "any", Static: line.AddLabel}).Check(); err != nil {
		return nil, fmt.Errorf("--add-label: %w", err)
	}
	return &Config{pushConfig: line.pushConfig, logConfig: line.logConfig, replay: line.replayConfig}, nil
}

// pickTarget leaves one of the targets of the agent.
func (l *replayLine) pickTarget() error {
	var agent replayLine
	args := []string{"any file"}
	if l.ConfigFile != "" {
		args = append(args, "--config="+string(l.ConfigFile))
	}
	if _, err := parseInto(&agent, "auditferry replay", replayDescription, args, io.Discard); err != nil {
		return err
	}
	return l.pick(&agent.pushConfig)
}

// replay pushes the letters of one file after the other, and says on stdout what became of each. Nothing is touched before
// all files and the configuration have been looked at. Of several files, those without a letter are passed over: a replay
// before may have left them.
func replay(ctx context.Context, cfg *Config, stdout, stderr io.Writer) error {
	logger, closeLog, err := newLogger(cfg, stderr)
	if err != nil {
		return err
	}
	defer closeLog()
	files, empty, err := lettersIn(cfg)
	if err != nil {
		return err
	}
	left := 0
	for _, path := range files {
		result, err := replayFile(ctx, cfg, path, logger)
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%s: %s\n", path, result)
		left += result.left()
	}
	if left > 0 {
		empty = append(empty, fmt.Errorf("not all dead letters were taken: %d are left", left))
	}
	return errors.Join(empty...)
}

// lettersIn gives the files that have letters to replay, and an error for each of the others.
func lettersIn(cfg *Config) (files []string, empty []error, err error) {
	for _, path := range cfg.replay.Files {
		err := shipper.CheckLetters(path)
		if errors.Is(err, shipper.ErrNoLetters) {
			empty = append(empty, err)
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		client, err := replayClient(cfg, path, slog.New(slog.DiscardHandler), nil)
		if err != nil {
			return nil, nil, err
		}
		client.Close()
		files = append(files, path)
	}
	return files, empty, nil
}

// replayClient makes a client that pushes letters; those that are refused again go to a file of the replay's own. It may grow
// as large as it must, since it holds no more than the file that is deleted for it.
func replayClient(cfg *Config, refused string, logger *slog.Logger, reg prometheus.Registerer) (*shipper.Client, error) {
	targets, err := cfg.targets()
	if err != nil {
		return nil, err
	}
	t := targets[0]
	http, err := t.httpConfig()
	if err != nil {
		return nil, err
	}
	return shipper.New(shipper.Config{
		URL: t.url, TenantID: t.tenant, HTTP: http, Timeout: cfg.LokiTimeout, InFlight: cfg.PushesInFlight,
		AcceptStatus: cfg.acceptStatus(), Rate: int(cfg.LokiRate),
		StreamRate: int(cfg.LokiStreamRate), BackoffMin: cfg.BackoffMin, BackoffMax: cfg.BackoffMax, UserAgent: "auditferry/" + version,
		EveryStreamAlone: true, // the agent pushes to the same streams
		DeadLetterFile:   refused, DeadLetterMaxSize: 1 << 50,
		Logger: logger, Registerer: reg,
	})
}

// replayFile replays one file. If it cannot be done to its end, the error says where the letters are.
func replayFile(ctx context.Context, cfg *Config, path string, logger *slog.Logger) (*replayed, error) {
	letters, err := shipper.TakeLetters(path)
	if err != nil {
		return nil, err
	}
	defer letters.Close()
	letters.AddLabels = cfg.replay.AddLabel
	logger.Info("replaying dead letters; until all are pushed, they are in this file", "file", letters.Path)
	registry := prometheus.NewRegistry()
	client, err := replayClient(cfg, letters.Refused, logger, registry)
	if err != nil {
		return nil, fmt.Errorf("%s is now %s: %w", path, letters.Path, err)
	}
	defer client.Close()
	err = pushLetters(ctx, client.NewQueue(letters.Path), letters, int(cfg.BatchSize))
	result := &replayed{file: letters.Refused}
	if err == nil {
		result.pieces, result.late = letters.Unpushable()
		err = letters.Settle()
	} else {
		if ctx.Err() != nil {
			err = errors.New("stopped before the end")
		}
		err = errors.Join(err, letters.Abandon())
	}
	if err := errors.Join(err, result.count(registry)); err != nil {
		return nil, fmt.Errorf("%s: %w; %d were taken, but all letters are still in %s: replay that file", path, err, result.taken, letters.Path)
	}
	return result, nil
}

// pushLetters pushes all letters, and returns when they are acknowledged, or ctx has ended.
func pushLetters(ctx context.Context, queue *shipper.Queue, letters *shipper.Letters, batchSize int) error {
	batch := queue.Batch()
	for {
		e, err := letters.Next()
		if err != nil && !errors.Is(err, io.EOF) {
			return errors.Join(err, queue.Drain(ctx))
		}
		last := err != nil
		if batch.Len() > 0 && (last || batch.Bytes()+len(e.Line) > queue.BatchSize(batchSize)) {
			if err := queue.Send(ctx, batch, func() {}); err != nil {
				return errors.Join(err, queue.Drain(ctx))
			}
			batch = queue.Batch()
		}
		if last {
			return queue.Drain(ctx)
		}
		batch.Add(e)
	}
}

// replayed is what became of a file of dead letters.
type replayed struct {
	taken   int
	refused map[string]int // by reason
	pieces  int            // lines that are no whole letter
	late    int            // letters with a time that no push can hold
	file    string         // where those that were not taken are now
}

// count reads from the metrics of a client what it has pushed.
func (r *replayed) count(metrics *prometheus.Registry) error {
	families, err := metrics.Gather()
	if err != nil {
		return fmt.Errorf("counting what was pushed: %w", err)
	}
	r.refused = make(map[string]int)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			n := int(m.GetCounter().GetValue())
			switch {
			case family.GetName() == "auditferry_sent_entries_total":
				r.taken = n
			case family.GetName() == "auditferry_dropped_entries_total" && n > 0:
				r.refused[m.GetLabel()[0].GetValue()] = n
			}
		}
	}
	if r.late > 0 {
		r.refused["unencodable"] += r.late
	}
	return nil
}

// again is how many letters were refused again.
func (r *replayed) again() int {
	sum := 0
	for _, n := range r.refused {
		sum += n
	}
	return sum
}

// left is how many lines were not taken.
func (r *replayed) left() int { return r.again() + r.pieces }

// String is the line that a person reads.
func (r *replayed) String() string {
	text := fmt.Sprintf("%d taken", r.taken)
	if n := r.again(); n > 0 {
		var reasons []string
		for _, reason := range slices.Sorted(maps.Keys(r.refused)) {
			reasons = append(reasons, fmt.Sprintf("%s %d", reason, r.refused[reason]))
		}
		text += fmt.Sprintf(", %d refused again (%s)", n, strings.Join(reasons, ", "))
	}
	if r.pieces > 0 {
		text += fmt.Sprintf(", lines that are no whole letter: %d", r.pieces)
	}
	if r.left() > 0 {
		text += ", kept in " + r.file
	}
	return text
}
