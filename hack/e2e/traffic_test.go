//go:build e2e

package e2e

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

// traffic is the load on a cluster: workers that send requests until they are stopped. What the requests are answered is
// their affair; that they get an answer is checked.
type traffic struct {
	cluster  *rig.Cluster
	cancel   context.CancelFunc
	workers  sync.WaitGroup
	requests atomic.Int64 // answered ones
	failed   atomic.Int64 // without an answer
	kubectls atomic.Int64
}

// startTraffic prepares the cluster and starts the workers.
func startTraffic(t *testing.T, ctx context.Context, cluster *rig.Cluster) *traffic {
	t.Helper()
	kubectl, err := rig.Binary("kubectl")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	load := &traffic{cluster: cluster, cancel: cancel}
	t.Cleanup(func() {
		cancel()
		load.workers.Wait()
	})
	load.prepare(t, ctx)
	const (
		workers = 5
		pace    = 20 * time.Millisecond
		bigPace = 400 * time.Millisecond
	)
	for i := range workers {
		load.work(ctx, httpClient(t, cluster), pace, func(n int) request { return small[(n*workers+i)%len(small)](rand.N(40)) })
	}
	load.work(ctx, httpClient(t, cluster), bigPace, func(n int) request { return big[n%len(big)](n / len(big) % 4) })
	load.work(ctx, httpClient(t, cluster), pace, func(n int) request { return watches[n%len(watches)] })
	home := subDir(t, cluster.Dir, "kubectl")
	load.workers.Go(func() { load.runKubectl(ctx, kubectl, home) })
	return load
}

// prepare makes what the requests are about.
func (l *traffic) prepare(t *testing.T, ctx context.Context) {
	t.Helper()
	client := httpClient(t, l.cluster)
	for _, r := range setup {
		if status, err := l.send(ctx, client, r); err != nil || status/100 != 2 {
			t.Fatalf("preparing the cluster: %s %s: %d (%v)", r.method, r.path, status, err)
		}
	}
}

// stop ends the workers and waits for them.
func (l *traffic) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	l.workers.Wait()
	t.Logf("%d requests answered, %d not, %d runs of kubectl", l.requests.Load(), l.failed.Load(), l.kubectls.Load())
	if l.requests.Load() < 100 || l.failed.Load() > l.requests.Load()/10 || l.kubectls.Load() == 0 {
		t.Errorf("the traffic did not get through")
	}
}

func httpClient(t *testing.T, cluster *rig.Cluster) *http.Client {
	t.Helper()
	client, err := cluster.HTTPClient()
	if err != nil {
		t.Fatal(err)
	}
	client.Timeout = 30 * time.Second
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// work sends the request that next gives for 0, 1, 2… at every tick until ctx ends.
func (l *traffic) work(ctx context.Context, client *http.Client, pace time.Duration, next func(int) request) {
	l.workers.Go(func() {
		ticker := time.NewTicker(pace)
		defer ticker.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if _, err := l.send(ctx, client, next(n)); err != nil && ctx.Err() == nil {
				l.failed.Add(1)
			}
		}
	})
}

// to makes the request for a kube-apiserver.
func (r *request) to(ctx context.Context, url string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, url+r.path, strings.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	if r.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	return req, nil
}

// send sends one request, reads its answer to the end, and gives its status.
func (l *traffic) send(ctx context.Context, client *http.Client, r request) (int, error) {
	req, err := r.to(ctx, l.cluster.URL())
	if err != nil {
		return 0, err
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	l.requests.Add(1)
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

// runKubectl goes through the commands until ctx ends. Most of them are meant to fail.
func (l *traffic) runKubectl(ctx context.Context, kubectl, home string) {
	manifest := filepath.Join(home, "manifest.json")
	if err := os.WriteFile(manifest, []byte(kubectlManifest), 0o600); err != nil {
		l.failed.Add(1)
		return
	}
	for n := 0; ctx.Err() == nil; n++ {
		command := commands[n%len(commands)]
		args := append([]string{
			"--server=" + l.cluster.URL(), "--certificate-authority=" + l.cluster.CAFile(),
			"--token=" + command.token, "--cache-dir=" + filepath.Join(home, "cache"), "--request-timeout=5s",
		}, strings.Fields(strings.ReplaceAll(command.line, "MANIFEST", manifest))...)
		cmd := exec.CommandContext(ctx, kubectl, args...)
		cmd.Env = []string{"HOME=" + home}
		if out, err := cmd.CombinedOutput(); err != nil && ctx.Err() == nil && strings.HasPrefix(string(out), "Unable to connect") {
			l.failed.Add(1)
		}
		l.kubectls.Add(1)
	}
}
