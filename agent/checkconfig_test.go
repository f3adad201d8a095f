package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

// Each file that --loki-http-config names is named by --check-config if it is missing.
func TestCheckConfigNamesMissingFiles(t *testing.T) {
	n := newNode(t)
	for _, config := range []string{
		"bearer_token_file: /no/such/file",
		"authorization: {credentials_file: /no/such/file}",
		"basic_auth: {username_file: /no/such/file, password: x}",
		"basic_auth: {username: x, password_file: /no/such/file}",
		"tls_config: {ca_file: /no/such/file}",
		"tls_config: {cert_file: /no/such/file, key_file: /etc/hostname}",
		"tls_config: {cert_file: /etc/hostname, key_file: /no/such/file}",
		"oauth2: {client_id: x, token_url: http://t, client_secret_file: /no/such/file}",
		"oauth2: {client_id: x, token_url: http://t, client_secret: x, tls_config: {ca_file: /no/such/file}}",
		"oauth2: {client_id: x, token_url: http://t, client_secret: x, tls_config: {cert_file: /no/such/file, key_file: /etc/hostname}}",
		"oauth2: {client_id: x, token_url: http://t, client_secret: x, tls_config: {cert_file: /etc/hostname, key_file: /no/such/file}}",
		"oauth2: {client_id: x, token_url: http://t, grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', client_certificate_key_file: /no/such/file}",
		"http_headers: {X-Key: {files: [/etc/hostname, /no/such/file]}}",
	} {
		var stderr bytes.Buffer
		if code := run(t.Context(), n.flags("--check-config", "--loki-http-config="+write(t, config)), io.Discard, &stderr); code != exitFailure ||
			!strings.Contains(stderr.String(), "--loki-http-config") || !strings.Contains(stderr.String(), "/no/such/file") {
			t.Errorf("%s: exit code %d, stderr %q", config, code, stderr.String())
		}
	}
}

// What systemd has for the service alone is no fault of the configuration.
func TestCheckConfigOutsideOfTheService(t *testing.T) {
	n := newNode(t)
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), n.flags("--check-config", "--loki-http-config=/run/credentials/no.service/http.yaml"), &stdout, &stderr)
	if code != exitOK || !strings.Contains(stdout.String(), "/run/credentials/no.service/http.yaml is there only while the service runs") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout.String(), stderr.String())
	}
}

// A path at which there is nothing is told by whatever an operator may look at.
func TestMissingAuditLogIsTold(t *testing.T) {
	n := newNode(t)
	for _, flag := range []string{"--check-config", "--dry-run"} {
		var stdout bytes.Buffer
		if code := run(t.Context(), n.flags(flag), &stdout, io.Discard); code != exitOK || !strings.Contains(stdout.String(), n.path("audit.log")+" does not exist yet") {
			t.Errorf("%s: exit code %d, stdout %q", flag, code, stdout.String())
		}
	}
	var stderr bytes.Buffer
	if code := run(t.Context(), n.flags("--check-config", "--dry-run"), io.Discard, &stderr); code != exitUsage || !strings.Contains(stderr.String(), "give one of them") {
		t.Errorf("exit code %d, stderr %q", code, stderr.String())
	}
	n.listen = freeAddress(t)
	n.start()
	series := fmt.Sprintf("auditferry_audit_log_missing{path=%q}", n.path("audit.log"))
	n.waitMetric(series, "1")
	n.write("audit.log", events(0, 1)...)
	n.wait(1)
	n.waitMetric(series, "0")
}

// A file of something else is shipped, as nothing may be lost, but not in silence.
func TestWhatIsNoAuditLogIsTold(t *testing.T) {
	const told = "none of the lines read so far is an audit event"
	for _, test := range []struct {
		line string
		told bool
	}{{"2026-11-27 14:00:00 status installed hostname", true}, {event(0), false}} {
		n := newNode(t)
		n.write("audit.log", test.line)
		n.start()
		n.wait(1)
		n.stopped()
		if got := strings.Contains(n.stderr.String(), told); got != test.told {
			t.Errorf("%.20s: told: %t\n%s", test.line, got, n.stderr.String())
		}
	}
}
