//go:build e2e

package chart

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSchema gives wrong values, by --set: the error says where, and what is wrong.
func TestSchema(t *testing.T) {
	for _, wrong := range []struct {
		set   string
		words []string
	}{
		{"lokki.url=http://loki:3100", []string{"'lokki' not allowed"}},
		{"loki.uri=http://loki:3100", []string{"/loki", "'uri' not allowed"}},
		{"loki.url=loki:3100", []string{"/loki/url", "'loki:3100'", "https?://"}},
		{"loki.url=ftp://loki", []string{"/loki/url", "'ftp://loki'", "https?://"}},
		{"loki.url={http://a,loki}", []string{"/loki/url/1", "'loki'"}},
		{"loki.url=null", []string{"/loki", "missing property 'url'"}},
		{"loki.tenantId=7", []string{"/loki/tenantId", "got number"}},
		{"loki.httpConfig=none", []string{"/loki/httpConfig", "got string, want object"}},
		{"loki.tenantId={a,b}", []string{"loki.tenantId is given 2 times, and loki.url 1"}},
		{"loki.url={http://a,http://b},loki.tenantId={a,b,c}", []string{"loki.tenantId is given 3 times, and loki.url 2"}},
		{"loki.url={http://a,http://b},loki.tenantId=a\\,b\\,c", []string{"loki.tenantId is given 3 times, and loki.url 2"}},
		{"loki.url=http://a\\,http://b,config.loki-http-config={/a,/b,/c}", []string{"config.loki-http-config is given 3 times, and loki.url 2"}},
		{"loki.httpConfig.basic_aut.username=me", []string{"/loki/httpConfig", "'basic_aut' not allowed"}},
		{"loki.httpConfig.enable_http2=off", []string{"/loki/httpConfig/enable_http2", "got string, want boolean"}},
		{"loki.existingSecret=a,loki.httpConfig.enable_http2=false", []string{"loki.httpConfig is not used beside loki.existingSecret"}},
		{"loki.existingSecret=My_Secret", []string{"/loki/existingSecret", "'My_Secret'"}},
		{"distribution=aks", []string{"/distribution", "'kubeadm', 'k3s', 'rke2', 'openshift', 'talos', 'kubespray'"}},
		{"distribution=", []string{"which audit logs?", "kubespray", "auditLogPaths"}},
		{"auditLogPaths={logs/audit.log}", []string{"/auditLogPaths/0", "'logs/audit.log'"}},
		{"auditLogPaths={/audit.log}", []string{"/auditLogPaths/0", "'/audit.log'"}},
		{"auditLogPaths={/var/log/audit/}", []string{"/auditLogPaths/0", "'/var/log/audit/'"}},
		{"auditLogPaths=/var/log/audit.log", []string{"/auditLogPaths", "got string, want array"}},
		{"auditLogOwner=root", []string{"/auditLogOwner", "got string"}},
		{"seLinuxType=spc_t:s0", []string{"/seLinuxType", "'spc_t:s0'"}},
		{"cluster=7", []string{"/cluster", "got number, want string"}},
		{"labels.a-b=c", []string{"/labels", "'a-b' not allowed"}},
		{"labels.rack=", []string{"/labels/rack", "minLength"}},
		{"labels.rack=7", []string{"/labels/rack", "got number, want string"}},
		{"config.batch-wiat=1s", []string{"/config", "'batch-wiat' not allowed"}},
		{"config.batch-wait=1", []string{"/config/batch-wait", "got number, want string"}},
		{"config.batch-wait=1x", []string{"/config/batch-wait", "'1x'"}},
		{"config.batch-size=lots", []string{"/config/batch-size", "'lots'"}},
		{"config.old-events=drop", []string{"/config/old-events", "'skip', 'dead-letter', 'restamp'"}},
		{"config.start-at=yesterday", []string{"config.start-at=yesterday", "beginning, end or a time"}},
		{"config.start-at=", []string{"config.start-at=:"}},
		{"config.start-at=2026-11-23", []string{"config.start-at=2026-11-23:"}},
		{"config.start-at=2026-02-30T08:00:00Z", []string{"config.start-at=2026-02-30T08:00:00Z"}},
		{"config.max-streams=63", []string{"/config/max-streams", "got 63, want 64"}},
		{"distribution=openshift,config.max-streams=255", []string{"config.max-streams=255", "at least 256"}},
		{"config.label-fields={verb,audit_id}", []string{"config.label-fields", "audit_id cannot be a label"}},
		{"config.label-fields=verb\\,name", []string{"config.label-fields", "name cannot be a label"}},
		{"config.label-fields=verb\\,verb", []string{"config.label-fields", "verb is given twice"}},
		{"config.label-fields={annotation:a/b,annotation:a.b}", []string{"config.label-fields", "annotation:a.b", "annotation_a_b"}},
		{"config.metadata-fields={name,annotation:}", []string{"config.metadata-fields", `"annotation:" is not a field`}},
		{"config.metadata-fields=name\\, user", []string{"config.metadata-fields", `" user" is not a field`}},
		{"config.loki-url=http://loki", []string{"/config", "'loki-url' not allowed"}},
		{"config=null", []string{"missing property 'config'"}},
		{"image.tag=a b", []string{"/image/tag", "'a b'"}},
		{"image.digest=abc", []string{"/image/digest", "'abc'"}},
		{"image.pullPolicy=always", []string{"/image/pullPolicy", "'IfNotPresent', 'Always', 'Never'"}},
		{"image.pullSecrets={registry}", []string{"/image/pullSecrets/0", "got string, want object"}},
		{"fullnameOverride=Audit", []string{"/fullnameOverride", "'Audit'"}},
		{"podAnnotations.a=true", []string{"/podAnnotations/a", "got boolean, want string"}},
		{"resources.limit.cpu=1", []string{"/resources", "'limit' not allowed"}},
		{"tolerations[0].opertor=Exists", []string{"/tolerations/0", "'opertor' not allowed"}},
		{"affinity.nodeAfinity.a=b", []string{"/affinity", "'nodeAfinity' not allowed"}},
		{"networkPolicy.enabled=yes", []string{"/networkPolicy/enabled", "got string, want boolean"}},
		{"networkPolicy.lokiPorts={http}", []string{"/networkPolicy/lokiPorts/0", "got string, want integer"}},
		{"networkPolicy.lokiPorts={70000}", []string{"/networkPolicy/lokiPorts/0", "65,535"}},
		{"networkPolicy.extraEgress[0].cidr=192.0.2.1/32", []string{"/networkPolicy/extraEgress/0", "'cidr' not allowed"}},
		{"podMonitor.interval=15", []string{"/podMonitor/interval", "got number, want string"}},
	} {
		t.Run(wrong.set, func(t *testing.T) {
			_, err := render(t, chartDir(t), "--set=distribution=kubeadm", "--set", wrong.set)
			if err == nil {
				t.Fatal("it is rendered")
			}
			for _, word := range wrong.words {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the error does not say %s:\n%v", word, err)
				}
			}
		})
	}
	if _, err := render(t, chartDir(t), "--set=distribution=openshift,auditLogOwner=1000"); err == nil ||
		!strings.Contains(err.Error(), "auditLogOwner=1000") {
		t.Errorf("an SCC for root alone, and another user: %v", err)
	}
}

// TestVersion lets the chart be rendered for versions of Kubernetes, as distributions write them.
func TestVersion(t *testing.T) {
	for version, ok := range map[string]bool{
		"1.21.14": false, "1.22.0": true, "v1.29.3+k3s1": true, "v1.31.1-eks-ce1d5eb": true, "v1.37.0-rc.1": true,
	} {
		_, err := run(t, "helm", "template", release, chartDir(t), "--set=distribution=k3s", "--kube-version", version)
		if (err == nil) != ok {
			t.Errorf("for %s: %v", version, err)
		}
	}
}

// notInConfig are the flags that `config` may not hold, each with why.
var notInConfig = map[string]string{
	"audit-log-path":   "auditLogPaths",
	"loki-url":         "loki.url",
	"loki-tenant-id":   "loki.tenantId",
	"cluster":          "cluster",
	"label":            "labels",
	"node":             "of each pod its own, by $NODE_NAME",
	"positions-file":   "where the volume for it is",
	"dead-letter-file": "where the volume for it is",
	"listen-address":   "what the probes and the NetworkPolicy say",
	"log-file":         "nowhere to write it to: kubectl logs",
	"check-config":     "ends the agent",
	"dry-run":          "ends the agent",
	"config":           "the file itself",
	"help":             "ends the agent",
	"version":          "ends the agent",
}

// TestSettings compares the keys of `config` with the flags that the agent has.
func TestSettings(t *testing.T) {
	var flags []string
	for _, match := range regexp.MustCompile(`(?m)^ +(?:-\w, )?--(?:\[no-\])?([a-z0-9-]+)(?:[= ]|$)`).FindAllStringSubmatch(
		mustRun(t, "auditferry", "--help"), -1) {
		flags = append(flags, match[1])
	}
	var keys []string
	for _, property := range readSchema(t).property("config").Properties {
		keys = append(keys, property.name)
	}
	for flag := range notInConfig {
		keys = append(keys, flag)
	}
	slices.Sort(flags)
	flags = slices.Compact(flags) // words of the help texts, too, begin lines with a flag
	slices.Sort(keys)
	if diff := cmp.Diff(flags, keys); diff != "" {
		t.Errorf("values.schema.json and notInConfig do not name every flag once: -agent +schema\n%s", diff)
	}
}
