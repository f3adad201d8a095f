package shipper

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A Trouble is why pushes do not go through.
type Trouble struct {
	// Reason is one word: unavailable, rate_limited, not_stored, dead_letter, bug, or http_ and the status, such as http_401.
	Reason string
	// Since is when the first push of the stretch began to fail.
	Since time.Time
	// Words are for people: what Loki, or the system, says last.
	Words string
	url   string
	err   error
}

// Unwrap gives what kept a push from reaching Loki, or a dead letter from being written; nil if Loki answered.
func (t *Trouble) Unwrap() error { return t.err }

// Error says it in one line.
func (t *Trouble) Error() string {
	return fmt.Sprintf("Loki at %s does not take pushes since %s: %s", t.url, t.Since.UTC().Format(time.RFC3339), t.Words)
}

// health is what the pushes under way say together. One that succeeds ends its own trouble, not that of another: a stretch
// of trouble is over when none is left. Each reason is logged once in a stretch.
type health struct {
	log *slog.Logger
	up  prometheus.Gauge
	url string
	now func() time.Time

	mu     sync.Mutex
	failed map[*delivery]*Trouble
	last   *Trouble // the newest of failed, or one that has ended
	since  time.Time
	logged map[string]bool
}

func newHealth(log *slog.Logger, up prometheus.Gauge, url string) *health {
	return &health{log: log, up: up, url: url, now: time.Now, failed: make(map[*delivery]*Trouble), logged: make(map[string]bool)}
}

// begin notes that d cannot be pushed, and why; err is nil if Loki says so.
func (h *health) begin(d *delivery, reason, words string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.failed) == 0 {
		h.since = h.now()
		h.up.Set(0)
		clear(h.logged)
	}
	h.last = &Trouble{Reason: reason, Since: h.since, Words: words, url: h.url, err: err}
	h.failed[d] = h.last
	if !h.logged[reason] {
		h.logged[reason] = true
		h.log.Error("Loki does not take pushes", "reason", reason, "error", words, "url", h.url, "since", h.since)
	}
}

// end notes that d got through.
func (h *health) end(d *delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.remove(d) {
		h.up.Set(1)
		h.log.Info("Loki takes pushes again", "lasted", h.now().Sub(h.since).Round(time.Millisecond), "url", h.url)
	}
}

// abandon forgets d without a word: nothing is known of Loki.
func (h *health) abandon(d *delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.remove(d) {
		h.up.Set(1)
	}
}

// remove reports whether d was the last in trouble.
func (h *health) remove(d *delivery) bool {
	if _, failed := h.failed[d]; !failed {
		return false
	}
	delete(h.failed, d)
	return len(h.failed) == 0
}

func (h *health) state() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.failed) == 0 {
		return nil
	}
	for _, t := range h.failed {
		if t == h.last {
			return t
		}
	}
	for _, t := range h.failed {
		return t
	}
	return nil
}
