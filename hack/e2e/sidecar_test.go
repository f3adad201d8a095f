//go:build e2e && linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/auditferry/auditferry/hack/rig"
)

// sidecarStops is how often the pod is stopped, as at an upgrade.
const sidecarStops = 3

// TestSidecar runs the pod of manifests/sidecar as two containers that share the audit log: the agent first, then kube-apiserver. It
// stops them as kubelet stops a pod with a native sidecar, kube-apiserver first and the agent at the moment at which that has ended.
// When the agent has ended, everything that was written must be in Loki: the last events too, which come of the shutdown itself.
func TestSidecar(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	needDocker(t, ctx)
	dir := workDir(t)
	loki := startLoki(t, ctx, &rig.Loki{Dir: subDir(t, dir, "loki"), ShardStreams: true})
	cluster := &rig.Cluster{Dir: subDir(t, dir, "cluster"), Users: users}
	apiserver := &box{name: uniqueName("apiserver")}
	cluster.APIServer = []string{"docker", "run", "--rm", "--name=" + apiserver.name, "--network=host",
		"--volume=" + cluster.Dir + ":" + cluster.Dir, serverImage(t, ctx, "kube-apiserver"),
		"--shutdown-watch-termination-grace-period=5s"} // without, it waits for its watches for 60 s
	audit := subDir(t, cluster.Dir, "audit")
	flags := append(readRights(t, ctx, sidecarPatch).dockerFlags(t), "--network=host",
		"--volume="+audit+":"+audit+":ro", "--volume="+subDir(t, dir, "state")+":/var/lib/auditferry", image,
		"--audit-log-path="+cluster.AuditLog(), "--loki-url="+loki.URL(), "--node="+node, "--max-line-size=0", "--listen-address=")

	for stop := range sidecarStops {
		agent := startBox(t, ctx, flags...) // kubelet starts no container of an old pod again
		if stop == 0 {
			startCluster(t, ctx, cluster)
		} else if err := cluster.StartAPIServer(ctx); err != nil {
			t.Fatal(err)
		}
		watch := underLoad(t, ctx, cluster)
		stopPod(t, ctx, cluster, apiserver, agent)
		<-watch

		tally := rig.NewTally(&rig.Oracle{Node: node})
		var last []byte
		files := auditLines(t, cluster.AuditLog(), func(_ string, line []byte) {
			tally.Wrote(line)
			last = slices.Clone(line)
		})
		result := look(t, ctx, loki, tally)
		fmt.Printf("sidecar: stop %d: %s, in %d files; the last event: %s\n", stop+1, result, files, inShort(t, last))
		report(t, result)
	}
}

// underLoad lets kube-apiserver work for a while, and leaves it with a watch that nothing but its own end ends. It gives what is
// closed then.
func underLoad(t *testing.T, ctx context.Context, cluster *rig.Cluster) <-chan struct{} {
	t.Helper()
	begun, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		watch(ctx, cluster, begun)
	}()
	if err := <-begun; err != nil {
		t.Fatalf("beginning a watch: %v", err)
	}
	client := httpClient(t, cluster)
	load := &traffic{cluster: cluster}
	for n := range 300 {
		if _, err := load.send(ctx, client, small[0](n)); err != nil {
			t.Fatal(err)
		}
	}
	return ended
}

// watch watches ConfigMaps until kube-apiserver ends it, in order or not.
func watch(ctx context.Context, cluster *rig.Cluster, begun chan<- error) {
	client, err := cluster.HTTPClient()
	if err != nil {
		begun <- err
		return
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, cluster.URL()+configMaps+"?watch=1&timeoutSeconds=3600", nil)
	if err != nil {
		begun <- err
		return
	}
	req.Header.Set("Authorization", "Bearer "+admin.Token)
	res, err := client.Do(req)
	if err != nil {
		begun <- err
		return
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		begun <- errors.New(res.Status)
		return
	}
	begun <- nil
	_, _ = io.Copy(io.Discard, res.Body)
}

// stopPod ends kube-apiserver by SIGTERM, and the agent as soon as it is gone, which must end with code 0.
func stopPod(t *testing.T, ctx context.Context, cluster *rig.Cluster, apiserver, agent *box) {
	t.Helper()
	server, sidecar := apiserver.pid(t, ctx), agent.pid(t, ctx)
	fd, err := unix.PidfdOpen(server, 0)
	if err != nil {
		t.Fatal(err)
	}
	handle := os.NewFile(uintptr(fd), "kube-apiserver")
	defer handle.Close()
	began := time.Now()
	stopped := make(chan error, 1)
	go func() { stopped <- cluster.StopAPIServer() }()
	// Readable at the end of the process. What Docker does afterwards would give the agent time.
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int((90 * time.Second).Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			t.Fatalf("kube-apiserver has not ended (%v)", err)
		}
		break
	}
	ended := time.Now()
	if err := unix.Kill(sidecar, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := agent.do(t, ctx, "wait"); code != "0" {
		t.Errorf("the agent has ended with code %s, want 0", code)
	}
	t.Logf("kube-apiserver took %s to end, the agent %s", ended.Sub(began).Round(time.Millisecond), time.Since(ended).Round(time.Millisecond))
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
}

// inShort says what an event is about.
func inShort(t *testing.T, line []byte) string {
	t.Helper()
	var e struct {
		Stage, Verb, RequestURI, StageTimestamp string
		User                                    struct{ Username string }
	}
	if err := json.Unmarshal(line, &e); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s of %s %s by %s at %s", e.Stage, e.Verb, e.RequestURI, e.User.Username, e.StageTimestamp)
}

// TestSidecarManifests lets kubeadm itself patch the static pod of kube-apiserver, and a real kube-apiserver take the result, and the
// example.
func TestSidecarManifests(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	dir := workDir(t)
	cluster := &rig.Cluster{Dir: subDir(t, dir, "cluster")}
	startCluster(t, ctx, cluster)
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile(filepath.Join(root, sidecarExample))
	if err != nil {
		t.Fatal(err)
	}
	for name, pod := range map[string][]byte{"kubeadm's": kubeadmPod(t, ctx, root, dir), "the example": example} {
		t.Run(name, func(t *testing.T) {
			judgeSidecar(t, pod)
			load := &traffic{cluster: cluster}
			status, err := load.send(ctx, httpClient(t, cluster), request{
				method: "POST", path: "/api/v1/namespaces/kube-system/pods?dryRun=All&fieldValidation=Strict", token: admin.Token, body: string(pod),
				header: map[string]string{"Content-Type": "application/yaml"},
			})
			if err != nil || status != http.StatusCreated {
				t.Errorf("kube-apiserver answers %d (%v) to\n%s", status, err, pod)
			}
		})
	}
}

// kubeadmPod gives the manifest that kubeadm makes of manifests/policy/kubeadm.yaml and manifests/sidecar/patches.
func kubeadmPod(t *testing.T, ctx context.Context, root, dir string) []byte {
	t.Helper()
	kubeadm, err := rig.Binary("kubeadm")
	if err != nil {
		t.Fatal(err)
	}
	auditing, err := os.ReadFile(filepath.Join(root, "manifests/policy/kubeadm.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	made, config := subDir(t, dir, "kubeadm"), filepath.Join(dir, "kubeadm.yaml")
	// kubeadm takes no --patches beside --config.
	patching := "\n---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\npatches:\n  directory: " + filepath.Join(root, filepath.Dir(sidecarPatch))
	if err := os.WriteFile(config, append(auditing, patching...), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, kubeadm, "init", "phase", "control-plane", "apiserver", "--dry-run", "--config="+config)
	cmd.Env = append(os.Environ(), "KUBEADM_INIT_DRYRUN_DIR="+made)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "Applied patch") {
		t.Fatalf("kubeadm: %v: %s", err, out)
	}
	pod, err := os.ReadFile(filepath.Join(made, "kube-apiserver.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// judgeSidecar looks for what would hold kube-apiserver up, or lose events.
func judgeSidecar(t *testing.T, manifest []byte) {
	t.Helper()
	type probe struct{ HTTPGet struct{ Host string } }
	type container struct {
		Name, RestartPolicy, ImagePullPolicy        string
		Args, Command                               []string
		StartupProbe, ReadinessProbe, LivenessProbe *probe
		VolumeMounts                                []struct {
			Name, MountPath string
			ReadOnly        bool
		}
	}
	var pod struct {
		Spec struct {
			InitContainers, Containers []container
			HostNetwork                bool
			Volumes                    []struct {
				Name     string
				HostPath *struct{ Path, Type string }
			}
		}
	}
	if err := json.Unmarshal(yamlObjects(t, manifest)[0], &pod); err != nil {
		t.Fatal(err)
	}
	if len(pod.Spec.InitContainers) != 1 || len(pod.Spec.Containers) != 1 || !pod.Spec.HostNetwork {
		t.Fatalf("%+v is not a kube-apiserver with a sidecar", pod.Spec)
	}
	agent, server := pod.Spec.InitContainers[0], pod.Spec.Containers[0]
	if agent.RestartPolicy != "Always" || agent.ImagePullPolicy != "IfNotPresent" || agent.StartupProbe != nil || agent.ReadinessProbe != nil ||
		agent.LivenessProbe == nil || agent.LivenessProbe.HTTPGet.Host != "127.0.0.1" {
		t.Errorf("the sidecar can hold kube-apiserver up: %+v", agent)
	}
	const logPath = "--audit-log-path=/var/log/kubernetes/audit/audit.log"
	if !slices.Contains(agent.Args, logPath) || !slices.Contains(server.Command, logPath) {
		t.Errorf("the paths of the audit log are not the same: %v, %v", agent.Args, server.Command)
	}
	paths := map[string]string{} // by name of the volume
	for _, v := range pod.Spec.Volumes {
		if v.HostPath == nil || v.HostPath.Type != "DirectoryOrCreate" {
			t.Errorf("the volume %s can be missing, or goes with the pod", v.Name)
			continue
		}
		paths[v.Name] = v.HostPath.Path
	}
	for _, m := range agent.VolumeMounts {
		if writable := paths[m.Name] == "/var/lib/auditferry-sidecar"; paths[m.Name] == "" || m.ReadOnly == writable {
			t.Errorf("the sidecar has %+v", m)
		}
	}
}
