package main

import (
	"math"
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

	unread            func() int64 // bytes on disk
	readLSN, ackedLSN atomic.Int64

	mu     sync.Mutex
	oldest []time.Time // of the batches that are not acknowledged: the time of the first event
}

func newPathMetrics(reg prometheus.Registerer, path string, start positions.Position, unread func() int64,
	headroom func(time.Time) time.Duration) *pathMetrics {
	reg = prometheus.WrapRegistererWith(prometheus.Labels{"path": path}, reg)
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "auditferry_" + name, Help: help})
		reg.MustRegister(c)
		return c
	}
	m := &pathMetrics{
		unread:    unread,
		lines:     counter("read_lines_total", "Lines read."),
		bytes:     counter("read_bytes_total", "Bytes of lines read, unpacked."),
		fragments: counter("read_fragments_total", "Last lines of a file that had no newline, sent as they are."),
		cutBytes:  counter("cut_bytes_total", "Bytes not sent, of lines longer than --max-read-line."),
		malformed: counter("malformed_total", "Lines, or pieces of lines, that are not one JSON object; sent as they are with resource=malformed."),
		gaps: counter("gaps_total",
			"Places in the log where events are missing: files were deleted, truncated or damaged before they were read. Each is told in Loki (event=gap)."),
		blank: counter("blank_total", "Lines, or pieces of lines, of NUL bytes and white space only; not sent."),
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
	)
	return m
}

func (m *pathMetrics) read(line tailer.Line) {
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

func (m *pathMetrics) described(e audit.Entry) {
	switch {
	case e.Blank:
		m.blank.Inc()
	case e.Malformed:
		m.malformed.Inc()
	}
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
