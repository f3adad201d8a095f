//go:build e2e

package faults

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

// examples bounds how many events are named for each kind of fault.
const examples = 3

// finish waits until all that was written is delivered, stops the agent, which must be running, and judges.
func (r *run) finish() {
	r.Helper()
	r.waitDelivered()
	if dropped := int(r.metric("auditferry_dropped_entries_total")); !r.scenario.refuses && dropped != 0 {
		r.Errorf("%d entries were dropped", dropped)
	}
	r.stop()
	r.checkLog()
	v := r.look()
	if v.extra > 0 {
		r.Errorf("%d entries of no line that was written", v.extra)
	}
	if v.repeated > 0 {
		r.Errorf("%d entries repeated", v.repeated)
	}
	if len(v.dead) > 0 && !r.scenario.refuses {
		r.Errorf("%d dead letters", len(v.dead))
	}
	if r.scenario.refuses && len(v.dead) == 0 {
		r.Error("no dead letters: the scenario tests nothing")
	}
	if v.both > 0 {
		r.Errorf("%d events are both in Loki and dead letters", v.both)
	}
	if r.scenario.destroys {
		r.checkGaps(v)
		return
	}
	if len(v.missing) > 0 {
		r.Errorf("%d events are missing", len(v.missing))
	}
	if len(v.gaps) > 0 {
		r.Errorf("%d gaps were told, though nothing was destroyed", len(v.gaps))
	}
}

// waitDelivered waits until nothing is missing. Where events are destroyed it waits for the newest one, and until there is
// nothing left to read.
func (r *run) waitDelivered() {
	r.Helper()
	delivered := func() bool { return len(r.look().missing) == 0 }
	if r.scenario.destroys {
		delivered = func() bool {
			lag, err := r.agent.Metric(r.ctx, "auditferry_lag_bytes")
			v := r.look()
			return err == nil && lag == 0 && len(v.gaps) > 0 && !slices.Contains(v.missing, len(r.ledger.list())-1)
		}
	}
	least, since := len(r.ledger.list())+1, time.Now()
	err := rig.Poll(r.ctx, func() (bool, error) {
		if delivered() {
			return true, nil
		}
		if now := len(r.look().missing); now < least {
			least, since = now, time.Now()
		}
		if time.Since(since) > patience {
			return false, errors.New("no more of it comes")
		}
		return false, r.agent.Running()
	})
	if err != nil {
		r.Errorf("waiting until all is delivered: %v", err)
	}
}

// waitAcknowledged waits, once all is delivered, until the agent counts it as done.
func (r *run) waitAcknowledged() {
	r.Helper()
	r.eventually("all is acknowledged", func() bool { return r.metric("auditferry_lag_bytes") == 0 })
}

// verdict is what a log query over everything shows.
type verdict struct {
	written, delivered int
	missing            []int // places in the ledger of what is neither delivered nor a dead letter
	repeated           int   // entries beyond one for each line
	twice              []int // places in the ledger of some of them
	extra              int   // entries of no line that was written
	dead               map[[sha256.Size]byte]bool
	both               int // both delivered and dead letters
	gaps               []gap
}

// look compares what was written with what Loki would show.
func (r *run) look() verdict {
	r.Helper()
	entries := r.server.Entries()
	lines := r.ledger.list()
	v := verdict{written: len(lines), dead: r.deadEvents()}
	found := make([]int, len(lines))
	for _, e := range entries {
		if e.Labels["event"] == "gap" {
			v.gaps = append(v.gaps, r.readGap(e))
			continue
		}
		n, known := r.ledger.number(e.LineHash)
		if !known && r.scenario.torn && e.Labels["resource"] == "malformed" {
			continue
		}
		if !known || n >= len(lines) {
			v.extra++
			continue
		}
		if found[n]++; found[n] > 1 && len(v.twice) < examples {
			v.twice = append(v.twice, n)
		}
	}
	for n, times := range found {
		switch {
		case times > 0:
			v.delivered++
			v.repeated += times - 1
			if v.dead[lines[n].hash] {
				v.both++
			}
		case !v.dead[lines[n].hash]:
			v.missing = append(v.missing, n)
		}
	}
	return v
}

// deadEvents gives the hashes of the events in the dead-letter files.
func (r *run) deadEvents() map[[sha256.Size]byte]bool {
	r.Helper()
	dead := map[[sha256.Size]byte]bool{}
	for _, letter := range r.deadLetters() {
		var d struct {
			Event string `json:"event"`
			Bytes []byte `json:"event_base64"`
		}
		if json.Unmarshal(letter, &d) != nil {
			continue // what a full disk left of one; the whole one follows
		}
		if d.Bytes == nil {
			d.Bytes = []byte(d.Event)
		}
		dead[sha256.Sum256(d.Bytes)] = true
	}
	return dead
}

// row is the row of the table.
func (r *run) row(took time.Duration) row {
	v := r.look()
	for _, n := range v.missing[:min(len(v.missing), examples)] {
		r.Logf("missing: line %d, of %s", n, r.ledger.list()[n].time)
	}
	for _, n := range v.twice {
		for _, e := range r.server.Entries() {
			if at, known := r.ledger.number(e.LineHash); known && at == n {
				r.Logf("repeated: line %d, of %s, in %s", n, r.ledger.list()[n].time, e.Stream)
			}
		}
	}
	return row{side: r.scenario.side, scenario: r.scenario.name, written: v.written, delivered: v.delivered, missing: len(v.missing),
		repeated: v.repeated, gap: len(v.gaps), dead: len(v.dead), passed: !r.Failed(), took: took}
}

// checkLog fails the scenario if the agent's log tells of a panic, or of a bug that it found in itself.
func (r *run) checkLog() {
	r.Helper()
	text, err := os.ReadFile(r.agent.LogFile())
	r.must(err)
	for _, words := range []string{"panic:", "fatal error:", "DATA RACE", `msg="bug`, "report this bug"} {
		if strings.Contains(string(text), words) {
			r.Errorf("the agent's log says %q: %s", words, r.agent.LogFile())
		}
	}
}

// checkPosition fails the scenario if the positions on disk are past what Loki has acknowledged, or refused for good.
func (r *run) checkPosition() {
	r.Helper()
	if r.scenario.unordered || r.scenario.destroys {
		return
	}
	// The position first: what is acknowledged only grows.
	position := r.positionOnDisk()
	acked := r.deadEvents()
	for _, e := range r.server.Entries() {
		if e.Acked > 0 {
			acked[e.LineHash] = true
		}
	}
	var end int64
	for _, line := range r.ledger.list() {
		if !acked[line.hash] {
			break
		}
		end = line.end
	}
	if position > end {
		r.Errorf("the position on disk is after %d bytes, what was acknowledged without a hole ends at %d", position, end)
	}
}

// positionOnDisk gives the lsn of the audit log in the positions files, the highest one; 0 if there is none.
func (r *run) positionOnDisk() int64 {
	r.Helper()
	lsn, _, err := r.agent.PositionOnDisk()
	r.must(err)
	return lsn
}

// lsn gives the lsn of the audit log in the texts of positions files, the highest one; 0 if none is whole and knows the path.
func (r *run) lsn(texts ...[]byte) (highest int64) {
	for _, text := range texts {
		lsn, _ := rig.LSN(text, r.agent.AuditLog)
		highest = max(highest, lsn)
	}
	return highest
}

// delivered waits until at least n entries are in Loki.
func (r *run) delivered(n int) {
	r.Helper()
	r.eventually("entries are delivered", func() bool { return len(r.server.Entries()) >= n })
}
