//go:build e2e && linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

const (
	imageTraffic = 30 * time.Second
	imageKills   = 4
)

// TestImage lets a container with the rights and limits of the DaemonSet follow the audit log of a real kube-apiserver, in a 0700
// directory of root, and ship it to a Loki that it finds by name in its network. It is killed under load and started again.
func TestImage(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), imageTraffic+8*time.Minute)
	defer cancel()
	needDocker(t, ctx)
	dir := workDir(t)
	network := startNetwork(t, ctx)
	loki, lokiURL := startLokiBox(t, ctx, dir, network)
	cluster := &rig.Cluster{Dir: subDir(t, dir, "cluster"), Users: users}
	startCluster(t, ctx, cluster)
	audit := filepath.Dir(cluster.AuditLog())
	mustBeRoots(t, cluster.AuditLog())

	given := readRights(t, ctx, kubeadmOverlay)
	agent := startBox(t, ctx, append(given.dockerFlags(t), "--network="+network,
		"--volume="+audit+":"+audit+":ro", "--volume="+subDir(t, dir, "state")+":/var/lib/auditferry",
		image, "--audit-log-path="+cluster.AuditLog(), "--loki-url="+lokiURL, "--node="+node, "--max-line-size=0")...)
	mustBeConfined(t, agent.pid(t, ctx))

	load := startTraffic(t, ctx, cluster)
	began := time.Now()
	for kill := range imageKills {
		due := began.Add(imageTraffic * time.Duration(kill+1) / (imageKills + 1))
		if err := rig.Poll(ctx, func() (bool, error) { return time.Now().After(due), nil }); err != nil {
			t.Fatal(err)
		}
		agent.killAndRestart(t, ctx)
	}
	if err := rig.Poll(ctx, func() (bool, error) { return time.Since(began) > imageTraffic, nil }); err != nil {
		t.Fatal(err)
	}
	load.stop(t)
	if err := cluster.Stop(); err != nil {
		t.Fatal(err)
	}

	tally := rig.NewTally(&rig.Oracle{Node: node})
	wroteFiles(t, cluster.AuditLog(), tally)
	if err := rig.Poll(ctx, func() (bool, error) { return look(t, ctx, loki, tally).Missing == 0, nil }); err != nil {
		t.Errorf("waiting until all is in Loki: %v", err)
	}
	peak := rig.PeakRSS(agent.pid(t, ctx))
	agent.stop(t, ctx, 20*time.Second)
	result := look(t, ctx, loki, tally)
	fmt.Printf("image: %s, kills %d, requests %d, memory %.1f MB of %s\n", result, imageKills, load.requests.Load(), float64(peak)/1e6, given.Memory)
	report(t, result)
}

// startNetwork makes a network of Docker's that is gone when the test ends.
func startNetwork(t *testing.T, ctx context.Context) string {
	t.Helper()
	name := uniqueName("net")
	if _, err := docker(ctx, "network", "create", name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if _, err := docker(ctx, "network", "rm", name); err != nil {
			t.Error(err)
		}
	})
	return name
}

// startLokiBox gives a real Loki in a container of a network, and its URL there.
func startLokiBox(t *testing.T, ctx context.Context, dir, network string) (loki *rig.Loki, url string) {
	t.Helper()
	name, data, program := uniqueName("loki"), subDir(t, dir, "loki"), serverImage(t, ctx, "loki")
	loki = startLoki(t, ctx, &rig.Loki{Dir: data, ShardStreams: true, Container: func(port int) []string {
		url = fmt.Sprintf("http://%s:%d", name, port)
		return []string{"docker", "run", "--rm", "--name=" + name, "--network=" + network,
			fmt.Sprintf("--publish=127.0.0.1:%d:%d", port, port), "--volume=" + data + ":" + data, program}
	}})
	return loki, url
}

// mustBeRoots wants the audit log as it is on a control-plane node: of root, and nobody else's business.
func mustBeRoots(t *testing.T, auditLog string) {
	t.Helper()
	for path, want := range map[string]os.FileMode{auditLog: 0o600, filepath.Dir(auditLog): 0o700 | os.ModeDir} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Fatalf("%s has the mode %v, want %v (%v)", path, info.Mode(), want, err)
		}
	}
}

// mustBeConfined looks at what the kernel says of a process: no capability of any kind, none to be gained, a seccomp filter.
func mustBeConfined(t *testing.T, pid int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	const none = "0000000000000000"
	want := map[string]string{"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none, "NoNewPrivs": "1", "Seccomp": "2"}
	got := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if _, asked := want[name]; asked {
			got[name] = strings.TrimSpace(value)
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("the kernel gives the agent %v, want %v", got, want)
	}
}

// allowed is what comes of what hack/e2e/probe tries with the rights of the agent.
var allowed = map[string]string{
	"read the audit log": "done",
	"write the state":    "done",

	"create beside the audit log":           "EROFS",
	"append to the audit log":               "EROFS",
	"truncate the audit log":                "EROFS",
	"rename the audit log":                  "EROFS",
	"unlink the audit log":                  "EROFS",
	"chmod the audit log":                   "EROFS",
	"chown the audit log":                   "EROFS",
	"date back the audit log":               "EROFS",
	"make a directory beside the audit log": "EROFS",
	"link the audit log into the state":     "EXDEV",
	"remount the audit log writable":        "EPERM",
	"unmount the audit log":                 "EPERM",

	"write to /etc":          "EROFS",
	"write over the program": "EROFS",

	"read a file of the host":                                "ENOENT",
	"read another user's file":                               "EACCES",
	"open the root of the audit log's file system by handle": "EPERM",
	"make a device":                                          "EPERM",
	"give a file away":                                       "EPERM",
	"become another user":                                    "EPERM",
	"become root of a new user namespace":                    "EPERM",
	"open a raw socket":                                      "EPERM",
}

// TestImageConfined runs a program with the rights and the mounts of the agent in its place, which tries to write to the audit log, to
// read elsewhere, and to get out.
func TestImageConfined(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	needDocker(t, ctx)
	given := readRights(t, ctx, kubeadmOverlay)
	if got := probe(t, ctx, given); !maps.Equal(got, allowed) {
		for _, what := range slices.Sorted(maps.Keys(allowed)) {
			if got[what] != allowed[what] {
				t.Errorf("%s: %s, want %s", what, got[what], allowed[what])
			}
		}
		t.Errorf("got %v", got)
	}
	// What the capability would give away that is often given to agents like this one; and that the probe would see it.
	given.Add = []string{"DAC_READ_SEARCH"}
	got := probe(t, ctx, given)
	if got["read another user's file"] != "done" {
		t.Errorf("with CAP_DAC_READ_SEARCH, another user's file: %s; the probe sees nothing", got["read another user's file"])
	}
	t.Logf("with CAP_DAC_READ_SEARCH, the root of the audit log's file system by its handle: %s",
		got["open the root of the audit log's file system by handle"])
}

// probe gives what came of the attempts of hack/e2e/probe in a container.
func probe(t *testing.T, ctx context.Context, given rights) map[string]string {
	t.Helper()
	program, err := rig.Binary("probe")
	if err != nil {
		t.Fatal(err)
	}
	dir := workDir(t)
	audit, state, elsewhere := subDir(t, dir, "audit"), subDir(t, dir, "state"), subDir(t, dir, "elsewhere")
	foreign, host := filepath.Join(elsewhere, "foreign"), filepath.Join(dir, "host")
	for _, path := range []string{filepath.Join(audit, "audit.log"), foreign, host} {
		if err := os.WriteFile(path, []byte("something\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(foreign, 4711, 4711); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"run", "--rm"}, given.dockerFlags(t)...)
	args = append(args, "--network=none", "--entrypoint=/probe", "--volume="+program+":/probe:ro",
		"--volume="+audit+":"+audit+":ro", "--volume="+state+":/var/lib/auditferry", "--volume="+elsewhere+":"+elsewhere+":ro",
		image, audit, "/var/lib/auditferry", foreign, host)
	out, err := docker(ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	var results map[string]string
	if err := json.Unmarshal([]byte(out), &results); err != nil {
		t.Fatalf("reading what the probe says: %v: %s", err, out)
	}
	return results
}
