package shipper

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are those of a client; README and dashboards name them, so a change here is a change there.
type metrics struct {
	pushes      *prometheus.CounterVec
	duration    prometheus.Histogram
	retries     prometheus.Counter
	paced       prometheus.Counter
	sentEntries prometheus.Counter
	sentBytes   prometheus.Counter
	packedBytes prometheus.Counter
	inFlight    prometheus.Gauge
	dropped     *prometheus.CounterVec
	lokiUp      prometheus.Gauge
	limited     *prometheus.CounterVec
	rateLimit   prometheus.Gauge
	batchLimit  prometheus.Gauge
}

func newMetrics(registerer prometheus.Registerer, deadLetters func() int64) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "auditferry", Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "auditferry", Name: name, Help: help})
	}
	m := &metrics{
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "auditferry", Name: "pushes_total",
			Help: "Attempts to push, by HTTP status; error if there was no answer."}, []string{"code"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "auditferry", Name: "push_duration_seconds",
			Help: "Time of one attempt to push.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 13)}),
		retries:     counter("push_retries_total", "Attempts to push that had to be made again."),
		paced:       counter("push_paced_seconds_total", "Seconds that pushes waited so that no stream is faster than --loki-stream-rate, nor all together than auditferry_push_rate_limit_bytes."),
		sentEntries: counter("sent_entries_total", "Entries that Loki has acknowledged."),
		sentBytes:   counter("sent_bytes_total", "Bytes of the lines that Loki has acknowledged, uncompressed."),
		packedBytes: counter("sent_compressed_bytes_total", "Bytes of the bodies of pushes that Loki has acknowledged."),
		inFlight:    gauge("inflight_pushes", "Requests to Loki that wait for an answer."),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "auditferry", Name: "dropped_entries_total",
			Help: "Entries that Loki refused for good; they lie in the dead-letter file."}, []string{"reason"}),
		lokiUp: gauge("loki_up", "1 while pushes go through, 0 while they do not."),
	}
	m.limited = prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "auditferry", Name: "rate_limited_total",
		Help: "Pushes answered 429, by whose limit it is: tenant, stream, or other, such as Loki's limit of streams or a gateway's."}, []string{"scope"})
	m.rateLimit = gauge("push_rate_limit_bytes", "Bytes of lines and structured metadata that may be pushed in a second now: --loki-rate, or less while Loki's limit for the tenant is met; 0 while there is no limit.")
	m.batchLimit = gauge("batch_limit_bytes", "Bytes of lines and structured metadata at which batches are pushed because larger pushes were answered 413; 0 while none was.")
	m.lokiUp.Set(1)
	for _, scope := range []string{scopeTenant, scopeStream, scopeOther} {
		m.limited.WithLabelValues(scope)
	}
	for _, reason := range reasons {
		m.dropped.WithLabelValues(reason)
	}
	if registerer == nil {
		return m, nil
	}
	deadLetterBytes := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "auditferry", Name: "dead_letter_bytes",
		Help: "Size of the dead-letter file and its rotated ones."}, func() float64 { return float64(deadLetters()) })
	for _, c := range []prometheus.Collector{m.pushes, m.duration, m.retries, m.paced, m.sentEntries, m.sentBytes, m.packedBytes,
		m.inFlight, m.dropped, m.lokiUp, m.limited, m.rateLimit, m.batchLimit, deadLetterBytes} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("registering the metrics of pushes: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) attempt(a answer, took time.Duration) {
	m.pushes.WithLabelValues(a.code()).Inc()
	m.duration.Observe(took.Seconds())
}

// acknowledged counts what a push that is stored brought to Loki.
func (m *metrics) acknowledged(b *Batch, s span, packed int) {
	bytes := 0
	for i := s.lo; i < s.hi; i++ {
		bytes += b.at(i).line
	}
	m.sentEntries.Add(float64(s.len()))
	m.sentBytes.Add(float64(bytes))
	m.packedBytes.Add(float64(packed))
}
