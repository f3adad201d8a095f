//go:build e2e

package faults

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/auditferry/auditferry/hack/rig"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

// powerLoss is what a loss of power can leave of the positions files, beside what a SIGKILL leaves (package positions). The
// durable file is of at most a second earlier, and whole; the latest files, which are not synced, can be anything.
type powerLoss struct {
	name    string
	leave   func(r *run, earlier, now state)
	damaged bool // a file is kept aside, and the log says so
	lost    bool // none is whole, and the metric says so
	again   bool // so much is lost that pushes must be repeated
}

// state is the three positions files.
type state struct {
	durable []byte
	latest  [2][]byte
}

// spoiled is the state with something done to the latest files.
func (s state) spoiled(spoil func([]byte) []byte) state {
	for i, text := range s.latest {
		s.latest[i] = spoil(text)
	}
	return s
}

func lost([]byte) []byte        { return nil }
func empty([]byte) []byte       { return []byte{} }
func zeroed(text []byte) []byte { return make([]byte, len(text)) }
func cut(text []byte) []byte    { return text[:len(text)/2] }
func garbled(text []byte) []byte {
	return bytes.Replace(text, []byte(`"offset": `), []byte(`"offset": 9`), 1)
}

func init() {
	for _, loss := range []powerLoss{
		{name: "latest positions lost", leave: func(r *run, _, now state) { r.setPositions(now.spoiled(lost)) }},
		{name: "latest positions empty", damaged: true, leave: func(r *run, _, now state) { r.setPositions(now.spoiled(empty)) }},
		{name: "latest positions zero-filled", damaged: true, leave: func(r *run, _, now state) { r.setPositions(now.spoiled(zeroed)) }},
		{name: "latest positions cut", damaged: true, leave: func(r *run, _, now state) { r.setPositions(now.spoiled(cut)) }},
		{name: "latest positions garbled", damaged: true, leave: func(r *run, _, now state) { r.setPositions(now.spoiled(garbled)) }},
		{name: "one of the latest positions torn", leave: func(r *run, _, now state) {
			newer := 0
			if r.lsn(now.latest[1]) > r.lsn(now.latest[0]) {
				newer = 1
			}
			now.latest[newer] = append(cut(now.latest[newer]), now.latest[1-newer][len(cut(now.latest[newer])):]...)
			r.setPositions(now)
		}},
		{name: "latest positions of before", leave: func(r *run, earlier, now state) {
			r.setPositions(state{now.durable, earlier.latest})
		}},
		{name: "temporary files left over", leave: func(r *run, earlier, now state) {
			r.setPositions(now)
			r.must(os.WriteFile(r.agent.PositionsFile()+".tmp", earlier.durable[:100], 0o600))
			r.must(os.WriteFile(r.agent.LatestFiles()[0]+".tmp", make([]byte, 300), 0o600)) // as versions before this one left it
		}},
		{name: "all positions of before", again: true, leave: func(r *run, earlier, _ state) { r.setPositions(earlier) }},
		{name: "durable positions of before, latest zero-filled", again: true, damaged: true, leave: func(r *run, earlier, now state) {
			r.setPositions(state{earlier.durable, now.spoiled(zeroed).latest})
		}},
		{name: "all positions files lost", again: true, leave: func(r *run, _, _ state) { r.setPositions(state{}) }},
		{name: "all positions files zero-filled", again: true, damaged: true, lost: true, leave: func(r *run, _, now state) {
			now.durable = zeroed(now.durable)
			r.setPositions(now.spoiled(zeroed))
		}},
	} {
		register(scenario{side: "agent", name: "power loss: " + loss.name, play: loss.play})
	}
}

// play kills the agent in the middle of its work, leaves of the positions what a power loss can, and starts it again.
func (loss powerLoss) play(r *run) {
	r.start()
	stop := r.keepWriting(rig.WriterConfig{MaxSize: 1, PerSecond: 300, Compress: true})
	r.delivered(300)
	earlier := r.positions()
	for r.lsn(earlier.durable) == 0 {
		r.delivered(len(r.server.Entries()) + 50)
		earlier = r.positions()
	}
	r.eventually("the durable positions have moved on, and the latest are ahead of them", func() bool {
		now := r.positions()
		return r.lsn(now.durable) > r.lsn(earlier.latest[:]...) && r.lsn(now.latest[:]...) > r.lsn(now.durable)
	})
	r.kill()
	loss.leave(r, earlier, r.positions())

	// It must go on at the best position that is left.
	from := r.positionOnDisk()
	lines := r.ledger.list()
	var mu sync.Mutex
	lowest, arrived := len(lines), r.server.Arrivals()-len(r.server.Entries())
	r.server.Answer(func(request lokitest.Request) lokitest.Reply {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range request.Entries {
			if n, known := r.ledger.number(e.LineHash); known {
				lowest = min(lowest, n)
			}
		}
		return lokitest.OK()
	})
	before := len(r.server.Entries())
	r.start()
	r.delivered(before + 300)
	stop()
	r.waitDelivered()
	mu.Lock()
	defer mu.Unlock()
	if lowest < len(lines) && lines[lowest].end <= from {
		r.Errorf("line %d was pushed again, though a positions file is past it", lowest)
	}
	again := r.server.Arrivals() - len(r.server.Entries()) - arrived
	if loss.again && again < 50 {
		r.Errorf("%d entries were pushed again: the positions were not lost", again)
	}
	if lost := r.metric("auditferry_positions_lost") == 1; lost != loss.lost {
		r.Errorf("auditferry_positions_lost is 1: %t, want %t", lost, loss.lost)
	}
	aside, err := filepath.Glob(filepath.Join(r.agent.Dir, "*.damaged-*"))
	r.must(err)
	if told := r.logged("positions file is damaged and kept aside"); told != loss.damaged || (len(aside) > 0) != loss.damaged {
		r.Errorf("damage was told: %t, want %t; kept aside: %q", told, loss.damaged, aside)
	}
}

// positions gives the contents of the positions files.
func (r *run) positions() (now state) {
	r.Helper()
	var err error
	now.durable, err = os.ReadFile(r.agent.PositionsFile())
	r.must(err)
	for i, path := range r.agent.LatestFiles() {
		if now.latest[i], err = os.ReadFile(path); !errors.Is(err, fs.ErrNotExist) { // the second one comes with the second push
			r.must(err)
		}
	}
	return now
}

// setPositions replaces the positions files; nil removes one.
func (r *run) setPositions(to state) {
	r.Helper()
	files := map[string][]byte{r.agent.PositionsFile(): to.durable}
	for i, path := range r.agent.LatestFiles() {
		files[path] = to.latest[i]
	}
	for path, text := range files {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.Fatal(err)
		}
		if text != nil {
			r.must(os.WriteFile(path, text, 0o600))
		}
	}
}
