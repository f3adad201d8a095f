package main

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/auditferry/auditferry/agent/audit"
	"github.com/auditferry/auditferry/positions"
)

// admissionsPause is how long to wait before admissions that could not be written are tried again.
const admissionsPause = time.Second

// admissions is what the paths have admitted to labels for one destination, in memory and on disk.
type admissions struct {
	audit *audit.Admissions

	mu   sync.Mutex            // is held from where admissions are taken until they are durable
	file *positions.Admissions // of all destinations
}

// openAdmissions takes over what was admitted before. The positions of all paths are known by then.
func (a *agent) openAdmissions() error {
	for _, d := range a.destinations {
		keys := make([]string, len(a.cfg.AuditLogPath))
		for i, path := range a.cfg.AuditLogPath {
			keys[i] = d.key(path)
		}
		made, err := audit.NewAdmissions(a.cfg.labels(""), a.cfg.MaxStreams, keys...)
		if err != nil {
			return err
		}
		d.admitted = &admissions{audit: made}
	}
	var err error
	if a.admissions, err = positions.OpenAdmissions(a.store, a.restoreAdmissions); err != nil {
		return err
	}
	for _, d := range a.destinations {
		d.admitted.file = a.admissions
		d.admitted.measure(d.registerer)
		d.folded = newFolded(d.registerer)
	}
	return nil
}

// restoreAdmissions gives each destination its own, and keeps those of paths and destinations that are not given now.
func (a *agent) restoreAdmissions(found []positions.Admission) (kept []positions.Admission) {
	names := make(map[string]bool)
	for i := range found {
		names[found[i].Path] = true
	}
	for _, d := range a.destinations {
		own := make(map[string]string)
		for _, path := range a.cfg.AuditLogPath {
			name := d.admittedUnder(path, names)
			own[name] = d.key(path)
		}
		var before []audit.Admission
		for _, one := range found {
			if key, ok := own[one.Path]; ok {
				one.Path = key
				before = append(before, audit.Admission(one))
			}
		}
		for _, key := range own {
			names[key] = false
		}
		kept = append(kept, written(d.admitted.audit.Restore(before))...)
	}
	for _, one := range found {
		if names[one.Path] {
			kept = append(kept, one)
		}
	}
	return kept
}

// admittedUnder gives the key of what was admitted of a path. A destination that has its position from that of the path alone
// (see key) has its admissions from there too, until it has its own. One whose own position is lost has them still.
func (d *destination) admittedUnder(path string, names map[string]bool) string {
	key := d.key(path)
	if own := path + arrow + d.address; d.store.Lost() && names[own] {
		return own
	}
	if p, ok := d.store.Position(path); ok && !names[key] && p.Destination == d.address {
		return path
	}
	return key
}

// written gives admissions as they are written.
func written(made []audit.Admission) []positions.Admission {
	out := make([]positions.Admission, len(made))
	for i := range made {
		out[i] = positions.Admission(made[i])
	}
	return out
}

// keep makes durable what any path has admitted until now, for as long as it takes: nothing may be sent before, or what is sent
// again after a crash could get other labels. Whether a stream had room depends on those of the other paths too.
func (a *admissions) keep(ctx context.Context) error {
	for {
		err := a.write()
		if err == nil {
			return nil
		}
		pause := time.NewTimer(admissionsPause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return err
		case <-pause.C:
		}
	}
}

func (a *admissions) write() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.file.Append(written(a.audit.Take()))
}

// measure registers the metrics of what is admitted.
func (a *admissions) measure(reg prometheus.Registerer) {
	gauge := func(name, help string, get func() int) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "auditferry_" + name, Help: help},
			func() float64 { return float64(get()) }))
	}
	counter := func(name, help string, get func() int) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "auditferry_" + name, Help: help},
			func() float64 { return float64(get()) }))
	}
	gauge("streams", "Streams admitted, of --max-streams at the most, without those of malformed lines and of gaps.",
		func() int { all, _ := a.audit.Streams(); return all })
	counter("streams_admitted_total", "Streams admitted since the start.",
		func() int { _, made := a.audit.Streams(); return made })
	counter("resources_admitted_total", "Resources that are not built in, admitted since the start because a request for them succeeded.",
		func() int { _, made := a.audit.Resources(); return made })
}

// foldReasons are the values of the label reason, by bit of audit.Folds.
var foldReasons = []string{"verb", "resource", "streams_user", "streams_resource"}

// folded counts entries of which a label is other, by reason.
type folded []prometheus.Counter

func newFolded(reg prometheus.Registerer) folded {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "auditferry_folded_entries_total",
		Help: "Entries with a label that is other: the verb is unknown, the resource is not admitted, or there was no room below --max-streams for one more user, or resource.",
	}, []string{"reason"})
	reg.MustRegister(vec)
	var f folded
	for _, reason := range foldReasons {
		f = append(f, vec.WithLabelValues(reason))
	}
	return f
}

func (f folded) count(folds audit.Folds) {
	if folds == 0 {
		return
	}
	for i := range f {
		if folds&(1<<i) != 0 {
			f[i].Inc()
		}
	}
}
