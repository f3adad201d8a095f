//go:build e2e && linux

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// cgroup tells where the kernel accounts for a container.
type cgroup struct {
	cpu                figure
	cpuUnit            time.Duration
	periods, throttled figure // how often the quota was given out, and how often it was used up
	memory             figure // the most so far, page cache included
	oomKills           figure
}

// figure is a number that the kernel gives in a file: the file's only one, or that of the line that begins with key.
type figure struct{ file, key string }

// findCgroup gives the cgroup of a process, of version 1 or 2.
func findCgroup(t *testing.T, pid int) cgroup {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatalf("Docker must run its containers on this machine: %v", err)
	}
	dirs := map[string]string{} // by controller; version 2 has one directory for all, under ""
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		for controller := range strings.SplitSeq(parts[1], ",") {
			dirs[controller] = filepath.Join("/sys/fs/cgroup", controller, parts[2])
		}
	}
	memory, version1 := dirs["memory"]
	if !version1 {
		dir := dirs[""]
		stat := filepath.Join(dir, "cpu.stat")
		return cgroup{
			cpu: figure{stat, "usage_usec"}, cpuUnit: time.Microsecond,
			periods: figure{stat, "nr_periods"}, throttled: figure{stat, "nr_throttled"},
			memory:   figure{file: filepath.Join(dir, "memory.peak")},
			oomKills: figure{filepath.Join(dir, "memory.events"), "oom_kill"},
		}
	}
	stat := filepath.Join(dirs["cpu"], "cpu.stat")
	return cgroup{
		cpu: figure{file: filepath.Join(dirs["cpuacct"], "cpuacct.usage")}, cpuUnit: time.Nanosecond,
		periods: figure{stat, "nr_periods"}, throttled: figure{stat, "nr_throttled"},
		memory:   figure{file: filepath.Join(memory, "memory.max_usage_in_bytes")},
		oomKills: figure{filepath.Join(memory, "memory.oom_control"), "oom_kill"},
	}
}

func (f figure) read(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile(f.file)
	if errors.Is(err, fs.ErrNotExist) && filepath.Base(f.file) == "memory.peak" {
		return 0 // Linux has it from 5.19 on
	}
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		value := strings.TrimSpace(line)
		if f.key != "" {
			var found bool
			if value, found = strings.CutPrefix(value, f.key+" "); !found {
				continue
			}
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			t.Fatalf("reading %s: %v", f.file, err)
		}
		return n
	}
	t.Fatalf("%s has no %q", f.file, f.key)
	return 0
}
