package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

// progress prints what happens, with the time since the start. Several goroutines use it.
type progress struct {
	start time.Time
	mu    sync.Mutex
	out   io.Writer
}

func newProgress(out io.Writer) *progress { return &progress{start: time.Now(), out: out} }

// say prints one line; what is one word.
func (p *progress) say(what, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, "%5.1fs  %-8s  %s\n", time.Since(p.start).Seconds(), what, fmt.Sprintf(format, args...))
}

// watch tells of each rotation of the audit log, once the backup is compressed, until ctx ends.
func (p *progress) watch(ctx context.Context, auditLog string) error {
	seen := map[string]bool{}
	err := rig.Poll(ctx, func() (bool, error) {
		backups, err := filepath.Glob(filepath.Join(filepath.Dir(auditLog), "audit-*.gz"))
		for _, backup := range backups {
			if !seen[backup] {
				seen[backup] = p.tell(backup)
			}
		}
		return false, err
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// tell reports whether a compressed backup is whole: lumberjack removes the plain file then.
func (p *progress) tell(backup string) bool {
	plain := strings.TrimSuffix(backup, ".gz")
	if _, err := os.Stat(plain); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	info, err := os.Stat(backup)
	if err != nil {
		return false
	}
	p.say("rotation", "%s, compressed to %s", filepath.Base(plain), size(int(info.Size())))
	return true
}

// lastLine gives the end of a log, for an error message.
func lastLine(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(lines[len(lines)-1])
}

// size gives a number of bytes as people read it.
func size(n int) string {
	if n < 1e6 {
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
