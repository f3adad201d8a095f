package tailer

import (
	"errors"
	"io/fs"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/auditferry/auditferry/positions"
)

// observer tells people what happens to one path, by metric and by log. A state is logged when it changes, not at
// every look.
type observer struct {
	logger     *slog.Logger
	registerer prometheus.Registerer // nil for none
	collectors []prometheus.Collector

	lostFiles, lostBytes, truncations, damages, rotations prometheus.Counter
	unreadable                                            prometheus.Gauge

	mu       sync.Mutex
	readErr  string
	watchErr string
	scanErr  string
}

func newObserver(path string, logger *slog.Logger, reg prometheus.Registerer) *observer {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{
			Name: "auditferry_" + name, Help: help, ConstLabels: prometheus.Labels{"path": path},
		})
	}
	o := &observer{
		logger:      logger,
		registerer:  reg,
		lostFiles:   counter("lost_files_total", "Files that were deleted before they were read."),
		lostBytes:   counter("lost_bytes_total", "Bytes, as they lay on disk, that were deleted or cut off before they were read, as far as known."),
		truncations: counter("truncations_total", "Times that the file in hand was truncated by somebody else."),
		damages:     counter("damaged_files_total", "Compressed backups that could not be unpacked to their end."),
		rotations:   counter("rotations_total", "Files read to their end."),
		unreadable: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "auditferry_unreadable", ConstLabels: prometheus.Labels{"path": path},
			Help: "1 while the audit log or its directory cannot be read.",
		}),
	}
	o.collectors = []prometheus.Collector{
		o.lostFiles, o.lostBytes, o.truncations, o.damages, o.rotations, o.unreadable,
	}
	if reg != nil {
		reg.MustRegister(o.collectors...)
	}
	return o
}

// unregister lets the same path be followed again in this process.
func (o *observer) unregister() {
	if o.registerer == nil {
		return
	}
	for _, c := range o.collectors {
		o.registerer.Unregister(c)
	}
}

// gone says that the file of the last acknowledged event is gone.
func (o *observer) gone(from positions.Position) {
	o.logger.Error("the file of the last acknowledged event is gone; going on with what has not been read",
		"file", from.Name, "last_event", from.EventTime)
}

// lost says that a file was deleted before so many bytes of it were read.
func (o *observer) lost(l *link, bytes int64, why string) {
	o.lostFiles.Inc()
	o.lostBytes.Add(float64(bytes))
	o.logger.Error("a backup is gone that was not read", "file", l.name(), "bytes", bytes, "why", why)
}

// truncated says that the log was truncated, and how many bytes of it had not been read and are in no copy.
func (o *observer) truncated(lost int64) {
	o.truncations.Inc()
	o.lostBytes.Add(float64(lost))
	o.logger.Warn("the audit log was truncated in place, which can lose events: let kube-apiserver rotate it", "lost_bytes", lost)
}

// givenUp says that the agent stops before it has read files that are deleted and only held open.
func (o *observer) givenUp(files int, bytes int64) {
	o.logger.Error("stopping gives up deleted backups that were held open and not read; the next start tells the gap",
		"files", files, "bytes", bytes)
}

func (o *observer) damaged(name string, err error) {
	o.damages.Inc()
	o.logger.Error("a compressed backup is damaged; what could be unpacked was read", "file", name, "error", err)
}

func (o *observer) rotated() { o.rotations.Inc() }

const readableAgain = "the audit log can be read again"

// reading notes how the last read went; nil is well.
func (o *observer) reading(err error) {
	o.state(&o.readErr, err, "the audit log cannot be read; trying on", readableAgain)
}

// scanning notes how the last look at the directory went; nil is well.
func (o *observer) scanning(err error) {
	o.state(&o.scanErr, err, "the audit log or its directory cannot be opened; trying on",
		"the audit log and its directory can be opened again")
}

// watching notes whether the directory is watched; nil is well.
func (o *observer) watching(err error) {
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // waiting for the directory is told elsewhere
	}
	o.state(&o.watchErr, err, "no notifications for the audit log directory; polling only", "notifications are back")
}

// trouble is what keeps the log from being read, nil if nothing does.
func (o *observer) trouble() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.scanErr != "" {
		return errors.New(o.scanErr)
	}
	if o.readErr != "" {
		return errors.New(o.readErr)
	}
	return nil
}

func (o *observer) state(last *string, err error, bad, good string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := ""
	if err != nil {
		now = err.Error()
	}
	if now == *last {
		return
	}
	*last = now
	if o.readErr != "" || o.scanErr != "" {
		o.unreadable.Set(1)
	} else {
		o.unreadable.Set(0)
	}
	if err != nil {
		o.logger.Error(bad, "error", err)
	} else {
		o.logger.Info(good)
	}
}
