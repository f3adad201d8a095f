package main

import (
	"io"
	"slices"
	"strings"
	"testing"
)

func TestTargets(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		env  map[string]string
		file string
		want []target
	}{
		{name: "one", args: []string{"--loki-url=http://u:p@Loki:3100?a=b", "--loki-tenant-id=t", "--loki-http-config=/a,b"}, want: []target{
			{url: "http://u:p@Loki:3100?a=b", address: "http://loki:3100/loki/api/v1/push", tenant: "t", httpFile: "/a,b"}}},
		{name: "a comma in a URL", args: []string{"--loki-url=http://u:p,q@loki?a=1,2"}, want: []target{
			{url: "http://u:p,q@loki?a=1,2", address: "http://loki/loki/api/v1/push"}}},
		{name: "several, one tenant for all", args: []string{"--loki-url=http://a", "--loki-url=https://b/x/push", "--loki-tenant-id=t"}, want: []target{
			{url: "http://a", address: "http://a/loki/api/v1/push", name: "a", tenant: "t"},
			{url: "https://b/x/push", address: "https://b/x/push", name: "b", tenant: "t"}}},
		{name: "each its own, or none", args: []string{"--loki-url=http://a", "--loki-tenant-id=", "--loki-url=http://b:1", "--loki-tenant-id=t",
			"--loki-http-config=/f", "--loki-http-config="}, want: []target{
			{url: "http://a", address: "http://a/loki/api/v1/push", name: "a", httpFile: "/f"},
			{url: "http://b:1", address: "http://b:1/loki/api/v1/push", name: "b:1", tenant: "t"}}},
		{name: "environment", env: map[string]string{"AUDITFERRY_LOKI_URL": "http://a,http://b:1", "AUDITFERRY_LOKI_TENANT_ID": "s,t"}, want: []target{
			{url: "http://a", address: "http://a/loki/api/v1/push", name: "a", tenant: "s"},
			{url: "http://b:1", address: "http://b:1/loki/api/v1/push", name: "b:1", tenant: "t"}}},
		{name: "list in the file", file: "loki-url: [http://a, http://b:1]\nloki-tenant-id: [s, t]\n", want: []target{
			{url: "http://a", address: "http://a/loki/api/v1/push", name: "a", tenant: "s"},
			{url: "http://b:1", address: "http://b:1/loki/api/v1/push", name: "b:1", tenant: "t"}}},
		{name: "word in the file", file: "loki-url: http://a\n", want: []target{{url: "http://a", address: "http://a/loki/api/v1/push"}}},
		{name: "the flag counts, not the file", args: []string{"--loki-url=http://c"}, file: "loki-url: [http://a, http://b:1]\n", want: []target{
			{url: "http://c", address: "http://c/loki/api/v1/push"}}},
		{name: "one host", args: []string{"--loki-url=http://a/one", "--loki-url=http://a/two"}, want: []target{
			{url: "http://a/one", address: "http://a/one/loki/api/v1/push", name: "a-419cacf0"},
			{url: "http://a/two", address: "http://a/two/loki/api/v1/push", name: "a-7c45be6f"}}},
		{name: "one host the other way around, and another", args: []string{"--loki-url=http://b", "--loki-url=http://a/two", "--loki-url=http://a/one"}, want: []target{
			{url: "http://b", address: "http://b/loki/api/v1/push", name: "b"},
			{url: "http://a/two", address: "http://a/two/loki/api/v1/push", name: "a-7c45be6f"},
			{url: "http://a/one", address: "http://a/one/loki/api/v1/push", name: "a-419cacf0"}}},
		{name: "hosts that make the same file", args: []string{"--loki-url=http://a:1", "--loki-url=http://a_1"}, want: []target{
			{url: "http://a:1", address: "http://a:1/loki/api/v1/push", name: "a:1-16948a83"},
			{url: "http://a_1", address: "http://a_1/loki/api/v1/push", name: "a_1-58ac4e75"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			args := append([]string{least[0]}, tt.args...)
			if tt.file != "" {
				args = append(args, "--config="+write(t, tt.file))
			}
			_, cfg, err := parse(args, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := cfg.targets(); err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got  %+v (%v)\nwant %+v", got, err, tt.want)
			}
		})
	}
}

func TestDeadLettersOfEachTarget(t *testing.T) {
	cfg := Config{stateConfig: stateConfig{DeadLetterFile: "/d/dead-letters.jsonl"}}
	for name, want := range map[string]string{
		"":                 "/d/dead-letters.jsonl",
		"loki:3100":        "/d/dead-letters.loki_3100.jsonl",
		"[::1]:31-0a1b2c3": "/d/dead-letters.___1__31-0a1b2c3.jsonl",
		"../x":             "/d/dead-letters..._x.jsonl",
	} {
		if got := cfg.deadLetters(&target{name: name}); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

// A replay pushes to one of the destinations of the agent, with what goes with it.
func TestReplayPicksATarget(t *testing.T) {
	const several = "loki-url: [http://u:p@a, http://b]\nloki-tenant-id: [s, t]\nloki-http-config: [/s, /t]\n"
	for _, tt := range []struct {
		name, file string
		args       []string
		env        map[string]string
		want       target   // if there is no error
		wrong      []string // what the error says
	}{
		{name: "several", file: several, wrong: []string{"--loki-url", "several"}},
		{name: "several flags", args: []string{"--loki-url=http://a", "--loki-url=http://b"}, wrong: []string{"--loki-url", "several"}},
		{name: "several in the environment", env: map[string]string{"AUDITFERRY_LOKI_URL": "http://a,http://b"}, wrong: []string{"--loki-url", "several"}},
		{name: "the second", file: several, args: []string{"--loki-url=http://B/loki/api/v1/push"},
			want: target{url: "http://b", tenant: "t", httpFile: "/t"}},
		{name: "the first, without its password", file: several, args: []string{"--loki-url=http://a"},
			want: target{url: "http://u:p@a", tenant: "s", httpFile: "/s"}},
		{name: "the first, with another password", file: several, args: []string{"--loki-url=http://v:q@a"},
			want: target{url: "http://v:q@a", tenant: "s", httpFile: "/s"}},
		{name: "the second of the environment", env: map[string]string{"AUDITFERRY_LOKI_URL": "http://a,http://b", "AUDITFERRY_LOKI_TENANT_ID": "s,t"},
			args: []string{"--loki-url=http://b"}, want: target{url: "http://b", tenant: "t"}},
		{name: "another tenant", file: several, args: []string{"--loki-url=http://b", "--loki-tenant-id=mine"},
			want: target{url: "http://b", tenant: "mine", httpFile: "/t"}},
		{name: "none of them", file: several, args: []string{"--loki-url=http://c"}, wrong: []string{"--loki-url=http://c/", "--loki-tenant-id"}},
		{name: "none of them, all named", file: several, args: []string{"--loki-url=http://c", "--loki-tenant-id=x", "--loki-http-config="},
			want: target{url: "http://c", tenant: "x"}},
		{name: "none of them, one tenant for all", file: "loki-url: [http://a, http://b]\nloki-tenant-id: s\n", args: []string{"--loki-url=http://c"},
			want: target{url: "http://c", tenant: "s"}},
		{name: "the only one", file: "loki-url: http://a\nloki-tenant-id: s\n", want: target{url: "http://a", tenant: "s"}},
		{name: "no configuration", args: []string{"--loki-url=http://a", "--loki-tenant-id=s"}, want: target{url: "http://a", tenant: "s"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			args := append([]string{"replay", "letters.jsonl"}, tt.args...)
			if tt.file != "" {
				args = append(args, "--config="+write(t, tt.file))
			}
			_, cfg, err := parse(args, io.Discard)
			if tt.wrong != nil {
				if err == nil {
					t.Fatal("no error")
				}
				for _, word := range tt.wrong {
					if !strings.Contains(err.Error(), word) || strings.Contains(err.Error(), ":p@") {
						t.Errorf("%q does not say %q", err, word)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := cfg.targets()
			if err != nil || len(got) != 1 {
				t.Fatalf("targets %+v (%v)", got, err)
			}
			got[0].address = ""
			if got[0] != tt.want {
				t.Errorf("got %+v, want %+v", got[0], tt.want)
			}
		})
	}
}
