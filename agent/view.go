package main

import (
	"io/fs"
	"os"
	"path/filepath"

	promconfig "github.com/prometheus/common/config"
)

// view is what the agent opens while it runs. All else, it has opened before.
type view struct {
	audit      []string // directories of the audit logs
	auditFiles []string // that lie elsewhere: the directory has links to them
	dirs       []string // that hold nothing but what the agent reads again when it changes
	files      []string // the same, where the directory holds more than the agent's
	write      []string // directories of the state and of the agent's own log
	missing    []string // what was said of audit logs whose directory does not exist yet
}

// linksAtMost is how many links are followed from an audit log path, as the kernel does.
const linksAtMost = 40

// dnsFiles are what Go's resolver reads, now and again.
var dnsFiles = []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf"}

// view gives what the agent is going to open. Everything that is needed was found to be there before.
func (c *Config) view(targets []target) (*view, error) {
	v := new(view)
	for _, path := range c.AuditLogPath {
		v.addAudit(path)
	}
	for _, file := range dnsFiles {
		v.addDNS(file)
	}
	for _, t := range targets {
		v.addWrite(c.deadLetters(&t))
		http, err := t.httpConfig()
		if err != nil {
			return nil, err
		}
		for _, file := range filesOf(&http) {
			v.addFile(file, t.httpFile)
		}
	}
	v.addWrite(c.PositionsFile)
	if c.LogFile != "" {
		v.addWrite(c.LogFile)
	}
	return v, nil
}

// addAudit adds the directory of an audit log, and what links in it lead to. As long as there is none, it adds the nearest one
// above it, in which it will be made.
func (v *view) addAudit(path string) {
	for range linksAtMost {
		dir := filepath.Dir(path)
		for !isDir(dir) && dir != filepath.Dir(dir) {
			dir = filepath.Dir(dir)
		}
		v.audit = append(v.audit, dir)
		if dir != filepath.Dir(path) {
			v.missing = append(v.missing, dir)
			return
		}
		v.addLinked(dir)
		to, err := os.Readlink(path)
		if err != nil {
			return // no link, or not there yet
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(dir, to)
		}
		path = to
	}
}

// addLinked adds the files that links in a directory of audit logs lead to: backups may be such.
func (v *view) addLinked(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // that of a link's target may be open to those who know the name only
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if info, err := os.Stat(name); e.Type()&fs.ModeSymlink != 0 && err == nil && info.Mode().IsRegular() {
			v.auditFiles = append(v.auditFiles, name)
		}
	}
}

// exposed are the directories of audit logs that lie in one that is written, by whatever names the two are given.
func (v *view) exposed() (dirs []string) {
	for _, audit := range v.audit {
		real, err := resolved(audit)
		if err != nil {
			continue // gone meanwhile
		}
		for _, write := range v.write {
			if dir, err := resolved(write); err == nil && within(dir, real) {
				dirs = append(dirs, audit)
			}
		}
	}
	return distinct(dirs)
}

// addFile adds a file that httpFile names and that is read again when it changes: it alone, since others' keys may lie beside it. In
// a volume of Kubernetes, in systemd's directory of credentials and in that of httpFile, where all is for the agent, it adds the whole
// of that: there, new files come. Any other file that is replaced by a rename, rather than written, is refused from then on, which
// watchSandbox sees.
func (v *view) addFile(path, httpFile string) {
	if dir := ownDir(path, httpFile); dir != "" {
		v.dirs = append(v.dirs, dir)
		return
	}
	v.files = append(v.files, path)
}

// ownDir gives the directory that a file was put in for the agent, "" if it is not known to be such. None of the first level is: /etc
// has secrets of others.
func ownDir(path, httpFile string) string {
	real, err := resolved(path)
	if err != nil {
		return ""
	}
	if credentials, err := resolved(os.Getenv("CREDENTIALS_DIRECTORY")); err == nil && within(credentials, real) {
		return credentials
	}
	for dir := filepath.Dir(real); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		above := filepath.Dir(dir)
		if data, err := resolved(filepath.Join(above, "..data")); err == nil && data == dir && above != "/" {
			return above
		}
	}
	if file, err := resolved(httpFile); err == nil && within(filepath.Dir(file), real) && filepath.Dir(filepath.Dir(file)) != "/" {
		return filepath.Dir(file)
	}
	return ""
}

// addDNS adds a file that the resolver reads. Where it is a link, as into systemd-resolved's directory, whose files are replaced at
// every change of the network, it adds the directory; but not /etc, which has secrets of others, nor another of the first level.
func (v *view) addDNS(path string) {
	v.files = append(v.files, path)
	real, err := resolved(path)
	if dir := filepath.Dir(real); err == nil && filepath.Dir(dir) != "/" && dir != "/" {
		v.dirs = append(v.dirs, dir)
	}
}

// resolved is a path from the root, without links.
func resolved(path string) (string, error) {
	if path == "" {
		return "", fs.ErrNotExist
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// within reports whether a resolved path is a directory or lies in it.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// addWrite adds the directory of a file that is written, and of what it is a link to.
func (v *view) addWrite(file string) {
	v.write = append(v.write, filepath.Dir(file))
	if real, err := filepath.EvalSymlinks(file); err == nil {
		v.write = append(v.write, filepath.Dir(real))
	}
}

// filesOf are the files that an http_config names.
func filesOf(http *promconfig.HTTPClientConfig) (files []string) {
	named := []string{http.BearerTokenFile, http.TLSConfig.CAFile, http.TLSConfig.CertFile, http.TLSConfig.KeyFile}
	if http.BasicAuth != nil {
		named = append(named, http.BasicAuth.UsernameFile, http.BasicAuth.PasswordFile)
	}
	if http.Authorization != nil {
		named = append(named, http.Authorization.CredentialsFile)
	}
	if http.OAuth2 != nil {
		tls := http.OAuth2.TLSConfig
		named = append(named, http.OAuth2.ClientSecretFile, http.OAuth2.ClientCertificateKeyFile, tls.CAFile, tls.CertFile, tls.KeyFile)
	}
	if http.HTTPHeaders != nil {
		for _, header := range http.HTTPHeaders.Headers {
			named = append(named, header.Files...)
		}
	}
	for _, file := range named {
		if file != "" {
			files = append(files, file)
		}
	}
	return files
}

// distinct are the words of lists, each once.
func distinct(lists ...[]string) (words []string) {
	seen := make(map[string]bool)
	for _, list := range lists {
		for _, word := range list {
			if !seen[word] {
				seen[word] = true
				words = append(words, word)
			}
		}
	}
	return words
}
