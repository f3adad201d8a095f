package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

// months are the backups of a first start, and what of them is in time.
func (c *clocked) months() (inTime []string) {
	for d := time.Duration(90); d > 7; d-- { // a file begins with the event for which the one before it was rotated
		name := backup(d * day)
		c.write(name, ago((d+1)*day), ago(d*day+time.Minute))
		if d%2 == 0 {
			pack(c.t, c.path(name), c.path(name)+".gz")
		}
	}
	c.write(backup(7*day+time.Minute), ago(8*day), ago(7*day+time.Hour))                                 // too old, which only its own name tells
	c.write(backup(6*day), ago(7*day+time.Minute), ago(7*day-15*time.Minute), ago(7*day-20*time.Minute)) // about the limit
	c.write("audit.log", ago(6*day), ago(time.Minute))
	return []string{ago(7*day - 20*time.Minute), ago(6 * day), ago(time.Minute)}
}

// A first start on a node with months of backups reads none that is too old, sends nothing that Loki refuses, and tells once
// what it has left out.
func TestFirstStartWithMonthsOfBackups(t *testing.T) {
	c := newClocked(t)
	inTime := c.months()
	var bytes, files int64
	names, _ := os.ReadDir(c.dir)
	for _, f := range names {
		if f.Name() < backup(7*day+time.Hour) {
			bytes += c.size(f.Name())
			files++
		}
	}
	// Whoever reads on in the oldest backup finds it damaged.
	oldest := c.path(backup(90*day)) + ".gz"
	if err := os.Truncate(oldest, c.size(backup(90*day)+".gz")-4); err != nil {
		t.Fatal(err)
	}
	bytes -= 4
	if files != 83 {
		t.Fatalf("%d files: the test is wrong", files)
	}
	c.start()
	c.wantOthers(inTime)
	told := c.oldText(fmt.Sprintf(`"first_event":%q,"oldest_event":%q,"newest_event":%q,"skipped_events":4,"skipped_files":83,"skipped_bytes":%d`,
		stamp(7*day-20*time.Minute), stamp(8*day), stamp(7*day-15*time.Minute), bytes))
	c.wantGaps(told)
	c.metric("old_files_total", "", "83")
	c.metric("old_events_total", `action="skipped",`, "4")
	c.metric("old_events_total", `action="dead_letter",`, "0")
	c.metric("damaged_files_total", "", "0")
	c.metric("read_lines_total", "", "7")
	c.stopped()
	log := c.stderr.String()
	if n := strings.Count(log, "backups are not read"); n != 1 || strings.Count(log, "young enough for Loki again") != 1 {
		t.Errorf("the stretch is told %d times in the log:\n%s", n, log)
	}
	for _, e := range c.loki.Entries() {
		if e.Stream == gapStream && !e.Time.Equal(lokiNow.Add(20*time.Minute-7*day)) {
			t.Errorf("the entry is at %v, not at the time of the event after the stretch", e.Time)
		}
	}
	for _, d := range []time.Duration{time.Minute, 30 * day} { // a while later, and so late that the limit has passed all of it
		c.set(d)
		c.start()
		c.metric("lag_bytes", "", "0")
		c.stopped()
	}
	c.wantOthers(inTime)
	c.wantGaps(told)
	c.wantNoneRefused()
	if letters := c.letters(c.dir); len(letters) > 0 {
		t.Errorf("dead letters: %q", letters)
	}
}

// An agent that comes back after the limit has passed its position leaves out the rest of the file in hand, and what came after.
func TestResumeFarBehind(t *testing.T) {
	c := newClocked(t)
	c.write("audit.log", ago(time.Hour), ago(time.Minute))
	c.start()
	c.wantOthers([]string{ago(time.Hour), ago(time.Minute)})
	c.stopped()
	rest := ago(30 * time.Second)
	c.write("audit.log", rest)
	c.rename("audit.log", backup(0))
	c.write(backup(-day), ago(0))
	c.write(backup(-10*day), ago(-day)) // is read: nothing tells that nobody wrote to it after it was renamed
	c.write(backup(-15*day), ago(-10*day), ago(-14*day))
	c.write("audit.log", ago(-15*day))
	c.set(18 * day)
	c.start()
	c.wantOthers([]string{ago(time.Hour), ago(time.Minute), ago(-14 * day), ago(-15 * day)})
	c.wantGaps(c.oldText(fmt.Sprintf(`"last_event":%q,"first_event":%q,"oldest_event":%q,"newest_event":%q,"skipped_events":2,"skipped_files":2,"skipped_bytes":%d`,
		stamp(time.Minute), stamp(-14*day), stamp(-day), stamp(-10*day), len(rest)+len(ago(0))+2)))
	c.metric("old_files_total", "", "2")
	c.metric("gaps_total", "", "0")
	c.stopped()
	c.wantNoneRefused()
}

// As long as nothing newer is in the log, a stretch is told in the log only. A restart goes on with it.
func TestStretchWithoutAnEnd(t *testing.T) {
	c := newClocked(t)
	c.write("audit.log", ago(9*day), ago(8*day))
	for range 2 {
		c.start()
		c.metric("lag_bytes", "", "0")
		c.stopped()
		c.wantGaps()
		if log := c.stderr.String(); !strings.Contains(log, "the newest event in the audit log is older than Loki takes") && strings.Contains(log, "events are older") {
			t.Errorf("the log does not say how much is too old so far:\n%s", log)
		}
	}
	c.write("audit.log", ago(time.Hour))
	c.start()
	c.wantOthers([]string{ago(time.Hour)})
	c.wantGaps(c.oldText(fmt.Sprintf(`"first_event":%q,"oldest_event":%q,"newest_event":%q,"skipped_events":2`, stamp(time.Hour), stamp(9*day), stamp(8*day))))
	c.wantNoneRefused()
}

func TestOldEventsOfAnyAge(t *testing.T) {
	c := newClocked(t)
	c.loki.Answer(nil)
	c.write(backup(80*day), ago(90*day))
	c.write(backup(70*day), ago(80*day))
	c.write("audit.log", ago(70*day))
	c.start("--loki-reject-old=0")
	c.wantOthers([]string{ago(90 * day), ago(80 * day), ago(70 * day)})
	c.wantGaps()
}

// A gap that lies between events that are too old is told when one comes that is not: the entry has its time.
func TestGapBeforeOldEvents(t *testing.T) {
	c := newClocked(t)
	c.set(-2 * day)
	c.write("audit.log", ago(8*day))
	c.start()
	c.wantOthers([]string{ago(8 * day)})
	c.stopped()
	c.remove("audit.log")
	c.set(0)
	c.write("audit.log", ago(8*day-time.Hour), ago(day))
	c.start()
	c.wantOthers([]string{ago(8 * day), ago(day)})
	c.wantGaps(
		c.oldText(fmt.Sprintf(`"last_event":%q,"first_event":%q,"oldest_event":%q,"newest_event":%q,"skipped_events":1`,
			stamp(8*day), stamp(day), stamp(8*day-time.Hour), stamp(8*day-time.Hour))),
		fmt.Sprintf(`{"gap":"position_file_gone","node":"n1","path":%q,"last_event":%q,"first_event":%q}`, c.path("audit.log"), stamp(8*day), stamp(day)))
	c.wantNoneRefused()
}

func TestDryRunTellsWhatIsTooOld(t *testing.T) {
	c := newClocked(t)
	c.months()
	c.write("audit.log", ago(-time.Hour))
	for mode, want := range map[string]string{
		"skip":        "; 4 events too old: left out; 83 backups too old: not read, ",
		"dead-letter": "; 170 events too old: for the dead letters; 1 events in the future: for the dead letters",
		"restamp":     "; 170 events too old: restamped; 1 events in the future: restamped",
	} {
		var stdout, stderr strings.Builder
		if code := c.run(t.Context(), &stdout, &stderr, "--dry-run", "--old-events="+mode); code != exitOK {
			t.Fatalf("exit code %d: %s", code, stderr.String())
		}
		rows := strings.Split(strings.TrimSpace(stdout.String()), "\n")
		if last := rows[len(rows)-1]; !strings.Contains(last, "1 streams of "+c.path("audit.log")+want) {
			t.Errorf("%s: %q does not say %q", mode, last, want)
		}
		if entries := map[bool]string{true: " 174  ", false: " 3  "}[mode == "restamp"]; !strings.Contains(" "+rows[1], entries) {
			t.Errorf("%s: %q, want%sentries", mode, rows[1], entries)
		}
	}
}

// Whatever the moment of a SIGKILL, the stretch is told once, and no event is sent twice in different words.
func TestOldEventsThroughACrashAtEveryStage(t *testing.T) {
	for mode, counts := range map[string]string{"skip": "skipped_events", "dead-letter": "dead_letter_events", "restamp": "restamped_events"} {
		for _, later := range []time.Duration{0, 5 * time.Second, 9 * time.Minute} {
			t.Run(fmt.Sprintf("%s restarted %v later", mode, later), func(t *testing.T) {
				c := newClocked(t)
				torn := ago(8 * day)[:60]
				old := []string{ago(9 * day), ago(9*day - time.Second), torn, ago(8*day - time.Minute), "not JSON",
					ago(7*day - oldMargin + 1000), ago(7*day - oldMargin - 1000), ago(7*day - endMargin + 2000), ago(7*day - endMargin + 1000)}
				fine := []string{ago(7*day - endMargin), ago(7*day - endMargin - time.Second), ago(time.Hour), ago(time.Minute)}
				c.write("audit.log", old[0], old[1], torn+old[3], old[4], old[5], "", old[6], old[7], old[8])
				c.write("audit.log", fine...)
				state := c.throughCrashes(later, "--old-events="+mode)
				c.wantGaps(c.oldText(fmt.Sprintf(`"first_event":%q,"oldest_event":%q,"newest_event":%q,%q:9`,
					stamp(7*day-endMargin), stamp(9*day), stamp(7*day-endMargin+1000), counts)))
				if mode == "restamp" {
					fine = append(fine, old...)
				}
				c.wantOthers(fine)
				letters := 0
				if mode == "dead-letter" {
					letters = len(old)
				}
				if got := c.letters(state); len(got) != letters || letters > 0 && got[0] != "too_old "+old[0] {
					t.Errorf("dead letters: %q", got)
				}
			})
		}
	}
}

// The backups that are not read are told once as well.
func TestOldBackupsThroughACrashAtEveryStage(t *testing.T) {
	c := newClocked(t)
	inTime := c.months()
	c.throughCrashes(0, "--old-events=skip")
	c.wantOthers(inTime)
	if gaps, _ := c.gaps(); len(gaps) != 1 || !strings.Contains(gaps[0], `"skipped_files":83,`) {
		t.Errorf("gaps: %v", gaps)
	}
}

// What is old in the line that ends a stretch is a stretch of its own: positions are between lines.
func TestStretchThatEndsWithinALine(t *testing.T) {
	for mode, counts := range map[string]string{"skip": "skipped_events", "restamp": "restamped_events"} {
		t.Run(mode, func(t *testing.T) {
			c := newClocked(t)
			torn := ago(8 * day)[:60]
			c.write("audit.log", ago(9*day), torn+ago(2*day)+ago(10*day), ago(day), ago(time.Hour))
			c.throughCrashes(time.Second, "--old-events="+mode)
			sent := []string{ago(2 * day), ago(day), ago(time.Hour)}
			if mode == "restamp" {
				sent = append(sent, ago(9*day), torn, ago(10*day))
			}
			c.wantOthers(sent)
			c.wantGaps(
				c.oldText(fmt.Sprintf(`"first_event":%q,"oldest_event":%q,"newest_event":%q,%q:1`, stamp(2*day), stamp(9*day), stamp(9*day), counts)),
				c.oldText(fmt.Sprintf(`"last_event":%q,"first_event":%q,"oldest_event":%q,"newest_event":%q,%q:2`, stamp(9*day), stamp(day), stamp(10*day), stamp(9*day), counts)))
		})
	}
}

// An end that was kept and has become too old before Loki was told, or could say that it was, is none any more.
func TestStretchWhoseEndIsTooOldByNow(t *testing.T) {
	c := newClocked(t)
	c.write("audit.log", ago(9*day), ago(7*day-endMargin), ago(time.Hour))
	first := &crashes{c: c, state: t.TempDir()}
	c.before = func(lokitest.Request) { first.take("before a push") }
	c.stepper(first.state).toTheEnd(func() {})
	fresh := newClocked(t)
	fresh.dir, fresh.now = c.dir, c.now
	c.set(time.Hour)
	fresh.stepper(first.all[0].state).toTheEnd(func() {})
	fresh.wantOthers([]string{ago(time.Hour)})
	fresh.wantGaps(c.oldText(fmt.Sprintf(`"first_event":%q,"oldest_event":%q,"newest_event":%q,"skipped_events":2`,
		stamp(time.Hour), stamp(9*day), stamp(7*day-endMargin))))
	fresh.wantNoneRefused()
}
