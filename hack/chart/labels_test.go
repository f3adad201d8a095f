//go:build e2e

package chart

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestLabels gives names of labels and fields: what the agent refuses, the chart does before it, with the same words.
func TestLabels(t *testing.T) {
	for _, given := range []struct{ name, fields, refused string }{
		{"env", "", ""},
		{"level", "", ""},
		{"annotation_b", "verb,annotation:a", ""},
		{"job", "", "sets this label itself"},
		{"service_name", "", "sets this label itself"},
		{"node", "", "sets this label itself"},
		{"cluster", "", "sets this label itself"},
		{"filename", "", "sets this label itself"},
		{"event", "", "sets this label itself"},
		{"verb", "user", "sets this label itself"},
		{"user", "verb", "sets this label itself"},
		{"resource", "verb", "sets this label itself"},
		{"annotation_a_b", "verb,annotation:a/b", "sets this label itself"},
		{"audit_level", "level", "sets this label itself"},
		{"audit_id", "", "sets structured metadata of this name"},
		{"stage", "", "sets structured metadata of this name"},
		{"audit_level", "", "sets structured metadata of this name"},
		{"username", "", "sets structured metadata of this name"},
		{"impersonated_user", "", "sets structured metadata of this name"},
		{"namespace", "", "sets structured metadata of this name"},
		{"name", "", "sets structured metadata of this name"},
		{"code", "", "sets structured metadata of this name"},
		{"decision", "", "sets structured metadata of this name"},
		{"source_ip", "", "sets structured metadata of this name"},
		{"user_agent", "", "sets structured metadata of this name"},
		{"requested_verb", "", "sets structured metadata of this name"},
		{"requested_resource", "", "sets structured metadata of this name"},
		{"groups", "", "sets structured metadata of this name"},
		{"detected_level", "", "sets structured metadata of this name"},
		{"event_code", "", "sets structured metadata of this name"},
		{"__env", "", "names that begin with __ are Loki's own"},
		{"env", "verb,who", `"who" is not a field: there are verb, user, resource, namespace, name, code, level, stage, decision, ` +
			"impersonated_user, groups, source_ip, user_agent, audit_id and annotation:KEY"},
	} {
		t.Run(given.name+","+given.fields, func(t *testing.T) {
			flags := []string{"--label=" + given.name + "=x"}
			values := []string{"--set=distribution=kubeadm,labels." + given.name + "=x"}
			if given.fields != "" {
				flags = append(flags, "--label-fields="+given.fields)
				values = append(values, "--set=config.label-fields={"+given.fields+"}")
			}
			_, err := render(t, chartDir(t), values...)
			agrees(t, "the chart", err, given.refused)
			agrees(t, "the agent", checkFlags(t, flags...), given.refused)
		})
	}
}

// TestLabelCount gives as many labels as a stream may have, and one more.
func TestLabelCount(t *testing.T) {
	for _, given := range []struct {
		values  string
		yours   int
		refused string
	}{
		{"distribution=k3s", 9, ""},
		{"distribution=k3s", 10, "16 labels"},
		{"distribution=k3s,cluster=a", 9, "16 labels"},
		{"distribution=openshift", 9, "16 labels"},
		{"distribution=k3s,config.user-label=none", 10, ""},
		{"distribution=k3s,config.label-fields={}", 11, ""},
		{"distribution=k3s,config.label-fields={}", 12, "16 labels"},
	} {
		set := given.values
		for i := range given.yours {
			set += fmt.Sprintf(",labels.label%d=x", i)
		}
		out, err := render(t, chartDir(t), "--set", set)
		agrees(t, fmt.Sprintf("the chart, %d labels and %s,", given.yours, given.values), err, given.refused)
		if err == nil {
			checkConfig(t, objects(t, out))
		}
	}
}

// TestTaken renders what is just not too little or too much, and the other ways of writing it, and lets the agent judge it.
func TestTaken(t *testing.T) {
	for _, set := range []string{
		"config.start-at=end", "config.start-at=2026-11-23T08:00:00Z", "config.start-at=2026-11-23T08:00:00.5+01:00",
		"config.max-streams=64", "distribution=openshift,config.max-streams=256",
		"config.label-fields=verb\\,annotation:a/b", "config.label-fields=", "config.label-fields={level,annotation:a/b}",
		"config.metadata-fields=name\\,audit_id", "config.metadata-fields={source_ip,user_agent,annotation:a/b}",
		"loki.tenantId={a}", "loki.tenantId=a\\,b", "loki.url={http://a,http://b},loki.tenantId={a}",
		"loki.url={http://a,http://b},loki.tenantId={a,b}", "loki.url={http://a,http://b},loki.tenantId=a\\,b",
		"loki.url=http://a\\,http://b,loki.tenantId={a,b}",
		"loki.httpConfig.proxy_from_environment=true,loki.httpConfig.follow_redirects=false,loki.httpConfig.enable_http2=false",
		"loki.httpConfig.bearer_token=a,loki.httpConfig.tls_config.insecure_skip_verify=true",
		"loki.httpConfig.bearer_token_file=/dev/null,loki.httpConfig.proxy_url=http://a,loki.httpConfig.no_proxy=b,loki.httpConfig.proxy_connect_header.X-A={b}",
		"loki.httpConfig.oauth2.client_id=a,loki.httpConfig.oauth2.token_url=http://a,loki.httpConfig.http_headers.X-A.values={b}",
		"loki.httpConfig.authorization.credentials=a", "loki.httpConfig.basic_auth.username=a",
	} {
		t.Run(strings.ReplaceAll(set, ",", " "), func(t *testing.T) {
			checkConfig(t, objects(t, mustRender(t, chartDir(t), "--set=distribution=kubeadm", "--set", set)))
		})
	}
}

// agrees checks that an error says what is to be refused, or that there is none where nothing is.
func agrees(t *testing.T, who string, err error, refused string) {
	t.Helper()
	switch {
	case refused == "" && err != nil:
		t.Errorf("%s refuses it: %v", who, err)
	case refused != "" && (err == nil || !strings.Contains(err.Error(), refused)):
		t.Errorf("%s does not say %q, but %v", who, refused, err)
	}
}

// checkFlags lets the agent judge flags.
func checkFlags(t *testing.T, flags ...string) error {
	t.Helper()
	dir := t.TempDir()
	_, err := run(t, "auditferry", append(flags, "--check-config", "--audit-log-path="+filepath.Join(dir, "audit.log"),
		"--loki-url=http://loki:3100", "--positions-file="+filepath.Join(dir, "positions.json"))...)
	return err
}
