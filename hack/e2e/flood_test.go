//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

const (
	floodFirst = 396 // requests of the flood that make all the streams that it can make: each kind twice
	floodAll   = 10_000
	flooders   = 4   // connections
	floodLong  = 500 // one of so many has a path whose event is longer than Loki takes
)

// TestAnonymousFlood has somebody without a name send 10,000 requests with random methods, paths and headers to a real
// kube-apiserver, after ordinary traffic. The first of them make the streams of the verbs that are known, and of other, on
// resources that are other. From then on not one more may come to be. Some of the requests make events that are longer than Loki,
// which is at its default limits, takes: they are there reduced, and Loki refuses nothing.
func TestAnonymousFlood(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	dir := workDir(t)
	loki := startLoki(t, ctx, &rig.Loki{Dir: subDir(t, dir, "loki"), ShardStreams: true, DefaultLimits: true})
	cluster := &rig.Cluster{Dir: subDir(t, dir, "cluster"), Users: users}
	agent := newAgent(t, dir, cluster.AuditLog(), loki.URL(), fmt.Sprintf("--max-line-size=%d", defaultMaxLine))
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	startCluster(t, ctx, cluster)

	load := &traffic{cluster: cluster}
	load.prepare(t, ctx)
	client := httpClient(t, cluster)
	for n := range 2 * len(small) {
		// What it is answered is its own affair.
		if _, err := load.send(ctx, client, small[n%len(small)](n%5)); err != nil {
			load.failed.Add(1)
		}
	}
	ordinary := streamsNow(t, ctx, agent, loki, begin)
	load.flood(t, ctx, 0, floodFirst)
	first := streamsNow(t, ctx, agent, loki, begin)
	load.flood(t, ctx, floodFirst, floodAll)
	last := streamsNow(t, ctx, agent, loki, begin)
	if err := cluster.Stop(); err != nil {
		t.Fatal(err)
	}

	for name, labels := range first {
		nobody := labels["user"] == "system:anonymous" || labels["user"] == "unauthenticated"
		folded := labels["resource"] == "other" || labels["resource"] == "nonresource"
		if ordinary[name] == nil && !(nobody && folded) {
			t.Errorf("the first requests of the flood have made the stream %.300s", name)
		}
	}
	news := 0
	for name := range last {
		if first[name] == nil {
			news++
			t.Errorf("the flood has made the stream %.300s", name)
		}
	}
	tally := rig.NewTally(&rig.Oracle{Node: node})
	tally.MaxLine = defaultMaxLine
	asked := map[string]bool{}
	auditLines(t, cluster.AuditLog(), func(file string, line []byte) {
		tally.Wrote(line)
		var event struct {
			Verb      string
			ObjectRef struct{ APIGroup, Resource, Subresource string }
		}
		if err := json.Unmarshal(line, &event); err != nil {
			t.Fatalf("%s holds a line that is not an event: %v", file, err)
		}
		asked[fmt.Sprintf("%q", event)] = true
	})
	if len(asked) < floodAll/3 {
		t.Errorf("only %d combinations of verb and resource were asked for: the flood was not varied enough", len(asked))
	}
	result := shipped(t, ctx, agent, loki, tally)
	fmt.Printf("anonymous flood: %s; %d requests, %d without an answer, %d combinations of verb and resource; streams: %d of ordinary traffic, %d after %d requests of the flood, %d after all; new %d\n",
		result, load.requests.Load(), load.failed.Load(), len(asked), len(ordinary), len(first), floodFirst, len(last), news)
	report(t, result)
	checkRefusals(t, ctx, agent, loki)
	if want := floodAll / floodLong; result.Reduced < want {
		t.Errorf("%d events are reduced, want at least %d", result.Reduced, want)
	}
	if load.failed.Load() > floodAll/100 {
		t.Errorf("%d requests got no answer: the flood did not get through", load.failed.Load())
	}
}

// flood sends the requests from one number to another, over a few connections.
func (l *traffic) flood(t *testing.T, ctx context.Context, from, to int) {
	t.Helper()
	var workers sync.WaitGroup
	for worker := range flooders {
		client := httpClient(t, l.cluster)
		workers.Go(func() {
			for n := from + worker; n < to && ctx.Err() == nil; n += flooders {
				if _, err := l.send(ctx, client, floodRequest(rand.New(rand.NewPCG(1, uint64(n))), n)); err != nil {
					l.failed.Add(1)
				}
			}
		})
	}
	workers.Wait()
}

// streamsNow gives the labels of the streams in Loki, by their text, once the agent has shipped all there is, but for those of
// what kube-apiserver asks itself.
func streamsNow(t *testing.T, ctx context.Context, agent *rig.Agent, loki *rig.Loki, begin time.Time) map[string]map[string]string {
	t.Helper()
	if err := reachZero(ctx, agent, func() (float64, error) { return agent.Metric(ctx, "auditferry_lag_bytes") }); err != nil {
		t.Fatal(err)
	}
	series, err := rig.Series(ctx, loki.URL(), rig.Selector, begin.Add(-time.Hour), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	streams := map[string]map[string]string{}
	for _, labels := range series {
		if labels["user"] != "system:apiserver" {
			streams[labelSet(labels)] = labels
		}
	}
	return streams
}

// floodRequest gives the request of one number. The kinds of method, path and token take turns, so that every combination is
// among the first floodFirst; all the rest is random.
func floodRequest(random *rand.Rand, n int) request {
	methods := []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", token(random)}
	paths := []func() string{
		func() string { return "/" + segments(random, 1+random.IntN(4)) },
		func() string { return "/api/v1/" + segment(random) },
		func() string { return "/api/v1/namespaces/" + segments(random, 2) },
		func() string { return "/api/v1/namespaces/" + segments(random, 3) },
		func() string { return "/api/v1/namespaces/" + segments(random, 4) },
		func() string { return "/apis/" + segments(random, 3) },
		func() string { return "/apis/" + segments(random, 3) + "?watch=1" },
		func() string { return "/apis/" + segments(random, 2) + "/namespaces/" + segments(random, 4) },
		func() string { return "/api/v1//" + segment(random) },
		func() string { return "/apis/" + segments(random, 2) + "///" + segment(random) }, // of no resource, without a name
		func() string { return "/api/v1///" + segment(random) + "?watch=1" },
	}
	tokens := []string{"", "not-" + token(random)}
	kinds := len(methods) * len(paths)
	r := request{method: methods[n%len(methods)], path: paths[n/len(methods)%len(paths)](), token: tokens[n/kinds%len(tokens)],
		header: map[string]string{"Audit-Id": headerValue(random), "User-Agent": headerValue(random)}}
	if n%floodLong == floodLong-1 {
		r.path += "?x=" + strings.Repeat("&", 100_000) // six bytes each, in the event
	}
	if random.IntN(8) == 0 {
		r.header["X-Forwarded-For"] = fmt.Sprintf("203.0.113.%d, %s", random.IntN(256), headerValue(random))
	}
	return r
}

// token gives a random method, which is letters and some signs (RFC 9110, section 5.6.2).
func token(random *rand.Rand) string {
	const signs = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~"
	text := make([]byte, 1+random.IntN(30))
	for i := range text {
		text[i] = signs[random.IntN(len(signs))]
	}
	return string(text)
}

// segment gives one random segment of a path: any bytes, two dots, or a name that Kubernetes could have.
func segment(random *rand.Rand) string {
	if random.IntN(20) == 0 {
		return "%2E%2E"
	}
	text := ""
	legal := random.IntN(2) == 0
	for range 1 + random.IntN(40) {
		if legal {
			text += string("abcdefghijklmnopqrstuvwxyz"[random.IntN(26)])
		} else {
			text += fmt.Sprintf("%%%02X", random.IntN(256))
		}
	}
	return text
}

func segments(random *rand.Rand, n int) string {
	path := segment(random)
	for range n - 1 {
		path += "/" + segment(random)
	}
	return path
}

// headerValue gives any bytes that a header may have.
func headerValue(random *rand.Rand) string {
	text := make([]byte, 1+random.IntN(200))
	for i := range text {
		for text[i] = byte(random.IntN(256)); text[i] < ' ' || text[i] == 0x7F; {
			text[i] = byte(random.IntN(256))
		}
	}
	return string(text)
}
