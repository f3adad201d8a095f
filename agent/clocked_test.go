package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

// lokiNow is what time it is for the nodes of these tests, and for their Loki.
var lokiNow = eventsBegin

const day = 24 * time.Hour

// ago is an event so long before lokiNow. No two are alike.
func ago(d time.Duration) string {
	at := lokiNow.Add(-d).Format("2006-01-02T15:04:05.000000Z")
	return fmt.Sprintf(`{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"ago-%v","stage":"ResponseComplete",`+
		`"requestURI":"/api/v1/pods","verb":"list","user":{"username":"alice"},"objectRef":{"resource":"pods","apiVersion":"v1"},`+
		`"responseStatus":{"code":200},"requestReceivedTimestamp":%q,"stageTimestamp":%q}`, d, at, at)
}

// backup is the name of a backup that was rotated so long before lokiNow.
func backup(d time.Duration) string {
	return "audit-" + lokiNow.Add(-d).Format("2006-01-02T15-04-05.000") + ".log"
}

func stamp(d time.Duration) string { return lokiNow.Add(-d).Format(time.RFC3339Nano) }

// clocked is a node whose clock, and that of its Loki, is set by hand. Loki refuses what it would at its defaults.
type clocked struct {
	*node
	at      atomic.Int64
	mu      sync.Mutex
	refused []string
	before  func(lokitest.Request) // a push is answered
}

func newClocked(t *testing.T) *clocked {
	c := &clocked{node: newNode(t)}
	c.set(0)
	c.now = func() time.Time { return time.Unix(0, c.at.Load()) }
	c.listen = freeAddress(t)
	c.loki.Answer(c.answer)
	return c
}

// set makes it so long after lokiNow.
func (c *clocked) set(d time.Duration) { c.at.Store(lokiNow.Add(d).UnixNano()) }

func (c *clocked) answer(r lokitest.Request) lokitest.Reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.before != nil {
		c.before(r)
	}
	return lokitest.Refusing(r, func(e lokitest.Entry) string {
		reason := ""
		switch now := c.now(); {
		case e.Time.Before(now.Add(-7 * day)):
			reason = "has timestamp too old: " + e.Time.String()
		case e.Time.After(now.Add(10 * time.Minute)):
			reason = "has timestamp too new: " + e.Time.String()
		}
		if reason != "" {
			c.refused = append(c.refused, reason)
		}
		return reason
	})
}

func (c *clocked) wantNoneRefused() {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.refused) > 0 {
		c.t.Errorf("Loki refused %d entries: %v", len(c.refused), c.refused)
	}
}

func (c *clocked) metric(name, labels, value string) {
	c.t.Helper()
	c.waitMetric(fmt.Sprintf(`auditferry_%s{%spath=%q}`, name, labels, c.path("audit.log")), value)
}

// oldText is the line that tells of a stretch.
func (c *clocked) oldText(facts string) string {
	return fmt.Sprintf(`{"gap":"too_old","node":"n1","path":%q,%s}`, c.path("audit.log"), facts)
}

// letters gives the reasons and the events of the dead letters.
func (c *clocked) letters(dir string) (letters []string) {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "dead-letters.jsonl"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		c.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var letter struct{ Reason, Event string }
		if err := json.Unmarshal([]byte(line), &letter); err != nil {
			c.t.Fatal(err)
		}
		letters = append(letters, letter.Reason+" "+letter.Event)
	}
	return letters
}
