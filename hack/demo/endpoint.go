package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

// answerAfter is how long the endpoint inside this program takes to answer a push that it has stored, as a Loki across a
// network would.
const answerAfter = 150 * time.Millisecond

// endpoint is what the agent pushes to: a running Loki, or one inside this program.
type endpoint struct {
	url     string
	server  *lokitest.Server // nil if it is a running Loki
	arrived chan struct{}    // a push was stored and is about to be answered
}

// newEndpoint gives the running Loki at lokiURL, once it has answered a query, or if lokiURL is empty one of its own.
func newEndpoint(ctx context.Context, lokiURL string) (*endpoint, error) {
	if lokiURL != "" {
		if u, err := url.Parse(lokiURL); err != nil || u.Host == "" || strings.Trim(u.Path, "/") != "" {
			return nil, fmt.Errorf("%s is not the address of a Loki: give one like http://localhost:3100", lokiURL)
		}
		e := &endpoint{url: lokiURL}
		now := time.Now()
		_, err := e.entries(ctx, rig.Selector, now.Add(-time.Second), now)
		return e, err
	}
	e := &endpoint{server: lokitest.New(), arrived: make(chan struct{}, 1)}
	e.server.Answer(func(lokitest.Request) lokitest.Reply {
		select {
		case e.arrived <- struct{}{}:
		default:
		}
		answered := make(chan struct{})
		time.AfterFunc(answerAfter, func() { close(answered) })
		return lokitest.After(answered, lokitest.OK())
	})
	var err error
	e.url, err = e.server.Start()
	return e, err
}

func (e *endpoint) embedded() bool { return e.server != nil }

func (e *endpoint) close() {
	if e.embedded() {
		e.server.Close()
	}
}

func (e *endpoint) String() string {
	if e.embedded() {
		return "the Loki endpoint inside this program, " + e.url
	}
	return "Loki at " + e.url
}

// pushArrives waits for the next push to be stored, some time before it is answered. Of a running Loki that is not known.
func (e *endpoint) pushArrives(ctx context.Context) error {
	if !e.embedded() {
		return nil
	}
	select { // one that has arrived before
	case <-e.arrived:
	default:
	}
	select {
	case <-e.arrived:
	case <-ctx.Done():
		return ctx.Err()
	}
	timer := time.NewTimer(answerAfter / 3)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unanswered says in what the agent was interrupted, after pushArrives.
func (e *endpoint) unanswered() string {
	if e.embedded() {
		return " in the middle of a push that is stored but not answered"
	}
	return ""
}

// repeats says what became of what was pushed twice.
func (e *endpoint) repeats() string {
	if !e.embedded() {
		return "How much was sent again after the kill, a running Loki does not tell; it drops repeats: same stream, time, line and metadata."
	}
	again := e.server.Arrivals() - len(e.server.Entries())
	return fmt.Sprintf("%d entries were sent again after the kill; the endpoint dropped them as Loki does: same stream, time, line and metadata.", again)
}

// entries gives what a log query finds in [from, to).
func (e *endpoint) entries(ctx context.Context, query string, from, to time.Time) ([]rig.Entry, error) {
	var entries []rig.Entry
	if !e.embedded() {
		err := rig.ReadBack(ctx, e.url, query, from, to, func(entry rig.Entry) { entries = append(entries, entry) })
		return entries, err
	}
	for _, stored := range e.server.Entries() {
		entry := rig.Entry{Time: stored.Time, Line: []byte(stored.Line), Labels: stored.Labels, Metadata: map[string]string{}}
		for _, field := range stored.Metadata {
			entry.Metadata[field.Name] = field.Value
		}
		entries = append(entries, entry)
	}
	return entries, nil
}
