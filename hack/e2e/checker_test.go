//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/grafana/loki/pkg/push"

	"github.com/auditferry/auditferry/hack/rig"
)

// TestChecker pushes the sample to a real Loki by hand, one event of each kind of fault among it, and the whole a second
// time with Loki restarted in between: the tally must find the faults, and no other.
func TestChecker(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	corpus, err := rig.FindCorpus()
	if err != nil {
		t.Fatal(err)
	}
	loki := startLoki(t, ctx, &rig.Loki{Dir: subDir(t, workDir(t), "loki"), ShardStreams: true})
	oracle := &rig.Oracle{Node: node}
	tally := rig.NewTally(oracle)
	var entries []rig.Entry
	for line, err := range corpus.Replay(time.Now(), rig.SampleLog) {
		if err != nil {
			t.Fatal(err)
		}
		want, err := oracle.Want(line)
		if err != nil {
			t.Fatal(err)
		}
		tally.Wrote(line)
		entries = append(entries, rig.Entry{Time: want.Time, Line: slices.Clone(line), Labels: want.Labels, Metadata: want.Metadata})
	}
	const missing, altered, metadata, label, repeated = 10, 100, 200, 300, 400
	entries[altered].Line = bytes.Replace(entries[altered].Line, []byte(`"level":"`), []byte(`"level":"x`), 1)
	entries[metadata].Metadata["name"] = "another"
	entries[label].Labels["verb"] = "another"
	again := entries[repeated]
	again.Time = again.Time.Add(1) // to Loki it is another
	entries = append(slices.Delete(entries, missing, missing+1), again)

	pushAll(t, ctx, loki.URL(), entries)
	if err := loki.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := loki.Start(ctx); err != nil {
		t.Fatal(err)
	}
	pushAll(t, ctx, loki.URL(), entries)
	got := look(t, ctx, loki, tally)
	examples := strings.Join(got.Examples, "\n")
	got.Examples = nil
	want := rig.Result{Written: 673, InLoki: 673, Missing: 2, Repeated: 1, Altered: 1, WrongLabels: 2}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v\n%s", got, want, examples)
	}
	for _, part := range []string{": metadata name", ": label verb", "altered ", "repeated ", "missing "} {
		if !strings.Contains(examples, part) {
			t.Errorf("no example holds %q:\n%s", part, examples)
		}
	}
}

// pushAll pushes each entry in a request of its own stream's: the answer is the truth then (DESIGN section 7).
func pushAll(t *testing.T, ctx context.Context, lokiURL string, entries []rig.Entry) {
	t.Helper()
	streams := map[string]*push.Stream{}
	for _, e := range entries {
		labels := labelSet(e.Labels)
		if streams[labels] == nil {
			streams[labels] = &push.Stream{Labels: labels}
		}
		entry := push.Entry{Timestamp: e.Time, Line: string(e.Line)}
		for name, value := range e.Metadata {
			entry.StructuredMetadata = append(entry.StructuredMetadata, push.LabelAdapter{Name: name, Value: value})
		}
		slices.SortFunc(entry.StructuredMetadata, func(a, b push.LabelAdapter) int { return strings.Compare(a.Name, b.Name) })
		streams[labels].Entries = append(streams[labels].Entries, entry)
	}
	for _, stream := range streams {
		request := push.PushRequest{Streams: []push.Stream{*stream}}
		encoded, err := request.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		body := bytes.NewReader(snappy.Encode(nil, encoded))
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, lokiURL+"/loki/api/v1/push", body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-protobuf")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusNoContent {
			t.Fatalf("pushing to %.200s: %s %s (%v)", stream.Labels, res.Status, answer, err)
		}
	}
}

// labelSet gives labels as Loki parses them.
func labelSet(labels map[string]string) string {
	var pairs []string
	for name, value := range labels {
		pairs = append(pairs, fmt.Sprintf("%s=%q", name, value))
	}
	slices.Sort(pairs)
	return "{" + strings.Join(pairs, ", ") + "}"
}
