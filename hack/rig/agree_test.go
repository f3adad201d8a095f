package rig

import (
	"fmt"
	"testing"
	"time"

	"github.com/auditferry/auditferry/agent/audit"
)

// The oracle and the agent's own code, which know nothing of each other, say the same of the corpus, with room for all streams
// and with next to none.
func TestOracleAndAgentAgree(t *testing.T) {
	corpus, err := FindCorpus()
	if err != nil {
		t.Fatal(err)
	}
	for _, maxStreams := range []int{1000, audit.MinStreams} {
		cfg := audit.Config{Node: testNode}
		admissions, err := audit.NewAdmissions(cfg, maxStreams, "")
		if err != nil {
			t.Fatal(err)
		}
		describer, err := audit.NewDescriber(cfg, admissions, "")
		if err != nil {
			t.Fatal(err)
		}
		oracle := &Oracle{Node: testNode, MaxStreams: maxStreams}
		at, wrong := int64(0), 0
		for line, err := range corpus.Replay(time.Now(), SampleLog, MetadataLog) {
			if err != nil {
				t.Fatal(err)
			}
			want, err := oracle.Want(line)
			if err != nil {
				t.Fatal(err)
			}
			got := describer.Entry(line, time.Time{}, at)
			at += int64(len(line)) + 1
			metadata := map[string]string{}
			for _, f := range got.Metadata {
				metadata[f.Name] = string(f.Value)
			}
			labels := Labels{got.Verb, got.User, got.Resource}
			if fmt.Sprint(metadata) != fmt.Sprint(want.Metadata) || labels != (Labels{want.Labels["verb"], want.Labels["user"], want.Labels["resource"]}) {
				if wrong++; wrong < 4 {
					t.Errorf("%v %v\nwant %v %v", labels, metadata, want.Labels, want.Metadata)
				}
			}
		}
		streams, _ := admissions.Streams()
		t.Logf("%d bytes, %d streams of %d, %d wrong", at, streams, maxStreams, wrong)
	}
}
