//go:build e2e

package faults

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

// gap is what a gap entry tells.
type gap struct {
	entry      lokitest.Entry
	Reason     string    `json:"gap"`
	Node       string    `json:"node"`
	Path       string    `json:"path"`
	LastEvent  time.Time `json:"last_event"`
	FirstEvent time.Time `json:"first_event"`
	LostFiles  *int64    `json:"lost_files"`
	LostBytes  *int64    `json:"lost_bytes"`
	fault      error
}

func (r *run) readGap(e lokitest.Entry) gap {
	g := gap{entry: e}
	g.fault = json.Unmarshal([]byte(e.Line), &g)
	return g
}

// checkGaps judges a scenario that destroys events: each missing one must lie in a gap that was told, each gap must be told once,
// and no delivered event may lie in one.
func (r *run) checkGaps(v verdict) {
	r.Helper()
	if len(v.gaps) == 0 {
		r.Error("no gap was told")
	}
	if len(v.missing) == 0 {
		r.Error("nothing is missing: the scenario destroys nothing")
	}
	slices.SortFunc(v.gaps, func(a, b gap) int { return a.LastEvent.Compare(b.LastEvent) })
	for i, g := range v.gaps {
		r.checkGap(g)
		if i > 0 && g.LastEvent.Before(v.gaps[i-1].FirstEvent) {
			r.Errorf("a gap is told twice, or two overlap: %s and %s", v.gaps[i-1].entry.Line, g.entry.Line)
		}
	}
	missing := map[int]bool{}
	for _, n := range v.missing {
		missing[n] = true
	}
	untold, told := 0, make([]int, len(v.gaps))
	for n, line := range r.ledger.list() {
		in := slices.IndexFunc(v.gaps, func(g gap) bool { return line.time.After(g.LastEvent) && line.time.Before(g.FirstEvent) })
		switch {
		case missing[n] && in < 0:
			untold++
		case !missing[n] && in >= 0:
			r.Errorf("the event of %s is delivered, but lies in the gap %s", line.time, v.gaps[in].entry.Line)
		case missing[n]:
			told[in]++
		}
	}
	if untold > 0 {
		r.Errorf("%d of %d missing events lie in no gap that was told", untold, len(v.missing))
	}
	if r.scenario.counted {
		r.checkLostBytes(v)
	}
	for i, count := range told {
		if count == 0 {
			r.Errorf("a gap tells of nothing that is missing: %s", v.gaps[i].entry.Line)
		}
	}
}

// checkLostBytes judges how many bytes the gaps say are missing.
func (r *run) checkLostBytes(v verdict) {
	r.Helper()
	var told, lost int64
	for _, g := range v.gaps {
		if g.LostBytes != nil {
			told += *g.LostBytes
		}
	}
	lines := r.ledger.list()
	for _, n := range v.missing {
		lost += lines[n].end
		if n > 0 {
			lost -= lines[n-1].end
		}
	}
	if told != lost {
		r.Errorf("the gaps tell of %d lost bytes, %d are missing", told, lost)
	}
}

// checkGap judges what one gap entry says, and where.
func (r *run) checkGap(g gap) {
	r.Helper()
	if g.fault != nil || g.Reason == "" || g.Node != node || g.Path != r.auditLog {
		r.Errorf("a gap entry is not what it should be (%v): %s", g.fault, g.entry.Line)
	}
	if !g.LastEvent.Before(g.FirstEvent) || !g.entry.Time.Equal(g.FirstEvent) {
		r.Errorf("the times of a gap do not fit, its entry is of %s: %s", g.entry.Time, g.entry.Line)
	}
	labels := g.entry.Labels
	if labels["job"] != "kube-apiserver-audit" || labels["node"] != node || labels["service_name"] == "" {
		r.Errorf("the labels of a gap entry: %s", g.entry.Stream)
	}
	for _, name := range []string{"verb", "user", "resource"} {
		if _, ok := labels[name]; ok {
			r.Errorf("a gap entry has the label %s", name)
		}
	}
}
