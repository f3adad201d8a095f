//go:build e2e

package faults

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

func init() {
	register(
		scenario{side: "sink", name: "TLS certificate of the same CA changes", play: certificateChanges},
		scenario{side: "sink", name: "TLS certificate and CA change", play: authorityChanges},
		scenario{side: "sink", name: "bearer token changes", play: tokenChanges},
	)
}

// authority signs certificates for 127.0.0.1.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func (r *run) newAuthority(name string) *authority {
	r.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	r.must(err)
	certificate, err := x509.ParseCertificate(der)
	r.must(err)
	return &authority{certificate, key}
}

// issue signs a certificate for a server with a key of its own.
func (r *run) issue(a *authority, serial int64) *tls.Certificate {
	r.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "loki"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	r.must(err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw}))
}

// replaceFile puts a file in the place of another by a rename, as the mount of a Secret does.
func (r *run) replaceFile(path, text string) {
	r.Helper()
	r.must(os.WriteFile(path+".new", []byte(text), 0o600))
	r.must(os.Rename(path+".new", path))
}

// tlsFront is Loki behind TLS.
type tlsFront struct {
	*httptest.Server
	certificate atomic.Pointer[tls.Certificate] // for the connections to come
	accepted    atomic.Int64                    // connections whose handshake has begun
}

// behindTLS puts TLS before Loki, and has the agent trust the authorities in the file whose path it gives.
func (r *run) behindTLS(a *authority) (front *tlsFront, caFile string) {
	r.Helper()
	front = &tlsFront{Server: httptest.NewUnstartedServer(r.server)}
	front.certificate.Store(r.issue(a, 2))
	// Not GetCertificate, which is not asked by a client that names the server by its address.
	front.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		front.accepted.Add(1)
		return &tls.Config{Certificates: []tls.Certificate{*front.certificate.Load()}}, nil
	}}
	front.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that fail, as they must
	front.StartTLS()
	r.Cleanup(front.Close)
	r.agent.LokiURL = front.URL
	caFile = filepath.Join(r.dir, "ca.pem")
	r.replaceFile(caFile, a.pem())
	r.httpConfig("tls_config: {ca_file: " + caFile + "}\n")
	return front, caFile
}

// httpConfig gives the agent a --loki-http-config.
func (r *run) httpConfig(text string) {
	r.Helper()
	path := filepath.Join(r.dir, "http.yaml")
	r.replaceFile(path, text)
	r.scenario.flags = append(r.scenario.flags, "--loki-http-config="+path)
}

// certificateChanges renews the certificate of the server, which cuts its connections.
func certificateChanges(r *run) {
	a := r.newAuthority("ca")
	front, _ := r.behindTLS(a)
	w := r.rotating()
	r.start()
	for serial := range int64(4) {
		before := front.accepted.Load()
		r.write(w, 500)
		r.delivered(len(r.ledger.list()))
		if serial > 0 && front.accepted.Load() == before {
			r.Error("no connection was made with the new certificate")
		}
		front.certificate.Store(r.issue(a, 3+serial))
		front.CloseClientConnections()
	}
	r.write(w, 500)
}

// authorityChanges renews the CA too: first the server, then, late, the file that the agent was given.
func authorityChanges(r *run) {
	first, second := r.newAuthority("old ca"), r.newAuthority("new ca")
	front, caFile := r.behindTLS(first)
	w := r.rotating()
	r.start()
	r.write(w, 700)
	r.delivered(700)
	front.certificate.Store(r.issue(second, 2))
	front.CloseClientConnections()
	before := front.accepted.Load()
	r.write(w, 1500)
	r.eventually("the agent refuses the new certificate", func() bool {
		return front.accepted.Load() >= before+10 && r.logged("Loki does not take pushes", "reason=unavailable", "x509")
	})
	if n := len(r.server.Entries()); n != 700 {
		r.Errorf("%d entries were pushed to a server that nobody vouches for", n-700)
	}
	r.replaceFile(caFile, second.pem())
}

// tokenChanges revokes the agent's token; the file with the next one comes late.
func tokenChanges(r *run) {
	var valid atomic.Pointer[string]
	set := func(token string) { valid.Store(&token) }
	r.answer("push", func(request lokitest.Request) lokitest.Reply {
		if request.Header.Get("Authorization") != "Bearer "+*valid.Load() {
			r.happened("401")
			return lokitest.Refused(http.StatusUnauthorized, "no or bad token")
		}
		return lokitest.OK()
	})
	file := filepath.Join(r.dir, "token")
	r.replaceFile(file, "token-0\n")
	r.httpConfig(fmt.Sprintf("authorization: {credentials_file: %s}\n", file))
	set("token-0")
	w := r.rotating()
	r.start()
	for i := range 3 {
		r.write(w, 700)
		r.delivered(len(r.ledger.list()))
		token := fmt.Sprintf("token-%d", i+1)
		set(token)
		before := r.times("401")
		r.write(w, 700)
		r.eventually("pushes were answered 401", func() bool { return r.times("401") >= before+5 })
		r.saysAway()
		r.replaceFile(file, token+"\n")
	}
	if !r.logged("Loki does not take pushes", "reason=http_401") {
		r.Error("the agent did not log http_401")
	}
}
