package main

import (
	"cmp"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"github.com/auditferry/auditferry/shipper"
)

// limitCores keeps the agent to one core, which carries some 300 MB of audit log a second: the others are the apiserver's and
// etcd's, and goroutines that take turns on one core cost a tenth less than those that wake one another on two.
func limitCores() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
}

// What the heap may hold, softly: longer lines may take more. ofCgroup leaves room for what is not the heap.
const (
	heapBase    = 16 << 20
	heapPerPath = 3 << 20
	ofCgroup    = 0.8
)

// heapOfBatch is what a batch takes with what it is encoded to, and with its garbage, in bytes.
func heapOfBatch(size Size) int64 { return int64(size) * 5 / 3 }

// limitMemory keeps the garbage small on a node that etcd shares, and within the limit of the container or unit. The agent
// allocates next to nothing once it runs, so collecting more often costs little.
func limitMemory(cfg *Config, destinations int) {
	if !cfg.Pprof {
		runtime.MemProfileRate = 0
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(25)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(heapLimit(cfg, destinations, memlimit.FromCgroup))
	}
}

// heapLimit is what the heap may hold, in bytes, under the limit of a cgroup. Of each path one batch is being filled, and others
// are on their way, for each destination. The extra ones of a slow Loki get no room of their own, as they mostly take little.
func heapLimit(cfg *Config, destinations int, cgroup memlimit.Provider) int64 {
	followers, batches := int64(len(cfg.AuditLogPath)*destinations), int64(1+cmp.Or(cfg.PushesInFlight, shipper.UsualInFlight))
	limit := heapBase + followers*(heapPerPath+batches*heapOfBatch(cfg.BatchSize))
	if all, err := memlimit.ApplyRatio(cgroup, ofCgroup)(); err == nil { // an error: there is no limit, or no cgroup
		limit = min(limit, int64(all))
	}
	return limit
}
