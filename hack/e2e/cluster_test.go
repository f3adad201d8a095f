//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

const clusterKills = 3

// TestCluster lets the agent follow the audit log of a real kube-apiserver from its first line, under varied requests for 60 s
// (AUDITFERRY_E2E_TRAFFIC, a duration, changes that), kills it three times, and reads back every line of every file.
func TestCluster(t *testing.T) {
	traffic := trafficDuration(t)
	ctx, cancel := context.WithTimeout(t.Context(), traffic+8*time.Minute)
	defer cancel()
	dir := workDir(t)
	loki := startLoki(t, ctx, &rig.Loki{Dir: subDir(t, dir, "loki"), ShardStreams: true})
	cluster := &rig.Cluster{Dir: subDir(t, dir, "cluster"), Users: users}
	agent := startAgent(t, dir, cluster.AuditLog(), loki.URL())
	startCluster(t, ctx, cluster)

	load := startTraffic(t, ctx, cluster)
	began := time.Now()
	for kill := range clusterKills {
		due := began.Add(traffic * time.Duration(kill+1) / (clusterKills + 1))
		if err := rig.Poll(ctx, func() (bool, error) { return time.Now().After(due), agent.Running() }); err != nil {
			t.Fatal(err)
		}
		killAndRestart(t, agent)
	}
	if err := rig.Poll(ctx, func() (bool, error) { return time.Since(began) > traffic, agent.Running() }); err != nil {
		t.Fatal(err)
	}
	load.stop(t)
	checkResources(t, ctx, cluster)
	if err := cluster.Stop(); err != nil {
		t.Fatal(err)
	}

	tally := rig.NewTally(&rig.Oracle{Node: node})
	wroteFiles(t, cluster.AuditLog(), tally)
	result := shipped(t, ctx, agent, loki, tally)
	fmt.Printf("cluster: %s, kills %d, requests %d\n", result, clusterKills, load.requests.Load())
	report(t, result)
}

// startCluster starts a cluster that ends with the test.
func startCluster(t *testing.T, ctx context.Context, cluster *rig.Cluster) {
	t.Helper()
	start := time.Now()
	if err := cluster.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("kube-apiserver is ready after %s", time.Since(start).Round(time.Millisecond))
}

func trafficDuration(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("AUDITFERRY_E2E_TRAFFIC")
	if text == "" {
		return time.Minute
	}
	duration, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("AUDITFERRY_E2E_TRAFFIC: %v", err)
	}
	return duration
}

// wroteFiles tells the tally every line of the audit log and its backups, and checks that the traffic was as varied as it
// means to be.
func wroteFiles(t *testing.T, auditLog string, tally *rig.Tally) {
	t.Helper()
	seen := map[string]int{}
	files := auditLines(t, auditLog, func(file string, line []byte) {
		tally.Wrote(line)
		var event struct {
			Level, Stage, Verb string
			User               struct{ Username string }
			ResponseStatus     struct{ Code int }
		}
		if err := json.Unmarshal(line, &event); err != nil {
			t.Fatalf("%s holds a line that is not an event: %v", file, err)
		}
		for _, what := range []string{"level " + event.Level, "stage " + event.Stage, "verb " + event.Verb,
			"user " + event.User.Username, "code " + strconv.Itoa(event.ResponseStatus.Code)} {
			seen[what]++
		}
		if len(line) > 400<<10 {
			seen["long line"]++
		}
	})
	if files < 4 {
		t.Errorf("%d files: the log was rotated too little", files)
	}
	want := []string{"level Metadata", "level Request", "level RequestResponse", "stage RequestReceived", "stage ResponseStarted",
		"stage ResponseComplete", "verb watch", "verb patch", "verb deletecollection", "verb brew", "code 200", "code 201",
		"code 401", "code 403", "code 404", "code 409", "long line", "user ", "user system:anonymous"}
	for _, user := range users {
		want = append(want, "user "+user.Name)
	}
	for _, what := range want {
		if seen[what] == 0 {
			t.Errorf("no event with %.80q: the traffic was not varied enough", what)
		}
	}
	t.Logf("%d files; codes: 200 %d, 201 %d, 400 %d, 401 %d, 403 %d, 404 %d, 409 %d; long lines %d", files, seen["code 200"],
		seen["code 201"], seen["code 400"], seen["code 401"], seen["code 403"], seen["code 404"], seen["code 409"], seen["long line"])
}

// auditLines calls each for every line of the audit log and its backups, oldest first, and gives how many files they are.
func auditLines(t *testing.T, auditLog string, each func(file string, line []byte)) int {
	t.Helper()
	files, err := rig.AuditFiles(auditLog)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		for line, err := range rig.FileLines(file) {
			if err != nil {
				t.Fatal(err)
			}
			each(file, line)
		}
	}
	return len(files)
}

// checkResources compares what the kube-apiserver serves with the oracle's list of what it has by itself. The widgets are
// ours.
func checkResources(t *testing.T, ctx context.Context, cluster *rig.Cluster) {
	t.Helper()
	served, err := cluster.Served(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(served) < 100 {
		t.Errorf("kube-apiserver serves %d resources only", len(served))
	}
	for _, resource := range served {
		if !rig.BuiltIn(resource) && resource.Group != widgetGroup {
			t.Errorf("hack/rig/resources.txt does not hold %+v", resource)
		}
	}
}
