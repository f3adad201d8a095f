package positions

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	failures *prometheus.CounterVec
	duration prometheus.Histogram
}

func newMetrics() *metrics {
	m := &metrics{
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "auditferry_positions_commit_failures_total",
			Help: "Failed attempts to write a positions file. While they last, a crash costs repeats.",
		}, []string{"file"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "auditferry_positions_sync_duration_seconds",
			Help:    "Time to make the durable positions file durable: write, fsync, rename, fsync of the directory.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8), // 1 ms to 16 s
		}),
	}
	for _, kind := range []string{durableKind, latestKind} {
		m.failures.WithLabelValues(kind)
	}
	return m
}

func (m *metrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	if err := r.Register(m.failures); err != nil {
		return fmt.Errorf("registering the metrics of positions: %w", err)
	}
	if err := r.Register(m.duration); err != nil {
		r.Unregister(m.failures)
		return fmt.Errorf("registering the metrics of positions: %w", err)
	}
	return nil
}

func (m *metrics) unregister(r prometheus.Registerer) {
	if r != nil {
		r.Unregister(m.failures)
		r.Unregister(m.duration)
	}
}

func (m *metrics) observe(since, now time.Time) { m.duration.Observe(now.Sub(since).Seconds()) }
