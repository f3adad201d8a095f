package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/auditferry/auditferry/agent/audit"
	"github.com/auditferry/auditferry/positions"
	"github.com/auditferry/auditferry/shipper"
	"github.com/auditferry/auditferry/tailer"
)

// syncInterval is how often positions are made durable: what a power failure repeats at the most.
const syncInterval = time.Second

// serve follows and pushes until ctx ends.
func serve(ctx context.Context, cfg *Config, stderr io.Writer) error {
	targets, err := cfg.targets()
	if err != nil {
		return err
	}
	limitMemory(cfg, len(targets))
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
	stopListening, err := listen(cfg, a.registry, logger, a.ready)
	if err != nil {
		return errors.Join(err, a.close())
	}
	logger.Info("started", "version", version, "paths", cfg.AuditLogPath, "node", cfg.Node, "loki", strings.Join(redacted(targets), " "))
	for _, path := range cfg.AuditLogPath {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			logger.Warn("the audit log does not exist yet; waiting for it", "path", path)
		}
	}
	if err := a.confine(targets); err != nil {
		stopListening()
		return errors.Join(err, a.close())
	}
	stopNotifying := a.notify(ctx)
	program := mappedProgram()
	a.giveBack = func() { giveBack(program) }
	a.giveBack()
	err = a.run(ctx)
	stopListening()
	err = errors.Join(err, a.close())
	stopNotifying()
	logger.Info("stopped")
	return err
}

func redacted(targets []target) (urls []string) {
	for _, t := range targets {
		urls = append(urls, t.redacted())
	}
	return urls
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

// agent is all the paths and destinations of one process and what they share.
type agent struct {
	cfg          *Config
	logger       *slog.Logger
	registry     *prometheus.Registry
	store        *positions.Store
	destinations []*destination
	followers    []*follower   // of every path for every destination
	moved        chan struct{} // has one if a position has moved since the last look
	parked       chan struct{} // has one if a follower has left since the last look
	admissions   *positions.Admissions
	sandbox      *sandbox // nil: none
	giveBack     func()   // gives memory back
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

func (a *agent) openPaths() error {
	targets, err := a.cfg.targets()
	if err != nil {
		return err
	}
	for _, t := range targets {
		d, err := a.newDestination(t)
		if err != nil {
			return err
		}
		a.destinations = append(a.destinations, d)
	}
	if err := a.openAdmissions(); err != nil {
		return err
	}
	a.moved, a.parked = make(chan struct{}, 1), make(chan struct{}, 1)
	for _, d := range a.destinations {
		for _, path := range a.cfg.AuditLogPath {
			f, err := a.follow(d, path)
			if err != nil {
				return err
			}
			a.followers = append(a.followers, f)
		}
	}
	return nil
}

func newClient(cfg *Config, t *target, logger *slog.Logger, reg prometheus.Registerer) (*shipper.Client, error) {
	http, err := t.httpConfig()
	if err != nil {
		return nil, err
	}
	return shipper.New(shipper.Config{
		URL: t.url, TenantID: t.tenant, HTTP: http, Timeout: cfg.LokiTimeout, InFlight: cfg.PushesInFlight,
		AcceptStatus: cfg.acceptStatus(), Rate: int(cfg.LokiRate),
		StreamRate: int(cfg.LokiStreamRate), BackoffMin: cfg.BackoffMin, BackoffMax: cfg.BackoffMax, UserAgent: "auditferry/" + version,
		DeadLetterFile: cfg.deadLetters(t), DeadLetterMaxSize: int64(cfg.DeadLetterMaxSize),
		Logger: logger, Registerer: reg,
	})
}

// follow makes the follower of one path for one destination, at its position or where --start-at says.
func (a *agent) follow(d *destination, path string) (*follower, error) {
	describer, err := audit.NewDescriber(a.cfg.labels(path), d.admitted.audit, d.key(path))
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
	from := d.from[path]
	tail, err := tailer.New(a.cfg.tail(path, start, d.logger, d.registerer), from)
	if err != nil {
		return nil, explain(err)
	}
	f := &follower{
		path: path, key: d.key(path), destination: d.address,
		node: a.cfg.Node, gapStream: gapStream, batchSize: int(a.cfg.BatchSize), batchWait: a.cfg.BatchWait,
		maxLine: int(a.cfg.MaxLineSize),
		tail:    tail, describe: describer, queue: d.client.NewQueue(path), store: a.store, logger: d.logger, end: tail.Start(),
		ages: newAges(a.cfg.clock, a.cfg.LokiRejectOld), old: newOldEvents(a.cfg.OldEvents, a.cfg.LokiRejectOld, d.registerer, path),
		future:   newFutureEvents(d.registerer, path),
		admitted: d.admitted, moved: a.moved, parked: a.parked,
	}
	if f.end.LSN > 0 {
		f.last = f.end.EventTime
	} else {
		f.since = start.Since
	}
	f.resumeOld(tail.Old())
	f.resumeStamps()
	if from == nil {
		// Held from the start, so that a restart before the first acknowledgement begins at the same place and gives the
		// same time to lines that have none.
		f.end.EventTime = firstEventTime(start, a.cfg.clock())
		if err := f.commit(f.end); errors.Is(err, positions.ErrRefused) {
			tail.Close()
			return nil, fmt.Errorf("keeping the first position: %w", err)
		}
	}
	f.resumeGap()
	f.sent = f.end.LSN
	f.metrics = newPathMetrics(d.registerer, path, f.end, tail.Unread, tail.Headroom, d.folded)
	return f, nil
}

// firstEventTime is the time of lines that have none before the first that has one. Where reading starts at a time, they
// are before it.
func firstEventTime(start tailer.Start, now time.Time) time.Time {
	if !start.Since.IsZero() {
		return start.Since.Add(-1).UTC()
	}
	return now.UTC()
}

// tail is how a path is read.
func (c *Config) tail(path string, start tailer.Start, logger *slog.Logger, reg prometheus.Registerer) tailer.Config {
	var oldest time.Time
	if c.OldEvents == oldSkip && c.LokiRejectOld > 0 {
		oldest = c.clock().Add(oldMargin - c.LokiRejectOld)
	}
	return tailer.Config{
		Path: path, Start: start, Oldest: oldest, MaxLine: int(c.MaxReadLine), Poll: c.PollInterval, MaxGone: int64(c.HoldDeleted),
		Logger: logger, Registerer: reg,
	}
}

// run carries every path to every destination, each by itself, until ctx ends; then it finishes what is under way, side by
// side as well.
func (a *agent) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var all sync.WaitGroup
	errs := make([]error, len(a.followers)+1)
	for i, f := range a.followers {
		all.Go(func() {
			errs[i] = f.run(ctx)
			if errs[i] != nil {
				stop() // a path that cannot go on is a failure of the whole: whoever runs the agent starts it again
			}
			patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.cfg.ShutdownTimeout)
			defer cancel()
			if err := f.finish(patience); err != nil {
				f.logger.Warn("stopping before Loki has all that was read; it is read again at the next start",
					"path", f.path, "error", err)
			}
		})
	}
	all.Go(func() {
		if errs[len(a.followers)] = a.watchSandbox(ctx); errs[len(a.followers)] != nil {
			stop()
		}
	})
	a.syncUntil(ctx)
	all.Wait()
	return errors.Join(errs...)
}

// syncUntil makes positions durable as they move, and gives memory back. While they do not move, it does not wake: on a node that is idle,
// that would be half of all that the agent does.
func (a *agent) syncUntil(ctx context.Context) {
	giving := time.NewTimer(giveBackAtFirst)
	defer giving.Stop()
	givings, toGive := 0, true // toGive: giving will come
	due := time.NewTimer(syncInterval)
	defer due.Stop()
	waiting := true // for due
	for {
		select {
		case <-ctx.Done():
			return
		case <-giving.C:
			a.giveBack()
			if givings++; givings < firstGivings {
				giving.Reset(giveBackAtFirst)
			} else {
				toGive = false
			}
		case <-a.moved:
			if !toGive {
				giving.Reset(giveBackLater)
				toGive = true
			}
			if !waiting {
				due.Reset(syncInterval)
				waiting = true
			}
		case <-due.C:
			if waiting = a.store.Sync() != nil; waiting { // logged and counted there, and tried again
				due.Reset(syncInterval)
			}
		}
	}
}

func (a *agent) close() error {
	for _, f := range a.followers {
		f.tail.Close()
	}
	for _, d := range a.destinations {
		d.client.Close()
	}
	if a.store == nil {
		return nil
	}
	if a.admissions != nil {
		_ = a.admissions.Close() // what was sent needs, is durable
	}
	if err := a.store.Close(); err != nil {
		return fmt.Errorf("making the last positions durable: %w", err)
	}
	return nil
}

// ready says what keeps the agent from shipping, for /readyz.
func (a *agent) ready() error {
	var problems []error
	if a.sandbox != nil {
		problems = append(problems, a.sandbox.awaits())
	}
	problems = append(problems, a.admissions.Trouble())
	for _, d := range a.destinations {
		problems = append(problems, d.client.State())
	}
	told := make(map[string]bool)
	for _, f := range a.followers {
		if err := f.tail.Trouble(); err != nil && !told[err.Error()] { // each destination reads the path
			told[err.Error()] = true
			problems = append(problems, err)
		}
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
