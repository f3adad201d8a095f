package main

import "time"

// Loki refuses what is older than reject_old_samples_max_age (--loki-reject-old) and what is further in the future than
// creation_grace_period (10 minutes). The agent keeps away from both limits.
const (
	// oldMargin is how much every event that is sent has left before Loki finds it too old: a push may wait, and clocks differ.
	// An outage that lasts longer makes dead letters of what was read before it.
	oldMargin = 10 * time.Minute
	// endMargin is how much the event has left that ends a stretch of old ones. Until it comes to oldMargin, a restart finds
	// the same end, and a reader that is as slow as time does not begin a stretch with each event.
	endMargin = 20 * time.Minute
	// futureGrace is how far ahead of the agent's clock an event may be.
	futureGrace = 9 * time.Minute
)

// An age is what Loki would say to the time of an event.
type age int

const (
	inTime age = iota
	tooOld
	tooNew
)

// ages tells the ages of events, by a look at the clock now and then: to ask it for every event would cost more than all else
// that is done about time.
type ages struct {
	clock  func() time.Time
	reject time.Duration // --loki-reject-old; 0: nothing is too old

	now    time.Time // at the last look, as the limits below are
	oldest time.Time // that is in time; zero if nothing is too old
	ending time.Time // that ends a stretch of old events
	newest time.Time // that is in time
}

func newAges(clock func() time.Time, reject time.Duration) ages {
	a := ages{clock: clock, reject: reject}
	a.look()
	return a
}

// look is due with the first line of a batch: after it, events come as fast as they can be read, and the batch is not open for long.
func (a *ages) look() {
	a.now = a.clock().UTC().Round(0)
	a.newest = a.now.Add(futureGrace)
	if a.reject > 0 {
		a.oldest = a.now.Add(oldMargin - a.reject)
		a.ending = a.now.Add(endMargin - a.reject)
	}
}

// of gives the age of an event; inStretch says that it would end a stretch of old ones.
func (a *ages) of(event time.Time, inStretch bool) age {
	if event.Before(a.oldest) || inStretch && event.Before(a.ending) {
		return tooOld
	}
	if event.After(a.newest) {
		if a.look(); event.After(a.newest) { // else the batch has been open for long
			return tooNew
		}
	}
	return inTime
}
