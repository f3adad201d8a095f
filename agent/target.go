package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	promconfig "github.com/prometheus/common/config"

	"github.com/auditferry/auditferry/shipper"
)

// target is one --loki-url with what is given for it alone.
type target struct {
	url      string // as given; it may hold a password
	address  string // of its push API, without credentials and query: no two targets have the same
	name     string // its host and port, and a hash where another has the same; empty if it is the only target
	tenant   string
	httpFile string // --loki-http-config; empty for none
}

// targets pairs the URLs with what goes with each. It refuses what cannot be paired, naming the flag.
func (c *pushConfig) targets() ([]target, error) {
	urls := splitURLs(c.LokiURL)
	tenants, err := perURL("--loki-tenant-id", c.LokiTenantID, len(urls))
	if err != nil {
		return nil, err
	}
	files, err := perURL("--loki-http-config", c.LokiHTTPConfig, len(urls))
	if err != nil {
		return nil, err
	}
	targets := make([]target, len(urls))
	hosts := make([]string, len(urls))
	for i, given := range urls {
		push, err := shipper.PushURL(given)
		if err != nil {
			return nil, err
		}
		if strings.Contains(push.Host, ",") {
			return nil, fmt.Errorf("--loki-url names the host %q: begin each of several URLs with http:// or https://", push.Host)
		}
		t := target{url: given, address: address(push), tenant: tenants[i], httpFile: files[i]}
		if find(targets[:i], t.address) >= 0 {
			return nil, fmt.Errorf("--loki-url=%s is given twice, and other credentials or another query do not make it two "+
				"destinations: for another tenant of it, run a second agent with its own --positions-file", t.address)
		}
		targets[i], hosts[i] = t, strings.ToLower(push.Host)
	}
	nameApart(targets, hosts)
	return targets, nil
}

// splitURLs takes apart what the environment holds: several URLs with commas between them. A comma elsewhere is part of one.
func splitURLs(given []string) (urls []string) {
	for _, text := range given {
		for i, part := range strings.Split(text, ",") {
			begins := strings.HasPrefix(part, "http://") || strings.HasPrefix(part, "https://")
			if i > 0 && !begins {
				urls[len(urls)-1] += "," + part
				continue
			}
			urls = append(urls, part)
		}
	}
	if slices.Equal(urls, []string{""}) {
		return nil
	}
	return urls
}

// perURL gives a value of a flag for each of n URLs; several that the environment holds have commas between them.
func perURL(flag string, given []string, n int) ([]string, error) {
	if len(given) == 1 && n > 1 {
		given = strings.Split(given[0], ",")
	}
	switch {
	case len(given) == 0:
		return make([]string, n), nil
	case len(given) == 1:
		return slices.Repeat(given, n), nil
	case len(given) != n:
		return nil, fmt.Errorf("%s is given %d times, and --loki-url %d: give it once, for all, or once for each --loki-url, in their order",
			flag, len(given), n)
	}
	return given, nil
}

// address is what tells one destination from another, and is fit to be kept and shown.
func address(push *url.URL) string {
	bare := url.URL{Scheme: push.Scheme, Host: strings.ToLower(push.Host), Path: push.Path, RawPath: push.RawPath}
	return bare.String()
}

func find(targets []target, address string) int {
	return slices.IndexFunc(targets, func(t target) bool { return t.address == address })
}

// nameApart names several targets by their hosts. What is named after them must stay theirs, so the names do not depend on the
// order in which they are given.
func nameApart(targets []target, hosts []string) {
	if len(targets) == 1 {
		return
	}
	same := make(map[string]int)
	for _, host := range hosts {
		same[fileName(host)]++
	}
	for i, host := range hosts {
		targets[i].name = host
		if same[fileName(host)] > 1 {
			sum := sha256.Sum256([]byte(targets[i].address))
			targets[i].name = fmt.Sprintf("%s-%x", host, sum[:4])
		}
	}
}

// fileName is the name of a target as part of a file's.
func fileName(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '_'
	}, name)
}

// redacted is its URL without the password that it may hold.
func (t *target) redacted() string {
	u, err := url.Parse(t.url)
	if err != nil {
		return t.address
	}
	return u.Redacted()
}

// httpConfig reads its --loki-http-config, and sees to it that there are roots to trust.
func (t *target) httpConfig() (promconfig.HTTPClientConfig, error) {
	if t.needsRoots() {
		useFallbackRoots()
	}
	if t.httpFile == "" {
		return promconfig.DefaultHTTPClientConfig, nil
	}
	http, _, err := promconfig.LoadHTTPConfigFile(t.httpFile)
	if err != nil {
		return promconfig.HTTPClientConfig{}, fmt.Errorf("--loki-http-config=%s: %w", t.httpFile, err)
	}
	return *http, nil
}

// deadLetters is the file for what a target refuses: --dead-letter-file, or where there are several, one beside it.
func (c *Config) deadLetters(t *target) string {
	if t.name == "" {
		return c.DeadLetterFile
	}
	ext := filepath.Ext(c.DeadLetterFile)
	return strings.TrimSuffix(c.DeadLetterFile, ext) + "." + fileName(t.name) + ext
}

// pick leaves one target, for a replay. agent is what the environment and the configuration file say, without the flags of
// the command line: from there comes what goes with the URL.
func (c *pushConfig) pick(agent *pushConfig) error {
	known, err := agent.targets()
	if err != nil {
		return err
	}
	urls := splitURLs(c.LokiURL)
	if len(urls) > 1 {
		return errors.New("a replay pushes to one Loki, and there are several: name that of the dead letters with --loki-url")
	}
	if len(urls) == 0 || len(known) == 0 {
		return nil // there is nothing to pick, or to pick from
	}
	push, err := shipper.PushURL(urls[0])
	if err != nil {
		return err
	}
	at := find(known, address(push))
	if at >= 0 && push.User == nil {
		c.LokiURL = []string{known[at].url} // the password need not be repeated
	}
	for _, v := range []struct {
		flag  string
		value *[]string
		agent []string
		of    func(target) string
	}{
		{"--loki-tenant-id", &c.LokiTenantID, agent.LokiTenantID, func(t target) string { return t.tenant }},
		{"--loki-http-config", &c.LokiHTTPConfig, agent.LokiHTTPConfig, func(t target) string { return t.httpFile }},
	} {
		if !slices.Equal(*v.value, v.agent) {
			continue // the command line says it
		}
		its := max(at, 0)
		if at < 0 && slices.ContainsFunc(known, func(t target) bool { return v.of(t) != v.of(known[0]) }) {
			return fmt.Errorf("--loki-url=%s is none of those that are configured, which have each its %s: name that as well", push.Redacted(), v.flag)
		}
		*v.value = []string{v.of(known[its])}
	}
	return nil
}
