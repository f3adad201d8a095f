package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

// sentAt gives when an event is in Loki, and its own time if that is another.
func (c *clocked) sentAt(line string) (at time.Time, eventTime string) {
	c.t.Helper()
	for _, e := range c.loki.Entries() {
		if e.Line == line {
			for _, f := range e.Metadata {
				if f.Name == "event_time" {
					eventTime = f.Value
				}
			}
			return e.Time, eventTime
		}
	}
	c.t.Fatalf("not in Loki: %s", line)
	return at, eventTime
}

func (c *clocked) wantSentAt(line string, at time.Time, eventTime string) {
	c.t.Helper()
	if gotAt, gotTime := c.sentAt(line); !gotAt.Equal(at) || gotTime != eventTime {
		c.t.Errorf("%.130s is at %v with the event_time %q, want %v and %q", line, gotAt, gotTime, at, eventTime)
	}
}

func TestRestamp(t *testing.T) {
	c := newClocked(t)
	c.write(backup(8*day), ago(90*day))
	c.write("audit.log", ago(8*day), ago(7*day-oldMargin+time.Microsecond), ago(day))
	s := c.stepper(t.TempDir(), "--old-events=restamp")
	s.toTheEnd(func() {})
	at := lokiNow.Add(oldStampMargin - 7*day)
	for _, d := range []time.Duration{90 * day, 8 * day, 7*day - oldMargin + time.Microsecond} {
		c.wantSentAt(ago(d), at, stamp(d))
	}
	c.wantSentAt(ago(day), lokiNow.Add(-day), "")
	if p, _ := s.store.Position(c.path("audit.log")); p.Restamp != nil || p.Old != nil {
		t.Errorf("the position has %+v and %+v, and there is nothing old any more", p.Old, p.Restamp)
	}
	c.wantNoneRefused()
}

// The time for old events is replaced before Loki finds it too old itself; after a restart later, because some of them may be
// in flight.
func TestRestampIsRenewed(t *testing.T) {
	for _, restart := range []bool{false, true} {
		c := newClocked(t)
		state := t.TempDir()
		c.write("audit.log", ago(20*day), ago(19*day), ago(18*day), ago(17*day), ago(16*day))
		type step struct {
			clock, stamped time.Duration
		}
		steps := []step{{0, 0}, {oldStampMargin/2 - 1, 0}, {oldStampMargin / 2, oldStampMargin / 2}, {oldStampMargin, oldStampMargin}, {oldStampMargin + 1, oldStampMargin}}
		if restart {
			steps = []step{{0, 0}, {oldStampMargin / 2, 0}, {oldStampMargin - oldMargin - 1, 0}, {oldStampMargin - oldMargin, oldStampMargin - oldMargin}, {oldStampMargin, oldStampMargin - oldMargin}}
		}
		s := c.stepper(state, "--old-events=restamp")
		for i, step := range steps {
			if restart && i > 0 {
				s.end()
				s = c.stepper(state, "--old-events=restamp")
			}
			c.set(step.clock)
			s.read(1, func() {})
			c.wantSentAt(ago(time.Duration(20-i)*day), lokiNow.Add(step.stamped+oldStampMargin-7*day), stamp(time.Duration(20-i)*day))
		}
		s.end()
		c.wantNoneRefused()
	}
}

// An old event that comes after newer ones, from a second apiserver, is not sent so early that Loki finds it too far behind.
func TestRestampNearNewerEvents(t *testing.T) {
	c := newClocked(t)
	c.loki.Answer(lokitest.LikeLoki(100))
	c.write("audit.log", ago(time.Hour), ago(8*day), ago(0))
	c.stepper(t.TempDir(), "--old-events=restamp").toTheEnd(func() {})
	c.wantOthers([]string{ago(time.Hour), ago(8 * day), ago(0)})
	c.wantSentAt(ago(8*day), lokiNow.Add(-time.Hour-stampBehind), stamp(8*day))
}

// Events in the future go to the dead letters, whatever is done with old ones, but for restamp.
func TestFutureEvents(t *testing.T) {
	ahead := []string{ago(-futureGrace - time.Microsecond), ago(-day)}
	for _, mode := range []string{"skip", "dead-letter", "restamp"} {
		c := newClocked(t)
		c.write("audit.log", ago(time.Hour), ago(-futureGrace), ahead[0], ahead[1], ago(0))
		state := c.throughCrashes(time.Minute, "--old-events="+mode)
		sent := []string{ago(time.Hour), ago(-futureGrace), ago(0)}
		letters := []string{"too_far_in_future " + ahead[0], "too_far_in_future " + ahead[1]}
		if mode == "restamp" {
			sent, letters = append(sent, ahead...), nil
			c.wantSentAt(ahead[0], lokiNow, stamp(-futureGrace-time.Microsecond))
			c.wantSentAt(ahead[1], lokiNow, stamp(-day))
		}
		c.wantOthers(sent)
		c.wantGaps()
		if got := c.letters(state); !slices.Equal(got, letters) {
			t.Errorf("%s: dead letters %q, want %q", mode, got, letters)
		}
	}
}

// The time for events in the future does not outlive them, however long the next event is in coming.
func TestFutureEventsEnd(t *testing.T) {
	c := newClocked(t)
	c.write("audit.log", ago(-day), ago(-12*time.Minute), ago(-13*time.Minute))
	s := c.stepper(t.TempDir(), "--old-events=restamp")
	s.read(1, func() {})
	c.set(12 * time.Minute)
	s.read(2, func() {})
	s.end()
	c.wantSentAt(ago(-day), lokiNow, stamp(-day))
	c.wantSentAt(ago(-12*time.Minute), lokiNow.Add(12*time.Minute), "")
	c.wantSentAt(ago(-13*time.Minute), lokiNow.Add(13*time.Minute), "")
}

func TestFutureEventsAreCounted(t *testing.T) {
	c := newClocked(t)
	c.write("audit.log", ago(-day), ago(-day-time.Second), ago(0))
	c.start()
	c.wantOthers([]string{ago(0)})
	c.metric("future_events_total", "", "2")
	c.stopped()
}

// Another time does not make a line shorter: what cannot be reduced is a dead letter, and counts as one.
func TestRestampOfWhatIsTooLong(t *testing.T) {
	c := newClocked(t)
	malformed := strings.Repeat("x", 40<<10) // it has the time of the line before it
	c.write("audit.log", ago(8*day), malformed, ago(day))
	s := c.stepper(t.TempDir(), "--old-events=restamp", "--max-line-size=32KiB")
	s.toTheEnd(func() {})
	texts := ""
	for _, e := range c.loki.Entries() {
		texts += e.Line
		if e.Line == malformed {
			t.Error("it was sent")
		}
	}
	if !strings.Contains(texts, `"dead_letter_events":1,`) && !strings.Contains(texts, `"dead_letter_events":1}`) ||
		!strings.Contains(texts, `"restamped_events":1`) {
		t.Errorf("one of each is not told: %s", texts)
	}
	c.wantNoneRefused()
}
