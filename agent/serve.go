package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	_ "golang.org/x/crypto/x509roots/fallback" // the image has no CA bundle of its own

	"github.com/auditferry/auditferry/agent/audit"
	"github.com/auditferry/auditferry/positions"
	"github.com/auditferry/auditferry/shipper"
	"github.com/auditferry/auditferry/tailer"
)

// syncInterval is how often positions are made durable: what a power failure repeats at the most.
const syncInterval = time.Second

// limitMemory keeps the garbage small on a node that etcd shares: 16 MiB, and 8 for each path with its batches. It is soft:
// longer lines may take more. The agent allocates next to nothing once it runs, so collecting more often costs little.
func limitMemory(paths int) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(16<<20 + int64(paths)*8<<20)
	}
}

// serve follows and pushes until ctx ends.
func serve(ctx context.Context, cfg *Config, stderr io.Writer) error {
	limitMemory(len(cfg.AuditLogPath))
	if err := cfg.makeStateDir(); err != nil {
		return err
	}
	logger, closeLog, err := newLogger(cfg, stderr)
	if err != nil {
		return err
	}
	defer closeLog()
	a := &agent{cfg: cfg, logger: logger, registry: newRegistry()}
	if err := a.open(); err != nil {
		return errors.Join(err, a.close())
	}
	stopListening, err := listen(cfg.ListenAddress, a.registry, logger, a.ready)
	if err != nil {
		return errors.Join(err, a.close())
	}
	logger.Info("started", "version", version, "paths", cfg.AuditLogPath, "node", cfg.Node, "loki", redacted(cfg.LokiURL))
	for _, path := range cfg.AuditLogPath {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			logger.Warn("the audit log does not exist yet; waiting for it", "path", path)
		}
	}
	err = a.run(ctx)
	stopListening()
	err = errors.Join(err, a.close())
	logger.Info("stopped")
	return err
}

// redacted is a URL without the password that it may hold.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Redacted()
}

func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "auditferry_build_info", Help: "Always 1; the labels tell the version.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	reg.MustRegister(build, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

// agent is all the paths of one process and what they share.
type agent struct {
	cfg       *Config
	logger    *slog.Logger
	registry  *prometheus.Registry
	store     *positions.Store
	client    *shipper.Client
	followers []*follower
}

// open gets everything ready, and fails if anything that is needed is missing.
func (a *agent) open() error {
	if err := a.openStore(); err != nil {
		return err
	}
	return a.openPaths()
}

func (a *agent) openStore() (err error) {
	a.store, err = positions.Open(positions.Config{File: a.cfg.PositionsFile, Logger: a.logger, Registerer: a.registry})
	if err != nil {
		return err
	}
	lost := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "auditferry_positions_lost", Help: "1 if no whole positions file was found at start though there was one: all is sent again.",
	})
	a.registry.MustRegister(lost)
	if a.store.Lost() {
		lost.Set(1)
	}
	return nil
}

func (a *agent) openPaths() (err error) {
	if a.client, err = newClient(a.cfg, a.logger, a.registry); err != nil {
		return err
	}
	for _, path := range a.cfg.AuditLogPath {
		f, err := a.follow(path)
		if err != nil {
			return err
		}
		a.followers = append(a.followers, f)
	}
	return nil
}

func newClient(cfg *Config, logger *slog.Logger, reg prometheus.Registerer) (*shipper.Client, error) {
	http, err := cfg.httpConfig()
	if err != nil {
		return nil, err
	}
	return shipper.New(shipper.Config{
		URL: cfg.LokiURL, TenantID: cfg.LokiTenantID, HTTP: http, Timeout: cfg.LokiTimeout, InFlight: cfg.PushesInFlight,
		StreamRate: int(cfg.LokiStreamRate), BackoffMin: cfg.BackoffMin, BackoffMax: cfg.BackoffMax, UserAgent: "auditferry/" + version,
		DeadLetterFile: cfg.DeadLetterFile, DeadLetterMaxSize: int64(cfg.DeadLetterMaxSize),
		Logger: logger, Registerer: reg,
	})
}

// follow makes the follower of one path, at its position or where --start-at says.
func (a *agent) follow(path string) (*follower, error) {
	describer, err := audit.NewDescriber(a.cfg.labels(path))
	if err != nil {
		return nil, err
	}
	gapStream, err := a.cfg.labels(path).GapStream()
	if err != nil {
		return nil, err
	}
	start, err := a.cfg.start()
	if err != nil {
		return nil, err
	}
	var from *positions.Position
	if p, ok := a.store.Position(path); ok {
		from = &p
	}
	tail, err := tailer.New(a.cfg.tail(path, start, a.logger, a.registry), from)
	if err != nil {
		return nil, explain(err)
	}
	f := &follower{
		path: path, node: a.cfg.Node, gapStream: gapStream, batchSize: int(a.cfg.BatchSize), batchWait: a.cfg.BatchWait,
		tail: tail, describe: describer, queue: a.client.NewQueue(path), store: a.store, logger: a.logger, end: tail.Start(),
	}
	if from == nil {
		// Held from the start, so that a restart before the first acknowledgement begins at the same place and gives the
		// same time to lines that have none.
		f.end.EventTime = firstEventTime(start)
		if err := a.store.Commit(path, f.end); errors.Is(err, positions.ErrRefused) {
			tail.Close()
			return nil, fmt.Errorf("keeping the first position: %w", err)
		}
	}
	f.gap = f.end.Gap
	if f.end.LSN > 0 {
		f.last = f.end.EventTime
	} else {
		f.since = start.Since
	}
	f.sent = f.end.LSN
	f.metrics = newPathMetrics(a.registry, path, f.end, tail.Unread, tail.Headroom)
	return f, nil
}

// firstEventTime is the time of lines that have none before the first that has one. Where reading starts at a time, they
// are before it.
func firstEventTime(start tailer.Start) time.Time {
	if !start.Since.IsZero() {
		return start.Since.Add(-1).UTC()
	}
	return time.Now().UTC()
}

// tail is how a path is read.
func (c *Config) tail(path string, start tailer.Start, logger *slog.Logger, reg prometheus.Registerer) tailer.Config {
	return tailer.Config{
		Path: path, Start: start, MaxLine: int(c.MaxReadLine), Poll: c.PollInterval, MaxGone: int64(c.HoldDeleted),
		Logger: logger, Registerer: reg,
	}
}

// run carries every path, each by itself, until ctx ends; then it finishes what is under way.
func (a *agent) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var all sync.WaitGroup
	errs := make([]error, len(a.followers))
	for i, f := range a.followers {
		all.Go(func() {
			errs[i] = f.run(ctx)
			if errs[i] != nil {
				stop() // a path that cannot go on is a failure of the whole: whoever runs the agent starts it again
			}
			patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.cfg.ShutdownTimeout)
			defer cancel()
			if err := f.finish(patience); err != nil {
				a.logger.Warn("stopping before Loki has all that was read; it is read again at the next start",
					"path", f.path, "error", err)
			}
		})
	}
	a.syncUntil(ctx)
	all.Wait()
	return errors.Join(errs...)
}

// syncUntil makes positions durable as they move.
func (a *agent) syncUntil(ctx context.Context) {
	tick := time.NewTicker(syncInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = a.store.Sync() // logged and counted there, and tried again
		}
	}
}

func (a *agent) close() error {
	for _, f := range a.followers {
		f.tail.Close()
	}
	if a.client != nil {
		a.client.Close()
	}
	if a.store == nil {
		return nil
	}
	if err := a.store.Close(); err != nil {
		return fmt.Errorf("making the last positions durable: %w", err)
	}
	return nil
}

// ready says what keeps the agent from shipping, for /readyz.
func (a *agent) ready() error {
	problems := []error{a.client.State()}
	for _, f := range a.followers {
		problems = append(problems, f.tail.Trouble())
	}
	return errors.Join(problems...)
}

// explain adds what to do to an error of permission.
func explain(err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("%w: kube-apiserver's audit logs belong to its user alone: run as that user (uid %d now), or give the process the capability CAP_DAC_READ_SEARCH",
		err, os.Geteuid())
}
