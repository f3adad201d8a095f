package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/auditferry/auditferry/tailer"
)

// checkConfig tries what serve needs, without following, pushing, or taking the positions away from an agent that runs.
// It leaves nothing behind.
func checkConfig(cfg *Config, stdout io.Writer) error {
	if err := cfg.checkState(stdout); err != nil {
		return err
	}
	if err := cfg.checkHTTPFiles(); err != nil {
		return err
	}
	if cfg.LogFile != "" {
		if err := tryWriting("--log-file", cfg.LogFile); err != nil {
			return err
		}
	}
	if cfg.ListenAddress != "" {
		if _, err := net.ResolveTCPAddr("tcp", cfg.ListenAddress); err != nil {
			return fmt.Errorf("--listen-address: %w", err)
		}
	}
	quiet := slog.New(slog.DiscardHandler)
	for _, path := range cfg.AuditLogPath {
		tail, err := tailer.New(cfg.tail(path, tailer.Start{}, quiet, nil), nil)
		if err != nil {
			return explain(err)
		}
		tail.Close()
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintf(stdout, "%s does not exist yet: the agent would wait for it\n", path)
			if !isDir(filepath.Dir(path)) {
				fmt.Fprintf(stdout, "nor does its directory: is the path right?\n")
			}
		}
	}
	fmt.Fprintln(stdout, "the configuration is fine")
	return nil
}

// checkState tries where positions and dead letters go.
func (c *Config) checkState(stdout io.Writer) error {
	made := "" // a directory that the agent would make
	if dir := filepath.Dir(c.PositionsFile); c.PositionsFile == defaultPositionsFile() && !isDir(dir) {
		made = dir
		fmt.Fprintf(stdout, "%s does not exist yet: the agent would make it\n", dir)
	} else if err := tryWriting("--positions-file", c.PositionsFile); err != nil {
		return err
	}
	if filepath.Dir(c.DeadLetterFile) == made {
		return nil
	}
	return tryWriting("--dead-letter-file", c.DeadLetterFile)
}

// checkHTTPFiles reads --loki-http-config and tries the files that it names.
func (c *Config) checkHTTPFiles() error {
	http, err := c.httpConfig()
	if err != nil {
		return err
	}
	files := []string{http.BearerTokenFile, http.TLSConfig.CAFile, http.TLSConfig.CertFile, http.TLSConfig.KeyFile}
	if http.BasicAuth != nil {
		files = append(files, http.BasicAuth.UsernameFile, http.BasicAuth.PasswordFile)
	}
	if http.Authorization != nil {
		files = append(files, http.Authorization.CredentialsFile)
	}
	if http.OAuth2 != nil {
		tls := http.OAuth2.TLSConfig
		files = append(files, http.OAuth2.ClientSecretFile, tls.CAFile, tls.CertFile, tls.KeyFile)
	}
	for _, file := range files {
		if file == "" {
			continue
		}
		if _, err := os.ReadFile(file); err != nil {
			return fmt.Errorf("--loki-http-config=%s names a file that cannot be read: %w", c.LokiHTTPConfig, err)
		}
	}
	return nil
}

// tryWriting says why a file cannot be made beside path, or path is none.
func tryWriting(flag, path string) error {
	if isDir(path) {
		return fmt.Errorf("%s=%s is a directory: name a file", flag, path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".auditferry-check-*")
	if err != nil {
		return fmt.Errorf("%s=%s: its directory must exist and be writable: %w", flag, path, err)
	}
	_ = f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return fmt.Errorf("%s=%s: %w", flag, path, err)
	}
	return nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
