package main

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/auditferry/auditferry/agent/audit"
	"github.com/auditferry/auditferry/shipper"
)

// futureWords is what a dead letter says of an event that is in the future.
var futureWords = fmt.Sprintf("more than %v in the future by the clock of the agent", futureGrace)

// futureEvents keeps account of events that are too far in the future: those before a step of the clock back. They go to the
// dead letters, whatever is done with old ones: they are few, and no later push of them will do. Under restamp they are sent at
// the present time.
type futureEvents struct {
	run   int64 // in a row
	total prometheus.Counter
}

func newFutureEvents(reg prometheus.Registerer, path string) futureEvents {
	total := prometheus.NewCounter(prometheus.CounterOpts{
		Name:        "auditferry_future_events_total",
		Help:        "Events too far in the future for Loki; in the dead letters, or with --old-events=restamp sent at the present time.",
		ConstLabels: prometheus.Labels{"path": path},
	})
	reg.MustRegister(total)
	return futureEvents{total: total}
}

// takeFuture takes an event that is too far in the future.
func (f *follower) takeFuture(ctx context.Context, e *audit.Entry) error {
	f.future.total.Inc()
	if f.future.run++; f.future.run == 1 {
		f.logger.Warn("events are further in the future than Loki takes them: did the clock step back?", "path", f.path,
			"event", e.Time, "ahead", e.Time.Sub(f.ages.now).Round(time.Second))
	}
	if f.old.mode != oldRestamp {
		f.bury(e, shipper.ReasonFuture, futureWords)
		return nil
	}
	if err := f.chooseFutureStamp(ctx, e.Time); err != nil {
		return err
	}
	f.pushAt(e, f.restamp.Future)
	return nil
}

// endFuture logs that an event is not in the future any more.
func (f *follower) endFuture() {
	if f.future.run == 0 {
		return
	}
	f.logger.Info("the last event is not too far in the future", "path", f.path, "future_events", f.future.run)
	f.future.run = 0
}
