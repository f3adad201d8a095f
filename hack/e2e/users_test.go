//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

const (
	manyUsers  = 100_000
	maxStreams = 1000 // --max-streams by default
)

// TestManyUsers ships 100,000 events, each of another user. The streams and the memory must stay within bounds, over a SIGKILL
// too, and each user must be found by its name: in the label, or in the structured metadata.
func TestManyUsers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	corpus, err := rig.FindCorpus()
	if err != nil {
		t.Fatal(err)
	}
	dir := workDir(t)
	auditLog := filepath.Join(subDir(t, dir, "audit"), "audit.log")
	count, size := writeLog(t, ctx, auditLog, otherUsers(corpus))
	found := &userFinder{names: map[string]bool{}}
	server, url := startEndpoint(t, lokitest.HashLines())
	server.Answer(found.look)
	agent := newAgent(t, dir, auditLog, url, "--loki-stream-rate=0", promptInFlight) // full speed
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	waitForEntries(t, ctx, agent, server, count/2)
	killAndRestart(t, agent)
	waitForEntries(t, ctx, agent, server, count)
	told, err := agent.Metric(ctx, "auditferry_streams")
	if err != nil {
		t.Error(err)
	}
	stopAgent(t, agent)

	streams, entries := len(server.Streams()), len(server.Entries())
	found.mu.Lock()
	defer found.mu.Unlock()
	fmt.Printf("many users: %d events, %.1f MB, %d users found, of them %d by label, %d streams (the agent says %v), peak memory of the agent %.1f MB\n",
		entries, float64(size)/1e6, len(found.names), found.byLabel, streams, told, float64(agent.PeakRSS())/1e6)
	if count != manyUsers || entries != count || len(found.names) != count || found.lost > 0 {
		t.Errorf("%d events written, %d there, %d users found, %d events without their user", count, entries, len(found.names), found.lost)
	}
	if streams > maxStreams || told != float64(streams) {
		t.Errorf("%d streams, the agent says %v; want at most %d", streams, told, maxStreams)
	}
	if peak := agent.PeakRSS(); peak > firstStartPeak {
		t.Errorf("peak memory %.1f MB, want at most %.0f MB", float64(peak)/1e6, firstStartPeak/1e6)
	}
}

// userKey is what stands before the name of the user in an event.
var userKey = []byte(`,"user":{"username":"`)

// otherUsers gives as many events as there are to be users, each of another one that no real event has.
func otherUsers(corpus rig.Corpus) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		n := 0
		for line, err := range corpus.Replay(time.Now(), slices.Repeat([]string{rig.MetadataLog}, 11)...) {
			before, rest, ok := bytes.Cut(line, userKey)
			name, after, _ := bytes.Cut(rest, []byte(`"`))
			if err == nil && (!ok || bytes.HasSuffix(name, []byte(`\`))) {
				continue // nobody, or a quote in the name
			}
			if !yield(fmt.Appendf(nil, `%s%suser-%06d@example.com"%s`, before, userKey, n, after), err) {
				return
			}
			if n++; n == manyUsers {
				return
			}
		}
	}
}

// userFinder looks for the users of the events that arrive.
type userFinder struct {
	mu      sync.Mutex
	names   map[string]bool // that were found
	byLabel int
	lost    int // events of a user who was not found
}

// look is a script of the endpoint, which takes everything.
func (f *userFinder) look(request lokitest.Request) lokitest.Reply {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range request.Entries {
		_, rest, _ := strings.Cut(e.Line, string(userKey))
		name, _, _ := strings.Cut(rest, `"`)
		switch {
		case e.Labels["user"] == name:
			if !f.names[name] {
				f.byLabel++
			}
		case slices.Contains(e.Metadata, lokitest.Field{Name: "username", Value: name}):
		default:
			f.lost++
			continue
		}
		f.names[name] = true
	}
	return lokitest.OK()
}
