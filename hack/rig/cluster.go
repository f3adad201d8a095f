package rig

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"encoding/csv"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// auditPolicy: all four stages, the levels mixed by resource and namespace.
//
//go:embed policy.yaml
var auditPolicy []byte

// Admin may do everything; every Cluster knows it.
var Admin = User{Name: "admin", Token: "admin-token", Groups: []string{"system:masters"}}

// User is somebody whom the kube-apiserver knows by a bearer token. What it may do is RBAC's affair: nothing at first.
type User struct {
	Name, Token string
	Groups      []string
}

// Cluster is an etcd and a kube-apiserver on loopback: no nodes, no controllers. The apiserver writes the audit log through
// lumberjack with the smallest maxsize there is, 1 MB, compressed, and keeps every backup.
type Cluster struct {
	Dir    string // holds everything; kept
	Users  []User // beside Admin
	Policy []byte // audit policy; nil: the rig's own
	// APIServer is the command that runs kube-apiserver, to which its flags are added; nil: the binary in .cache/bin. In a
	// container it needs Dir at the same path and the network of this machine.
	APIServer []string
	// ServiceAccounts refuses a pod whose service account does not exist, as real clusters do. Nobody is there to make those that
	// pods have by default.
	ServiceAccounts bool

	etcd, apiserver *process
	etcdURL, url    string
	port            int
}

// AuditLog is the value of --audit-log-path. The file is alone in its directory with its backups.
func (c *Cluster) AuditLog() string { return filepath.Join(c.Dir, "audit", "audit.log") }

// URL is where the kube-apiserver listens, without a slash at the end. Valid after Start.
func (c *Cluster) URL() string { return c.url }

// CAFile is the certificate that the kube-apiserver serves with: it signed it itself.
func (c *Cluster) CAFile() string { return filepath.Join(c.Dir, "cert", "apiserver.crt") }

// HTTPClient gives a client that trusts the kube-apiserver. Each call gives connections of its own.
func (c *Cluster) HTTPClient() (*http.Client, error) {
	pemBytes, err := os.ReadFile(c.CAFile())
	if err != nil {
		return nil, fmt.Errorf("reading the certificate of kube-apiserver: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pemBytes) {
		return nil, fmt.Errorf("reading the certificate of kube-apiserver: %s holds none", c.CAFile())
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true,
	}}, nil
}

// Start runs etcd and kube-apiserver and waits until the latter is ready. If that fails, nothing is left running.
func (c *Cluster) Start(ctx context.Context) error {
	ports, err := FreePorts(3)
	if err != nil {
		return err
	}
	if err := c.writeFiles(); err != nil {
		return err
	}
	c.etcdURL, c.port = fmt.Sprintf("http://127.0.0.1:%d", ports[0]), ports[2]
	c.url = fmt.Sprintf("https://127.0.0.1:%d", c.port)
	if err := c.startEtcd(ctx, ports[1]); err != nil {
		return errors.Join(err, c.Stop())
	}
	return c.StartAPIServer(ctx)
}

func (c *Cluster) startEtcd(ctx context.Context, peer int) error {
	binary, err := Binary("etcd")
	if err != nil {
		return err
	}
	peerURL := fmt.Sprintf("http://127.0.0.1:%d", peer)
	err = c.run(&c.etcd, "etcd", binary,
		"--data-dir="+filepath.Join(c.Dir, "etcd"),
		"--listen-client-urls="+c.etcdURL, "--advertise-client-urls="+c.etcdURL,
		"--listen-peer-urls="+peerURL, "--initial-advertise-peer-urls="+peerURL, "--initial-cluster=default="+peerURL,
		"--unsafe-no-fsync", "--log-level=warn")
	if err != nil {
		return err
	}
	return c.etcd.waitReady(ctx, http.DefaultClient, c.etcdURL+"/health", "")
}

// StartAPIServer runs the kube-apiserver again after StopAPIServer, and waits until it is ready. If that fails, nothing is left
// running.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	if err := c.startAPIServer(ctx); err != nil {
		return errors.Join(err, c.Stop())
	}
	return nil
}

func (c *Cluster) startAPIServer(ctx context.Context) error {
	command := c.APIServer
	if command == nil {
		binary, err := Binary("kube-apiserver")
		if err != nil {
			return err
		}
		command = []string{binary}
	}
	command = append(slices.Clone(command),
		"--etcd-servers="+c.etcdURL,
		"--cert-dir="+filepath.Join(c.Dir, "cert"),
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", c.port),
		"--token-auth-file="+filepath.Join(c.Dir, "tokens.csv"),
		"--service-account-issuer=https://kubernetes.example",
		"--service-account-signing-key-file="+c.keyFile(), "--service-account-key-file="+c.keyFile(),
		"--service-cluster-ip-range=10.96.0.0/16",
		"--authorization-mode=RBAC",
		"--audit-policy-file="+filepath.Join(c.Dir, "policy.yaml"),
		"--audit-log-path="+c.AuditLog(),
		"--audit-log-maxsize=1", "--audit-log-maxbackup=0", "--audit-log-maxage=0", "--audit-log-compress")
	if !c.ServiceAccounts {
		command = append(command, "--disable-admission-plugins=ServiceAccount")
	}
	if err := c.run(&c.apiserver, "kube-apiserver", command...); err != nil {
		return err
	}
	if err := Poll(ctx, func() (bool, error) {
		_, err := os.Stat(c.CAFile())
		return err == nil, c.apiserver.stillRuns()
	}); err != nil {
		return fmt.Errorf("waiting for the certificate of kube-apiserver: %w", err)
	}
	api, err := c.HTTPClient()
	if err != nil {
		return err
	}
	return c.apiserver.waitReady(ctx, api, c.url+"/readyz", Admin.Token)
}

func (c *Cluster) run(p **process, name string, command ...string) (err error) {
	*p, err = startProcess(name, command, filepath.Join(c.Dir, name+".log"), nil)
	return err
}

func (c *Cluster) keyFile() string { return filepath.Join(c.Dir, "service-account.key") }

// writeFiles writes what the kube-apiserver reads at its start: the policy, the tokens and the key of service accounts.
func (c *Cluster) writeFiles() error {
	if err := os.MkdirAll(filepath.Dir(c.AuditLog()), 0o700); err != nil {
		return fmt.Errorf("preparing the cluster: %w", err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("preparing the cluster: %w", err)
	}
	var tokens strings.Builder
	table := csv.NewWriter(&tokens)
	for i, user := range append([]User{Admin}, c.Users...) {
		uid := fmt.Sprintf("uid-%d", i)
		if err := table.Write([]string{user.Token, user.Name, uid, strings.Join(user.Groups, ",")}); err != nil {
			return fmt.Errorf("preparing the cluster: %w", err)
		}
	}
	table.Flush()
	policy := c.Policy
	if policy == nil {
		policy = auditPolicy
	}
	for path, content := range map[string][]byte{
		filepath.Join(c.Dir, "policy.yaml"): policy,
		filepath.Join(c.Dir, "tokens.csv"):  []byte(tokens.String()),
		c.keyFile():                         pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return fmt.Errorf("preparing the cluster: %w", err)
		}
	}
	return nil
}

// StopAPIServer ends kube-apiserver by SIGTERM and waits for it: after it nothing is written to the audit log any more. It does nothing
// if it does not run.
func (c *Cluster) StopAPIServer() error { return stop(&c.apiserver) }

// Stop ends kube-apiserver and then etcd, by SIGTERM, and waits for them. It does nothing for what does not run.
func (c *Cluster) Stop() error { return errors.Join(stop(&c.apiserver), stop(&c.etcd)) }

func stop(p **process) error {
	if *p == nil {
		return nil
	}
	_, err := (*p).terminate(90 * time.Second)
	*p = nil
	return err
}
