package main

import (
	"math"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/auditferry/auditferry/agent/audit"
	"github.com/auditferry/auditferry/positions"
	"github.com/auditferry/auditferry/tailer"
)

// pathMetrics count what was read of one path, and tell how far behind Loki is.
type pathMetrics struct {
	lines, bytes, fragments, cutBytes, malformed, blank, gaps prometheus.Counter
	reducedLines, reducedBytes                                prometheus.Counter

	folded folded

	sound atomic.Bool // a line was an event

	unread            func() int64 // bytes on disk
	readLSN, ackedLSN atomic.Int64

	mu     sync.Mutex
	oldest []time.Time // of the batches that are not acknowledged: the time of the first event
}

func newPathMetrics(reg prometheus.Registerer, path string, start positions.Position, unread func() int64,
	headroom func(time.Time) time.Duration, folded folded) *pathMetrics {
	reg = prometheus.WrapRegistererWith(prometheus.Labels{"path": path}, reg)
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "auditferry_" + name, Help: help})
		reg.MustRegister(c)
		return c
	}
	m := &pathMetrics{
		folded:    folded,
		unread:    unread,
		lines:     counter("read_lines_total", "Lines read."),
		bytes:     counter("read_bytes_total", "Bytes of lines read, unpacked."),
		fragments: counter("read_fragments_total", "Last lines of a file that had no newline, sent as they are."),
		cutBytes:  counter("cut_bytes_total", "Bytes not sent, of lines longer than --max-read-line."),
		malformed: counter("malformed_total", "Lines, or pieces of lines, that are not one JSON object; sent as they are with resource=malformed."),
		gaps: counter("gaps_total",
			"Places in the log where events are missing: files were deleted, truncated or damaged before they were read. Each is told in Loki (event=gap)."),
		blank:        counter("blank_total", "Lines, or pieces of lines, of NUL bytes and white space only; not sent."),
		reducedLines: counter("reduced_lines_total", "Events longer than --max-line-size that were sent without their largest parts; each names them in its annotation auditferry.io/reduced."),
		reducedBytes: counter("reduced_bytes_total", "Bytes that events longer than --max-line-size became shorter by."),
	}
	m.readLSN.Store(start.LSN)
	m.ackedLSN.Store(start.LSN)
	reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "auditferry_lag_bytes", Help: "Bytes on disk that Loki has not acknowledged.",
		}, func() float64 { return float64(m.lag()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "auditferry_lag_seconds", Help: "Age of the oldest event that was read and that Loki has not acknowledged; 0 if there is none.",
		}, m.lagSeconds),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "auditferry_retention_headroom_seconds",
			Help: "How long, at the pace of the last rotations and if as many backups are kept as there are now, until the file that is read now is deleted; +Inf while that cannot be told.",
		}, func() float64 { return headroomSeconds(headroom(time.Now())) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "auditferry_audit_log_missing", Help: "1 if there is no file at the path: it is waited for.",
		}, func() float64 { return missing(path) }),
	)
	return m
}

func (m *pathMetrics) read(line *tailer.Line) {
	m.lines.Inc()
	m.bytes.Add(float64(line.End.LSN - m.readLSN.Load()))
	m.readLSN.Store(line.End.LSN)
	if line.Fragment {
		m.fragments.Inc()
	}
	if line.Cut > 0 {
		m.cutBytes.Add(float64(line.Cut))
	}
}

func (m *pathMetrics) described(e *audit.Entry) {
	switch {
	case e.Blank:
		m.blank.Inc()
	case e.Malformed:
		m.malformed.Inc()
	default:
		m.folded.count(e.Folded)
		if !m.sound.Load() {
			m.sound.Store(true)
		}
	}
}

// missing gives 1 if there is no file at a path, or none that can be seen.
func missing(path string) float64 {
	if _, err := os.Stat(path); err != nil {
		return 1
	}
	return 0
}

// began notes the first event of a batch.
func (m *pathMetrics) began(event time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.oldest = append(m.oldest, event)
}

// acknowledged notes the end of the oldest batch; entries is how many it had.
func (m *pathMetrics) acknowledged(end positions.Position, entries int) {
	m.ackedLSN.Store(end.LSN)
	if entries == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.oldest = slices.Delete(m.oldest, 0, 1)
}

// lag is how many bytes on disk Loki has not acknowledged.
func (m *pathMetrics) lag() int64 { return m.unread() + m.readLSN.Load() - m.ackedLSN.Load() }

// headroomSeconds is what a gauge shows for a headroom, which is negative if it is not known.
func headroomSeconds(d time.Duration) float64 {
	if d < 0 {
		return math.Inf(1)
	}
	return d.Seconds()
}

func (m *pathMetrics) lagSeconds() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.oldest) == 0 {
		return 0
	}
	return max(0, time.Since(m.oldest[0]).Seconds())
}
