package shipper

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	promconfig "github.com/prometheus/common/config"
)

// httpConfig reads what a user would write to the file of --loki-http-config; DIR in it is a directory.
func httpConfig(t *testing.T, text, dir string) promconfig.HTTPClientConfig {
	t.Helper()
	cfg, err := promconfig.LoadHTTPConfig(strings.ReplaceAll(text, "DIR", dir))
	if err != nil {
		t.Fatal(err)
	}
	return *cfg
}

// replaceFile puts a file in the place of another by a rename, as the mount of a Secret does.
func replaceFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// gateway is a front before the Loki of a rig, which passes on what check gives no status for.
func (r *rig) gateway(check func(*http.Request) int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if status := check(request); status != 0 {
			http.Error(w, "by the gateway", status)
			return
		}
		r.server.ServeHTTP(w, request)
	})
}

// serve starts a server, with TLS if a configuration for it is given.
func serve(t *testing.T, handler http.Handler, config *tls.Config) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	if config != nil {
		server.TLS = config
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return server
}

// before makes a rig whose client meets a gateway.
func before(t *testing.T, config string, dir string, check func(*http.Request) int, serverTLS *tls.Config) *rig {
	t.Helper()
	var r *rig
	front := serve(t, http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		r.gateway(check).ServeHTTP(w, request)
	}), serverTLS)
	r = newRig(t, func(c *Config) {
		c.URL, c.HTTP = front.URL, httpConfig(t, config, dir)
	})
	return r
}

func TestBasicAuthFromFiles(t *testing.T) {
	dir := t.TempDir()
	replaceFile(t, filepath.Join(dir, "user"), "12345\n")
	replaceFile(t, filepath.Join(dir, "password"), "one\n")
	password := "one"
	r := before(t, "basic_auth: {username_file: DIR/user, password_file: DIR/password}", dir, func(request *http.Request) int {
		if user, given, _ := request.BasicAuth(); user != "12345" || given != password {
			return http.StatusUnauthorized
		}
		return 0
	}, nil)
	r.send("a")
	password = "two"
	replaceFile(t, filepath.Join(dir, "password"), "two\n")
	r.send("b")
	if r.inLoki() != " a b " || r.metric("pushes_total", "204") != 2 {
		t.Errorf("in Loki:%s", r.inLoki())
	}
}

func TestExtraHeaders(t *testing.T) {
	dir := t.TempDir()
	replaceFile(t, filepath.Join(dir, "token"), "first\n")
	var seen http.Header
	r := before(t, "http_headers: {X-Scope-OrgID: {values: [blue]}, X-Key: {secrets: [secret]}, Cf-Access-Token: {files: [DIR/token]}}", dir,
		func(request *http.Request) int {
			seen = request.Header
			return 0
		}, nil)
	for _, token := range []string{"first", "second"} {
		replaceFile(t, filepath.Join(dir, "token"), token+"\n")
		r.send(token)
		if seen.Get("X-Scope-OrgID") != "blue" || seen.Get("X-Key") != "secret" || seen.Get("Cf-Access-Token") != token {
			t.Errorf("headers %v", seen)
		}
	}
	cfg := r.client.cfg
	cfg.TenantID, cfg.Registerer = "green", nil
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "--loki-tenant-id") {
		t.Errorf("a tenant that is given twice: %v", err)
	}
}

// A tokenServer gives OAuth2 tokens for client credentials. Its tokens are as good as expired: the library takes a token for
// that ten seconds before it is.
type tokenServer struct {
	mu     sync.Mutex
	secret string
	issued int
	silent bool
}

func (s *tokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	silent := s.silent
	s.mu.Unlock()
	if silent {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if id, secret, _ := r.BasicAuth(); id != "auditferry" || secret != s.secret || r.FormValue("grant_type") != "client_credentials" || r.FormValue("scope") != "logs:write" {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, "no\nsuch client")
		return
	}
	s.issued++
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"access_token":"token-%d","token_type":"Bearer","expires_in":5}`, s.issued)
}

// valid reports whether a request has the newest token.
func (s *tokenServer) valid(r *http.Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return r.Header.Get("Authorization") == fmt.Sprintf("Bearer token-%d", s.issued)
}

func (s *tokenServer) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// Tokens are got from the token server, over TLS with a CA of its own, and renewed before they expire; a changed secret is used.
func TestOAuth2(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t)
	replaceFile(t, filepath.Join(dir, "ca.pem"), ca.pem())
	replaceFile(t, filepath.Join(dir, "secret"), "one\n")
	tokens := &tokenServer{secret: "one"}
	server := serve(t, tokens, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, 1)}})
	r := before(t, "oauth2: {client_id: auditferry, client_secret_file: DIR/secret, scopes: [logs:write], token_url: "+server.URL+"/token, tls_config: {ca_file: DIR/ca.pem}}",
		dir, func(request *http.Request) int {
			if !tokens.valid(request) {
				return http.StatusUnauthorized
			}
			return 0
		}, nil)
	r.send("a")
	r.send("b")
	if tokens.issued != 2 || r.metric("pushes_total", "204") != 2 || len(r.pauses()) != 0 {
		t.Errorf("%d tokens for two pushes, each of which needs one; paused %v", tokens.issued, r.pauses())
	}
	tokens.set(func() { tokens.secret = "two" })
	pause := r.client.sleep
	r.client.sleep = func(ctx context.Context, d time.Duration) error {
		if len(r.pauses()) == troubleAfter {
			replaceFile(t, filepath.Join(dir, "secret"), "two\n")
		}
		return pause(ctx, d)
	}
	r.send("c")
	if r.inLoki() != " a b c " || len(r.pauses()) == 0 {
		t.Errorf("in Loki:%s after the pauses %v", r.inLoki(), r.pauses())
	}
	if r.log.count("no such client") != 1 || r.log.count("Loki takes pushes again") != 1 {
		t.Errorf("the log:\n%s", r.log.buf.String())
	}
}

// A token server that is silent holds pushes no longer than Loki could.
func TestASilentTokenServer(t *testing.T) {
	tokens := &tokenServer{secret: "one", silent: true}
	server := serve(t, tokens, nil)
	var r *rig
	front := serve(t, http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) { r.server.ServeHTTP(w, request) }), nil)
	r = newRig(t, func(c *Config) {
		c.URL, c.Timeout = front.URL, 50*time.Millisecond
		c.HTTP = httpConfig(t, "oauth2: {client_id: auditferry, client_secret: one, scopes: [logs:write], token_url: "+server.URL+"}", "")
	})
	pause := r.client.sleep
	r.client.sleep = func(ctx context.Context, d time.Duration) error {
		if len(r.pauses()) == troubleAfter {
			if r.client.State() == nil {
				t.Error("nobody is told")
			}
			tokens.set(func() { tokens.silent = false })
		}
		return pause(ctx, d)
	}
	r.send("a")
	if r.inLoki() != " a " {
		t.Errorf("in Loki:%s", r.inLoki())
	}
}

// Loki is asked for its certificate, and asks for ours. Both change, and so does the CA, without a restart.
func TestMutualTLS(t *testing.T) {
	dir := t.TempDir()
	first, second := newAuthority(t), newAuthority(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	var current atomic.Pointer[tls.Config]
	trust := func(ca *authority, serial int64) {
		current.Store(&tls.Config{Certificates: []tls.Certificate{ca.issue(t, serial)}, ClientCAs: ca.pool(), ClientAuth: tls.RequireAndVerifyClientCert})
	}
	hand := func(ca *authority, serial int64) {
		certificate, key := ca.issuePEM(t, serial)
		replaceFile(t, file("cert.pem"), certificate)
		replaceFile(t, file("key.pem"), key)
	}
	trust(first, 2)
	hand(first, 3)
	replaceFile(t, file("ca.pem"), first.pem())
	var presented atomic.Int64
	r := before(t, "tls_config: {ca_file: DIR/ca.pem, cert_file: DIR/cert.pem, key_file: DIR/key.pem}", dir, func(request *http.Request) int {
		presented.Store(request.TLS.PeerCertificates[0].SerialNumber.Int64())
		return 0
	}, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return current.Load(), nil }})
	r.send("a")
	hand(first, 4) // renewed, while a connection to Loki is open
	r.send("b")
	if presented.Load() != 4 {
		t.Errorf("certificate %d was presented, want the renewed one", presented.Load())
	}
	trust(second, 5)
	r.client.http.CloseIdleConnections()
	pause := r.client.sleep
	r.client.sleep = func(ctx context.Context, d time.Duration) error {
		if len(r.pauses()) == troubleAfter { // late
			replaceFile(t, file("ca.pem"), second.pem())
			hand(second, 6)
		}
		return pause(ctx, d)
	}
	r.send("c")
	if presented.Load() != 6 || r.inLoki() != " a b c " || r.log.count("x509") == 0 {
		t.Errorf("certificate %d was presented, in Loki:%s, the log:\n%s", presented.Load(), r.inLoki(), r.log.buf.String())
	}
}

// Pushes go through the proxy that is named: those over TLS in a tunnel.
func TestProxy(t *testing.T) {
	for _, over := range []string{"http", "https"} {
		t.Run(over, func(t *testing.T) {
			dir := t.TempDir()
			ca := newAuthority(t)
			replaceFile(t, filepath.Join(dir, "ca.pem"), ca.pem())
			var passed atomic.Int64
			proxy := serve(t, http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
				if request.Header.Get("Proxy-Authorization") != "Basic dTpw" { // u:p
					w.WriteHeader(http.StatusProxyAuthRequired)
					return
				}
				passed.Add(1)
				if request.Method == http.MethodConnect {
					tunnel(t, w, request.Host)
					return
				}
				request.RequestURI = ""
				response, err := http.DefaultTransport.RoundTrip(request)
				if err != nil {
					http.Error(w, err.Error(), http.StatusBadGateway)
					return
				}
				w.WriteHeader(response.StatusCode)
				_ = response.Body.Close()
			}), nil)
			var serverTLS *tls.Config
			if over == "https" {
				serverTLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(t, 1)}}
			}
			r := before(t, "proxy_url: "+strings.Replace(proxy.URL, "://", "://u:p@", 1)+"\ntls_config: {ca_file: DIR/ca.pem}", dir,
				func(*http.Request) int { return 0 }, serverTLS)
			r.send("a")
			if passed.Load() != 1 || r.inLoki() != " a " {
				t.Errorf("%d requests went through the proxy, in Loki:%s", passed.Load(), r.inLoki())
			}
		})
	}
}

// tunnel connects the client of w to an address.
func tunnel(t *testing.T, w http.ResponseWriter, address string) {
	there, err := net.Dial("tcp", address)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	here, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(func() { _ = here.Close(); _ = there.Close() })
	_, _ = io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() { _, _ = io.Copy(there, here) }()
	go func() { _, _ = io.Copy(here, there) }()
}

// A gateway that answers 413 without reading what it has refused, and closes the connection, is understood.
func TestA413BeforeTheBodyIsRead(t *testing.T) {
	r := before(t, "{}", "", func(request *http.Request) int {
		if request.ContentLength > 200_000 {
			return http.StatusRequestEntityTooLarge
		}
		return 0
	}, nil)
	var lines []string
	for range 64 {
		line := make([]byte, 12<<10)
		_, _ = rand.Read(line)
		lines = append(lines, string(line))
	}
	r.send(lines...)
	if len(r.server.Entries()) != len(lines) || r.metric("pushes_total", "413") == 0 {
		t.Errorf("%d entries in Loki", len(r.server.Entries()))
	}
}

// A start makes dozens of connections, which are not kept for long.
func TestIdleConnectionsAreClosed(t *testing.T) {
	c := newRig(t, nil).client
	if transport, ok := c.http.Transport.(*http.Transport); !ok || transport.IdleConnTimeout != idleConnection {
		t.Errorf("the transport is %+v", c.http.Transport)
	}
}
