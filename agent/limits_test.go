package main

import (
	"errors"
	"testing"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

func TestHeapLimit(t *testing.T) {
	const mib = 1 << 20
	none := func() (uint64, error) { return 0, memlimit.ErrNoLimit }
	for _, row := range []struct {
		name         string
		paths        int
		destinations int
		change       func(*Config)
		cgroup       memlimit.Provider
		want         int64
	}{
		{"no limit", 1, 1, nil, none, 24 * mib},
		{"no cgroup", 4, 1, nil, func() (uint64, error) { return 0, errors.New("no cgroup") }, 48 * mib},
		{"a wide limit", 1, 1, nil, memlimit.Limit(1 << 40), 24 * mib},
		{"a narrow limit", 4, 1, nil, memlimit.Limit(50 * mib), 40 * mib},
		{"large batches", 1, 1, func(c *Config) { c.BatchSize = 6 * mib }, none, 49 * mib},
		{"many pushes", 2, 1, func(c *Config) { c.PushesInFlight = 14 }, none, 72 * mib},
		{"extras", 1, 1, func(c *Config) { c.LokiStreamRate = 0 }, none, 24 * mib},
		{"two destinations", 2, 2, nil, none, 48 * mib},
	} {
		cfg := &Config{AuditLogPath: make([]string, row.paths)}
		cfg.BatchSize, cfg.LokiStreamRate = mib, mib
		if row.change != nil {
			row.change(cfg)
		}
		if got := heapLimit(cfg, row.destinations, row.cgroup); (got+mib/2)/mib != row.want/mib {
			t.Errorf("%s: %d bytes, want %d", row.name, got, row.want)
		}
	}
}
