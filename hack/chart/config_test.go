//go:build e2e

package chart

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestConfig lets the agent judge what the golden files tell it. State and secrets are elsewhere on this machine; everything else is as
// the pods would see it.
func TestConfig(t *testing.T) {
	for _, name := range cases(t) {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("testdata", name+".golden.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			checkConfig(t, objects(t, string(text)))
		})
	}
}

// checkConfig lets the agent read what objects hold for it.
func checkConfig(t *testing.T, all map[string]object) {
	t.Helper()
	dir := t.TempDir()
	write := func(file, content string) string {
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	config := files(t, ofKind(t, all, "ConfigMap"))["config.yaml"]
	http, ours := files(t, ofKind(t, all, "Secret"))["http.yaml"]
	if !ours {
		http = "{}" // a secret that the chart does not make
	}
	checkPaths(t, all, config)
	out, err := run(t, "auditferry", "--check-config", "--config="+write("config.yaml", config),
		"--loki-http-config="+write("http.yaml", http), "--positions-file="+filepath.Join(dir, "positions.json"))
	if err != nil || !strings.Contains(out, "the configuration is fine") {
		t.Errorf("the agent does not take this: %v%s\n%s", err, out, config)
	}
}

// checkPaths compares the paths in config.yaml with what the container of the agent mounts: the directory of each audit log, read-only
// and from the same place on the node, and the secret.
func checkPaths(t *testing.T, all map[string]object, config string) {
	t.Helper()
	var settings struct {
		AuditLogPath   any    `yaml:"audit-log-path"`
		LokiHTTPConfig string `yaml:"loki-http-config"`
	}
	if err := yaml.Unmarshal([]byte(config), &settings); err != nil {
		t.Fatal(err)
	}
	pod := part(t, ofKind(t, all, "DaemonSet"), "spec", "template", "spec")
	hostPaths := make(map[string]string) // by volume
	for _, v := range pod["volumes"].([]any) {
		if host, ok := v.(object)["hostPath"].(object); ok {
			hostPaths[v.(object)["name"].(string)] = host["path"].(string)
		}
	}
	mounted := make(map[string]string) // how, by path
	for _, m := range pod["containers"].([]any)[0].(object)["volumeMounts"].([]any) {
		mount := m.(object)
		path := mount["mountPath"].(string)
		mounted[path] = fmt.Sprintf("from %s, read-only %v", hostPaths[mount["name"].(string)], mount["readOnly"])
	}
	logs, several := settings.AuditLogPath.([]any)
	if !several {
		logs = []any{settings.AuditLogPath}
	}
	for _, log := range logs {
		dir := filepath.Dir(log.(string))
		if want := fmt.Sprintf("from %s, read-only true", dir); mounted[dir] != want {
			t.Errorf("%s is mounted %q, want %q", dir, mounted[dir], want)
		}
	}
	if got := mounted[filepath.Dir(settings.LokiHTTPConfig)]; got != "from , read-only true" {
		t.Errorf("%s is mounted %q", settings.LokiHTTPConfig, got)
	}
}
