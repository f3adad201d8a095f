package main

import (
	"testing"
	"time"
)

func TestAges(t *testing.T) {
	now := eventsBegin
	const reject = 168 * time.Hour
	for _, tt := range []struct {
		name      string
		reject    time.Duration
		event     time.Duration // from now
		inStretch bool
		want      age
	}{
		{"now", reject, 0, false, inTime},
		{"exactly at the limit", reject, oldMargin - reject, false, inTime},
		{"just over it", reject, oldMargin - reject - 1, false, tooOld},
		{"at the limit, which does not end a stretch", reject, oldMargin - reject, true, tooOld},
		{"just does not end it", reject, endMargin - reject - 1, true, tooOld},
		{"just ends it", reject, endMargin - reject, true, inTime},
		{"as far ahead as may be", reject, futureGrace, false, inTime},
		{"further", reject, futureGrace + 1, false, tooNew},
		{"further, in a stretch", reject, futureGrace + 1, true, tooNew},
		{"any age", 0, -50 * 365 * 24 * time.Hour, true, inTime},
		{"any age, but the future", 0, futureGrace + 1, false, tooNew},
		{"the shortest limit", time.Hour, -50 * time.Minute, false, inTime},
	} {
		a := newAges(func() time.Time { return now }, tt.reject)
		if got := a.of(now.Add(tt.event), tt.inStretch); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// An event that comes long after the last look at the clock is not in the future.
func TestAgesLookBeforeTheyCallAnythingFuture(t *testing.T) {
	now := eventsBegin
	a := newAges(func() time.Time { return now }, time.Hour)
	now = now.Add(24 * time.Hour)
	if got := a.of(now, false); got != inTime {
		t.Errorf("an event of now is %v, a day after the last look", got)
	}
}
