package shipper

import (
	"bytes"
	"context"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/auditferry/auditferry/shipper/lokitest"
	promconfig "github.com/prometheus/common/config"
)

func TestPushURL(t *testing.T) {
	for _, row := range []struct{ given, want, err string }{
		{given: "http://loki:3100", want: "http://loki:3100/loki/api/v1/push"},
		{given: "http://loki:3100/", want: "http://loki:3100/loki/api/v1/push"},
		{given: "https://gw/loki-proxy", want: "https://gw/loki-proxy/loki/api/v1/push"},
		{given: "https://gw/loki-proxy/", want: "https://gw/loki-proxy/loki/api/v1/push"},
		{given: "https://gw/loki/api/v1/push", want: "https://gw/loki/api/v1/push"},
		{given: "https://gw/insert/loki/api/v1/push?x=y#z", want: "https://gw/insert/loki/api/v1/push?x=y"},
		{given: "http://[::1]:3100", want: "http://[::1]:3100/loki/api/v1/push"},
		{given: "", err: "--loki-url is missing"},
		{given: "loki:3100", err: "does not begin with http"},
		{given: "loki", err: "does not begin with http"},
		{given: "ftp://loki", err: "does not begin with http"},
		{given: "http://", err: "names no host"},
		{given: "http://:3100", err: "names no host"},
		{given: "http://user:secret@loki:port", err: "is not a URL"},
		{given: "ftp://user:secret@loki", err: "does not begin"},
	} {
		u, err := PushURL(row.given)
		switch {
		case row.err != "":
			if err == nil || !strings.Contains(err.Error(), row.err) || !strings.Contains(err.Error(), "--loki-url") || strings.Contains(err.Error(), "secret") {
				t.Errorf("%q: %v", row.given, err)
			}
		case err != nil || u.String() != row.want:
			t.Errorf("%q: %v, %v", row.given, u, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, row := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no dead-letter file":               {func(c *Config) { c.DeadLetterFile = "" }, "--dead-letter-file is missing"},
		"its directory is missing":          {func(c *Config) { c.DeadLetterFile = filepath.Join(dir, "no", "file") }, "its directory must exist"},
		"it is a directory":                 {func(c *Config) { c.DeadLetterFile = dir }, "is not a regular file"},
		"the back-off shrinks":              {func(c *Config) { c.BackoffMin = time.Hour }, "back-off"},
		"no push may be in flight":          {func(c *Config) { c.InFlight = -1 }, "in flight"},
		"two kinds of authorization":        {func(c *Config) { c.HTTP.BearerToken, c.HTTP.BasicAuth = "x", &promconfig.BasicAuth{} }, "at most one of"},
		"a certificate that cannot be read": {func(c *Config) { c.HTTP.TLSConfig.CAFile = filepath.Join(dir, "ca.pem") }, "ca.pem"},
	} {
		cfg := Config{URL: "http://loki", DeadLetterFile: filepath.Join(dir, "dead-letter.jsonl")}
		row.change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHeaders(t *testing.T) {
	r := newRig(t, func(c *Config) { c.TenantID, c.UserAgent = "blue", "auditferry/1.2.3" })
	var seen lokitest.Request
	r.server.Answer(func(request lokitest.Request) lokitest.Reply {
		seen = request
		return lokitest.OK()
	})
	r.send("a")
	if seen.Tenant != "blue" || seen.Header.Get("User-Agent") != "auditferry/1.2.3" ||
		seen.Header.Get("Content-Type") != "application/x-protobuf" || seen.Packed <= 0 || seen.Header.Get("Content-Encoding") != "" {
		t.Errorf("%+v", seen)
	}
}

// TLS and a bearer token from files, through the library: the token is read again when it changes. Until it is there, and
// as long as it is the wrong one, the push is tried again.
func TestTLSAndBearerToken(t *testing.T) {
	loki := lokitest.New()
	tls := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer second" {
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		loki.ServeHTTP(w, r)
	}))
	defer tls.Close()
	dir := t.TempDir()
	ca, token := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "token")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tls.Certificate().Raw})
	if err := os.WriteFile(ca, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(c *Config) {
		c.URL = tls.URL
		c.HTTP = promconfig.HTTPClientConfig{TLSConfig: promconfig.TLSConfig{CAFile: ca},
			Authorization: &promconfig.Authorization{CredentialsFile: token}}
	})
	tokens := []string{"first", "first", "second"}
	pause := r.client.sleep
	r.client.sleep = func(ctx context.Context, d time.Duration) error {
		if len(tokens) > 0 {
			if err := os.WriteFile(token, []byte(tokens[0]), 0o600); err != nil {
				t.Error(err)
			}
			tokens = tokens[1:]
		}
		return pause(ctx, d)
	}
	r.send("a")
	if got := len(loki.Entries()); got != 1 || len(r.pauses()) != 3 {
		t.Errorf("%d entries after %d pauses", got, len(r.pauses()))
	}
	if r.metric("pushes_total", "401") != 2 || r.metric("pushes_total", "error") != 1 {
		t.Error("not one attempt without the file, and two with the wrong token")
	}
}

// A body that net/http still reads after its attempt does not see the bytes of the next push.
func TestBodyEndsWithItsAttempt(t *testing.T) {
	packed := []byte("0123456789")
	body := &requestBody{bytes: packed}
	request := httptest.NewRequest(http.MethodPost, "http://loki", nil)
	body.attach(request)
	again, err := request.GetBody()
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(again); string(text) != "0123456789" || err != nil || request.ContentLength != 10 {
		t.Errorf("%q, %v", text, err)
	}
	four := make([]byte, 4)
	if _, err := io.ReadFull(request.Body, four); err != nil {
		t.Fatal(err)
	}
	body.close()
	copy(packed, bytes.Repeat([]byte("x"), 10))
	if n, err := request.Body.Read(four); n != 0 || err == nil || string(four) != "0123" {
		t.Errorf("read %d bytes %q after the end, %v", n, four, err)
	}
}

func TestAnswerIsBounded(t *testing.T) {
	response := &http.Response{StatusCode: 503, Header: http.Header{"Retry-After": {"86400"}},
		Body: io.NopCloser(strings.NewReader(strings.Repeat("long\n", 100000)))}
	a := read(response, testTime, nil)
	if len(a.words) > maxWords+100 || strings.Contains(a.words, "\n") || a.after != maxRetryAfter {
		t.Errorf("%d bytes of words, Retry-After %v", len(a.words), a.after)
	}
}
