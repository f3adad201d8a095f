package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/auditferry/auditferry/agent/audit"
)

// least is what every command line needs.
var least = []string{"--audit-log-path=/var/log/audit.log", "--loki-url=http://loki:3100"}

func TestSettingsComeFromFlagsThenEnvironmentThenFile(t *testing.T) {
	const file = "batch-wait: 3s\nbatch-size: 2097152\nlabel:\n  env: prod\n  tier: \"1\"\n"
	for _, tt := range []struct {
		name string
		args []string
		env  map[string]string
		want time.Duration
	}{
		{name: "default", want: time.Second},
		{name: "file", args: []string{"--config=FILE"}, want: 3 * time.Second},
		{name: "file by environment", env: map[string]string{"AUDITFERRY_CONFIG": "FILE"}, want: 3 * time.Second},
		{name: "environment", env: map[string]string{"AUDITFERRY_BATCH_WAIT": "2s"}, want: 2 * time.Second},
		{name: "environment over file", args: []string{"--config=FILE"}, env: map[string]string{"AUDITFERRY_BATCH_WAIT": "2s"}, want: 2 * time.Second},
		{name: "flag over all", args: []string{"--config=FILE", "--batch-wait=4s"}, env: map[string]string{"AUDITFERRY_BATCH_WAIT": "2s"}, want: 4 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := write(t, file)
			for name, value := range tt.env {
				t.Setenv(name, strings.ReplaceAll(value, "FILE", path))
			}
			args := slices.Clone(least)
			for _, a := range tt.args {
				args = append(args, strings.ReplaceAll(a, "FILE", path))
			}
			_, cfg, err := parse(args, &bytes.Buffer{})
			if err != nil {
				t.Fatal(err)
			}
			if cfg.BatchWait != tt.want {
				t.Errorf("batch-wait is %v, want %v", cfg.BatchWait, tt.want)
			}
			if fromFile := strings.Contains(tt.name, "file") || strings.Contains(tt.name, "all"); fromFile &&
				(cfg.BatchSize != 2<<20 || cfg.Label["env"] != "prod" || cfg.Label["tier"] != "1") {
				t.Errorf("batch-size %d, labels %v: not what the file says", cfg.BatchSize, cfg.Label)
			}
		})
	}
}

func TestEverythingCanComeFromTheFile(t *testing.T) {
	path := write(t, "audit-log-path: [/a/audit.log, /b/audit.json]\nloki-url: http://loki:3100\nstart-at: end\nlog-format: json\n")
	_, cfg, err := parse([]string{"--config", path}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"/a/audit.log", "/b/audit.json"}; !slices.Equal(cfg.AuditLogPath, want) || cfg.StartAt != "end" || cfg.LogFormat != "json" {
		t.Errorf("got %+v", cfg)
	}
}

func TestFieldsComeFromAnywhere(t *testing.T) {
	file := write(t, "label-fields: [verb, 'annotation:a.b/c']\nuser-label: class\nmax-streams: 200\n")
	for _, tt := range []struct {
		args []string
		env  string
		want []string
	}{
		{nil, "", []string{"verb", "user", "resource"}},
		{[]string{"--label-fields=verb,stage"}, "", []string{"verb", "stage"}},
		{[]string{"--label-fields=verb", "--label-fields=stage"}, "", []string{"verb", "stage"}},
		{[]string{"--label-fields="}, "", []string{}},
		{nil, "verb,groups", []string{"verb", "groups"}},
		{[]string{"--config=" + file}, "", []string{"verb", "annotation:a.b/c"}},
	} {
		t.Run(fmt.Sprint(tt.args, tt.env), func(t *testing.T) {
			if tt.env != "" {
				t.Setenv("AUDITFERRY_LABEL_FIELDS", tt.env)
			}
			_, cfg, err := parse(append(slices.Clone(least), tt.args...), io.Discard)
			if err != nil || !slices.Equal(cfg.LabelFields, tt.want) {
				t.Errorf("%q, want %q (%v)", cfg.LabelFields, tt.want, err)
			}
		})
	}
	_, cfg, err := parse(slices.Clone(least), io.Discard)
	if err != nil || !slices.Equal(cfg.LabelFields, audit.DefaultLabelFields) || !slices.Equal(cfg.MetadataFields, audit.DefaultMetadataFields) {
		t.Errorf("the defaults are %q and %q", cfg.LabelFields, cfg.MetadataFields)
	}
}

func TestWrongUsageIsOneLineThatNamesIt(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("STATE_DIRECTORY", t.TempDir())
	for _, tt := range []struct {
		name string
		args []string
		file string
		want []string // in the message
	}{
		{"no path", []string{"--loki-url=http://loki:3100"}, "", []string{"--audit-log-path", "missing", "example"}},
		{"no Loki", []string{"--audit-log-path=/a"}, "", []string{"--loki-url", "missing", "example"}},
		{"typo", append(least, "--bacth-wait=1s"), "", []string{"--bacth-wait", "--batch-wait"}},
		{"too short an age", append(least, "--loki-reject-old=59m"), "", []string{"--loki-reject-old"}},
		{"no such thing to do", append(least, "--old-events=drop"), "", []string{"--old-events", "restamp"}},
		{"no such command", append(least, "frob"), "", []string{"frob"}},
		{"not a time", append(least, "--batch-wait=1x"), "", []string{"--batch-wait", "1x"}},
		{"not a size", append(least, "--batch-size=1XB"), "", []string{"--batch-size", "1XB", "1MiB"}},
		{"too small", append(least, "--pushes-in-flight=-1"), "", []string{"--pushes-in-flight"}},
		{"no rate", append(least, "--loki-rate=1"), "", []string{"--loki-rate"}},
		{"status that acknowledges nothing", append(least, "--loki-accept-status=200,301"), "", []string{"--loki-accept-status", "301", "200 to 299"}},
		{"status in file", least, "loki-accept-status: [200, 404]\n", []string{"FILE:1", "--loki-accept-status", "404"}},
		{"no status", append(least, "--loki-accept-status=OK"), "", []string{"--loki-accept-status", "OK"}},
		{"back-off upside down", append(least, "--backoff-max=1ms"), "", []string{"--backoff-max"}},
		{"start", append(least, "--start-at=yesterday"), "", []string{"--start-at", "yesterday", "beginning"}},
		{"level", append(least, "--log-level=loud"), "", []string{"--log-level", "loud", "info"}},
		{"address", append(least, "--listen-address=9611"), "", []string{"--listen-address", "HOST:PORT"}},
		{"profiles on no address", append(least, "--pprof", "--listen-address="), "", []string{"--pprof", "--listen-address"}},
		{"path is a directory", append(least, "--audit-log-path="+dir), "", []string{dir, "directory", "audit.log"}},
		{"path twice", append(least, least[0]), "", []string{"/var/log/audit.log", "twice"}},
		{"path to stdout", append(least, "--audit-log-path=-"), "", []string{"--audit-log-path", "standard output"}},
		{"path that is not UTF-8", append(least, "--audit-log-path=/\xff"), "", []string{"--audit-log-path", "UTF-8"}},
		{"label without value", append(least, "--label=env"), "", []string{"--label", "env"}},
		{"label of ours", append(least, "--label=verb=x"), "", []string{"--label", "verb"}},
		{"label that Loki refuses", append(least, "--label=a-b=x"), "", []string{"--label", "a-b"}},
		{"no such field", append(least, "--label-fields=verb,vreb"), "", []string{"--label-fields", "vreb", "annotation:KEY"}},
		{"field twice", append(least, "--label-fields=verb", "--label-fields=verb"), "", []string{"--label-fields", "verb", "twice"}},
		{"field with too many values", append(least, "--label-fields=verb,audit_id"), "", []string{"--label-fields", "audit_id", "too many"}},
		{"annotations of one name", append(least, "--label-fields=annotation:a.b,annotation:a-b"), "", []string{"--label-fields", "annotation:a.b", "annotation:a-b"}},
		{"16 labels", append(least, "--cluster=c", "--label=a=1;b=2;c=3;d=4;e=5;f=6;g=7;h=8", "--label-fields=verb,user,resource,namespace"), "",
			[]string{"--label-fields", "16 labels", "8 are yours", "namespace", "15"}},
		{"no such metadata", append(least, "--metadata-fields=groups,nonsense"), "", []string{"--metadata-fields", "nonsense"}},
		{"no such user label", append(least, "--user-label=mail"), "", []string{"--user-label", "mail", "class"}},
		{"few streams", append(least, "--max-streams=63"), "", []string{"--max-streams=63", "64"}},
		{"few streams for two", append(least, "--max-streams=127", "--audit-log-path=/b"), "", []string{"--max-streams=127", "128", "64 for each"}},
		{"few streams, checked", append(least, "--max-streams=63", "--check-config"), "", []string{"--max-streams=63"}},
		{"not a URL", []string{least[0], "--loki-url=loki:3100"}, "", []string{"--loki-url", "http://"}},
		{"URL twice", append(least, "--loki-url=http://Loki:3100/loki/api/v1/push"), "", []string{"--loki-url=http://loki:3100/", "twice", "--positions-file"}},
		{"URL twice with passwords", []string{least[0], "--loki-url=http://a:secret@loki", "--loki-url=http://b:secret@loki"}, "", []string{"--loki-url=http://loki/", "twice"}},
		{"two URLs in one", []string{least[0], "--loki-url=http://loki,other:3100"}, "", []string{"--loki-url", "loki,other:3100", "http://"}},
		{"two URLs, three tenants", append(least, "--loki-url=http://b", "--loki-tenant-id=a,b,c"), "", []string{"--loki-tenant-id", "3 times", "--loki-url 2"}},
		{"one URL, two files", append(least, "--loki-http-config=a", "--loki-http-config=b"), "", []string{"--loki-http-config", "2 times", "--loki-url 1"}},
		{"second URL wrong", append(least, "--loki-url=loki:3100"), "", []string{"--loki-url", "http://"}},
		{"URLs as a map", least[:1], "loki-url: {a: http://loki:3100}\n", []string{"FILE:1", "loki-url", "[a, b]"}},
		{"URLs as lists", least[:1], "loki-url: [[http://loki:3100]]\n", []string{"FILE:1", "list"}},
		{"URLs as nothing", least[:1], "loki-url:\n", []string{"FILE:1", "loki-url", "no value"}},
		{"no URL in a list", least[:1], "loki-url: []\n", []string{"--loki-url is missing"}},
		{"no file", append(least, "--config=/no/such/file"), "", []string{"--config", "/no/such/file"}},
		{"unknown key", least, "# mine\nbatch-wiat: 1s\n", []string{"FILE:2", "batch-wiat"}},
		{"key twice", least, "batch-wait: 1s\nbatch-wait: 2s\n", []string{"FILE", "batch-wait"}},
		{"bad value in file", least, "\n\nbatch-wait: soon\n", []string{"FILE:3", "batch-wait", "soon"}},
		{"no value in file", least, "batch-wait:\n", []string{"FILE:1", "batch-wait", "no value"}},
		{"no value in a map", least, "label:\n  x: null\n", []string{"FILE:2", "x", "want a word"}},
		{"map in a map", least, "label: {y: a, x: {y: z}}\n", []string{"FILE:1", "x", "want a word"}},
		{"list in file", least, "- batch-wait\n", []string{"FILE:1", "loki-url:"}},
		{"not YAML", least, "batch-wait: [\n", []string{"FILE", "line"}},
		{"nested list", least[1:], "audit-log-path: [[a]]\n", []string{"FILE:1", "list"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := slices.Clone(tt.args)
			path := ""
			if tt.file != "" {
				path = write(t, tt.file)
				args = append(args, "--config="+path)
			}
			var stdout, stderr bytes.Buffer
			stopped, cancel := context.WithCancel(t.Context())
			cancel() // should it start after all
			if code := run(stopped, args, &stdout, &stderr); code != exitUsage {
				t.Errorf("exit code %d, want %d", code, exitUsage)
			}
			message := stderr.String()
			if strings.Count(message, "\n") != 1 || !strings.HasPrefix(message, "auditferry: ") || stdout.Len() > 0 {
				t.Errorf("want one line on stderr, got %q and on stdout %q", message, stdout.String())
			}
			for _, word := range tt.want {
				if word = strings.ReplaceAll(word, "FILE", path); !strings.Contains(message, word) {
					t.Errorf("%q does not say %q", message, word)
				}
			}
		})
	}
}

func TestHelpTellsEveryFlagOnce(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"--help"}, &stdout, &stderr); code != exitOK || stderr.Len() > 0 {
		t.Fatalf("exit code %d, stderr %q", code, stderr.String())
	}
	for _, want := range []string{
		"What to read", "Where to push", "Labels", "State on disk", "Operation", "--audit-log-path=", "--loki-url=",
		"--start-at=", "Default: 1MiB", "Default: 10s", "--config=", "AUDITFERRY_LOKI_URL", "version",
	} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("--help does not say %q", want)
		}
	}
	if n := strings.Count(stdout.String(), "--batch-wait="); n != 1 {
		t.Errorf("--batch-wait is told %d times", n)
	}
}

func TestNodeIsTakenFromTheFileBeforeTheEnvironmentOfKubernetes(t *testing.T) {
	t.Setenv("NODE_NAME", "from-kubernetes")
	for _, tt := range []struct{ file, want string }{{"node: from-file\n", "from-file"}, {"log-level: warn\n", "from-kubernetes"}} {
		_, cfg, err := parse(append(least, "--config="+write(t, tt.file)), &bytes.Buffer{})
		if err != nil {
			t.Fatal(err)
		}
		if cfg.Node != tt.want {
			t.Errorf("with %q the node is %q, want %q", tt.file, cfg.Node, tt.want)
		}
	}
}

func TestVersion(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"--version"}} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), args, &stdout, &stderr); code != exitOK || !strings.HasPrefix(stdout.String(), "auditferry "+version+" go") {
			t.Errorf("%v: exit code %d, stdout %q, stderr %q", args, code, stdout.String(), stderr.String())
		}
	}
}

func TestVersionTellsTheCommit(t *testing.T) {
	of := func(pairs ...string) *debug.BuildInfo {
		info := new(debug.BuildInfo)
		for i := 0; i < len(pairs); i += 2 {
			info.Settings = append(info.Settings, debug.BuildSetting{Key: pairs[i], Value: pairs[i+1]})
		}
		return info
	}
	for _, tt := range []struct {
		info *debug.BuildInfo
		want string
	}{
		{of("GOOS", "linux"), ""},
		{of("vcs", "git", "vcs.revision", "abc", "vcs.time", "2026-11-27T14:00:00Z", "vcs.modified", "false"), ", commit abc of 2026-11-27T14:00:00Z"},
		{of("vcs.revision", "abc", "vcs.time", "2026-11-27T14:00:00Z", "vcs.modified", "true"), ", commit abc of 2026-11-27T14:00:00Z, with changes"},
	} {
		if got := commit(tt.info); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

// write gives the path of a configuration file.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "auditferry.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Without a home directory, state must not land wherever the agent was started.
func TestNoHome(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root keeps its state elsewhere")
	}
	for _, name := range []string{"HOME", "XDG_STATE_HOME", "STATE_DIRECTORY"} {
		t.Setenv(name, "")
	}
	if _, _, err := parse(least, io.Discard); err == nil || !strings.Contains(err.Error(), "--positions-file") {
		t.Errorf("error %v", err)
	}
}
