package tailer

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/auditferry/auditferry/positions"
)

var modelSteps = flag.Int("model.steps", 6_000, "steps of TestModel")

// model is a world driven by bytes, and what the Tailer must make of it: the lines in the order in which they were
// written, each once; after a kill, again from the acknowledged one on.
type model struct {
	*world
	numbered bool
	program  []byte

	lines   []string // all that can be read; one that ends in "…" is a fragment
	partial string   // the beginning of a line, written already
	backups []*modelBackup
	inLog   int // lines of the active file

	read     int // lines read since the last kill, and those before
	ends     []positions.Position
	acked    int // lines acknowledged
	needAck  int // lines whose files are gone: a kill must not go back before them
	lookedAt int // length of backups at the last look: those before it are held
}

type modelBackup struct {
	name  string
	last  int // lines[:last] are read when this file is
	state int // of compression
}

const (
	plain = iota
	packEmpty
	packPartial
	packDone
)

func newModel(t testing.TB, program []byte, numbered bool) *model {
	m := &model{world: newWorld(t), program: program, numbered: numbered}
	m.world.start(nil)
	m.ends = []positions.Position{m.tailer.Start()}
	return m
}

func (m *model) byte() int {
	if len(m.program) == 0 {
		return 0
	}
	b := m.program[0]
	m.program = m.program[1:]
	return int(b)
}

func (m *model) run() {
	m.Helper()
	for len(m.program) > 0 {
		m.step()
	}
	m.append("")
	m.append(m.line())
	m.world.look()
	m.check(1 << 30)
	if m.read != len(m.lines) {
		m.Fatalf("stuck at line %d of %d:%s", m.read, len(m.lines), m.chain())
	}
}

func (m *model) step() {
	m.Helper()
	switch op := m.byte() % 16; op {
	case 0, 1, 2:
		m.append(m.line())
	case 3:
		l := m.line()
		cut := 22 + m.byte()%(len(l)-22) // past its number
		if m.partial == "" {
			m.raw(l[:cut])
			m.partial = l[:cut]
		}
	case 4, 5:
		m.turn()
	case 6, 7:
		m.compress(m.byte())
	case 8:
		m.prune()
	case 9, 10:
		m.world.look()
		m.lookedAt = len(m.backups)
	case 11, 12, 13:
		m.check(1 + m.byte()%8)
	case 14:
		m.check(1 << 30)
	case 15:
		m.acknowledge(m.byte())
	}
}

// append writes a line; if one was begun, its end.
func (m *model) append(l string) {
	if m.partial != "" {
		l = m.partial + "end"
		m.raw("end\n")
		m.partial = ""
	} else if l == "" {
		return
	} else {
		m.raw(l + "\n")
	}
	m.lines = append(m.lines, l)
	m.inLog++
}

func (m *model) turn() {
	m.Helper()
	if m.out == nil || m.numbered && m.inLog == 0 {
		return // as logrotate without a whole line: what is left without one is waited for by the clock
	}
	if m.partial != "" {
		m.lines = append(m.lines, m.partial+"…")
		m.partial = ""
	}
	m.inLog = 0
	b := &modelBackup{last: len(m.lines)}
	if m.numbered {
		if len(m.backups) > 25 {
			m.prune()
		}
		m.logrotate(false)
		b.name = "audit.log.1"
		for i, old := range m.backups {
			old.name = fmt.Sprintf("audit.log.%d", len(m.backups)-i+1)
		}
	} else {
		b.name = m.rotate()
	}
	m.backups = append(m.backups, b)
}

// compress takes some backup one step on.
func (m *model) compress(which int) {
	m.Helper()
	if len(m.backups) == 0 {
		return
	}
	b := m.backups[which%len(m.backups)]
	switch {
	case m.numbered && b.state != packDone:
		m.gzip(b.name)
		b.state = packDone
	case b.state == plain:
		m.pack(b.name, 0)
		b.state = packEmpty
	case b.state == packEmpty:
		m.pack(b.name, float64(which)/256)
		b.state = packPartial
	case b.state == packPartial:
		m.gzip(b.name)
		b.state = packDone
	}
}

// prune deletes the oldest backup, if it is read or held.
func (m *model) prune() {
	m.Helper()
	if len(m.backups) == 0 {
		return
	}
	b := m.backups[0]
	if b.last > m.read && m.lookedAt == 0 {
		return
	}
	for _, name := range []string{b.name, b.name + ".gz"} {
		if err := os.Remove(m.file(name)); err != nil && !os.IsNotExist(err) {
			m.Fatal(err)
		}
	}
	m.needAck = max(m.needAck, b.last)
	m.backups = m.backups[1:]
	m.lookedAt = max(0, m.lookedAt-1)
}

// check reads up to n lines and compares them.
func (m *model) check(n int) {
	m.Helper()
	lines := m.next(n)
	for i, got := range lines {
		if m.read >= len(m.lines) || got != m.lines[m.read] {
			m.Fatalf("line %d of %d: read %q, want %q%s", m.read, len(m.lines), got,
				strings.Join(m.lines[min(m.read, len(m.lines)):min(m.read+1, len(m.lines))], ""), m.chain())
		}
		m.read++
		end := m.world.ends[len(m.world.ends)-len(lines)+i]
		if before := m.ends[len(m.ends)-1]; end.LSN <= before.LSN {
			m.Fatalf("lsn %d after %d", end.LSN, before.LSN)
		}
		m.ends = append(m.ends, end)
	}
}

// acknowledge moves the acknowledged position up to what was read, and kills the Tailer.
func (m *model) acknowledge(how int) {
	m.Helper()
	m.acked += (m.read - m.acked) * (how % 4) / 3
	if m.acked < m.needAck {
		return
	}
	end := m.ends[m.acked]
	m.world.start(&end)
	m.ends = m.ends[:m.acked+1]
	m.read = m.acked
	m.lookedAt = len(m.backups)
}

func runModel(t testing.TB, program []byte) {
	t.Helper()
	if len(program) > 0 {
		newModel(t, program[1:], program[0]%4 == 0).run()
	}
}

func TestModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	for done := 0; done < *modelSteps; done += 400 {
		seed++
		r := rand.New(rand.NewPCG(seed, 1))
		program := make([]byte, 500)
		for i := range program {
			program[i] = byte(r.Uint32())
		}
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { runModel(t, program) })
		if t.Failed() {
			return
		}
	}
}

func FuzzModel(f *testing.F) {
	f.Add([]byte{1, 0, 0, 4, 0, 9, 14, 15, 3})
	f.Add([]byte{0, 0, 0, 4, 0, 9, 14, 6, 0, 4, 15, 3})
	f.Fuzz(func(t *testing.T, program []byte) { runModel(t, program[:min(len(program), 2000)]) })
}
