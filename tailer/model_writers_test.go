package tailer

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/auditferry/auditferry/positions"
)

var writersSteps = flag.Int("model.writers", 8_000, "steps of TestWritersModel")

// writersModel is a world of two apiservers on one path and a clock that can step back, driven by bytes. The order of lines
// is not known then; but what is on disk, or was while the Tailer had it open, is read, once between two kills and not again
// when it was acknowledged, and no gap is told.
type writersModel struct {
	*world
	program []byte
	stepped bool // the clock did step back
	steady  bool // the clock does not step back any more: of several steps, names do not tell the order

	now   time.Time
	out   [2]*os.File // what each writer has open, nil if it does not run
	into  [2]*modelFile
	files []*modelFile
	log   *modelFile // at the path

	acked   map[string]bool
	read    map[string]bool // since the last kill
	lines   []string        // as read since then
	ends    []positions.Position
	mayMiss map[string]bool // written where nobody could read it
	inDoubt map[string]bool // in a file of which more was read than is in its .gz: a restart may read it again
	gapped  bool            // the file of the position was deleted
}

// modelFile is one file of the path, whatever its name.
type modelFile struct {
	name    string
	info    os.FileInfo
	lines   []string
	packed  bool // has a .gz
	deleted bool // has no name any more
}

func (m *writersModel) byte() int {
	if len(m.program) == 0 {
		return 0
	}
	b := m.program[0]
	m.program = m.program[1:]
	return int(b)
}

func runWriters(t testing.TB, program []byte) {
	t.Helper()
	m := &writersModel{world: newWorld(t), program: program, mayMiss: map[string]bool{}, inDoubt: map[string]bool{}, acked: map[string]bool{}}
	m.now = m.clock
	m.steady = m.byte()%2 == 0
	t.Cleanup(func() { m.exit(0); m.exit(1) })
	m.begin(nil)
	for len(m.program) > 0 {
		m.step()
	}
	m.finish()
}

func (m *writersModel) step() {
	m.Helper()
	m.now = m.now.Add(7 * time.Millisecond)
	switch op := m.byte() % 20; op {
	case 0, 1, 2:
		m.write(0)
	case 3, 4, 5:
		m.write(1)
	case 6:
		m.turn(0, m.byte())
	case 7:
		m.turn(1, m.byte())
	case 8:
		if m.byte()%4 == 0 {
			m.exit(1)
		}
	case 9:
		m.pack(m.byte())
	case 10:
		m.prune()
	case 11, 12, 13:
		m.look()
	case 14, 15:
		m.check(1 + m.byte()%6)
	case 16:
		m.check(1 << 30)
	case 17, 18:
		m.acknowledge(m.byte())
	case 19:
		if m.byte()%4 == 0 && !m.steady && len(m.acked) > 0 {
			m.now = m.now.Add(-time.Hour)
			m.steady, m.stepped = true, true
		}
	}
}

func (m *writersModel) begin(from *positions.Position) {
	m.Helper()
	m.start(from)
	m.lines, m.read, m.ends = nil, map[string]bool{}, []positions.Position{m.tailer.Start()}
}

func (m *writersModel) exit(who int) {
	if m.out[who] != nil {
		_ = m.out[who].Close()
	}
	m.out[who], m.into[who] = nil, nil
}

// open does as an apiserver that starts, or has renamed the log.
func (m *writersModel) open(who int) {
	m.Helper()
	var err error
	m.out[who], err = os.OpenFile(m.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	m.ok(err)
	if m.log == nil {
		info, err := m.out[who].Stat()
		m.ok(err)
		m.log = &modelFile{name: "audit.log", info: info}
		m.files = append(m.files, m.log)
	}
	m.into[who] = m.log
}

func (m *writersModel) write(who int) {
	m.Helper()
	if m.out[who] == nil {
		m.open(who)
	}
	m.put(who, m.event())
}

// event makes a line with the present time.
func (m *writersModel) event() string {
	m.count++
	return fmt.Sprintf("%s %06d", m.now.Format(time.RFC3339Nano), m.count)
}

func (m *writersModel) put(who int, l string) {
	m.Helper()
	f := m.into[who]
	if (f.packed || f.deleted) && !m.isOpen(f) {
		m.mayMiss[l] = true
	}
	f.lines = append(f.lines, l)
	_, err := m.out[who].WriteString(l + "\n")
	m.ok(err)
}

// isOpen reports whether the Tailer has the file itself open.
func (m *writersModel) isOpen(f *modelFile) bool {
	return slices.ContainsFunc(m.tailer.chain.links, func(l *link) bool { return l.file != nil && os.SameFile(l.file.info, f.info) })
}

// turn rotates, with looks in between.
func (m *writersModel) turn(who, how int) {
	m.Helper()
	if m.out[who] == nil || m.log == nil {
		return
	}
	l := m.event()
	name := "audit-" + m.now.Format(backupTime) + ".log"
	if slices.ContainsFunc(m.files, func(f *modelFile) bool { return f.name == name }) {
		return
	}
	m.exit(who)
	m.ok(os.Rename(m.path, m.file(name)))
	m.log.name, m.log = name, nil
	if how&1 > 0 {
		m.look()
	}
	m.open(who)
	if how&2 > 0 {
		m.look()
	}
	m.put(who, l)
}

func (m *writersModel) backups() (found []*modelFile) {
	for _, f := range m.files {
		if f != m.log && !f.deleted {
			found = append(found, f)
		}
	}
	slices.SortFunc(found, func(a, b *modelFile) int { return strings.Compare(a.name, b.name) })
	return found
}

func (m *writersModel) pack(which int) {
	m.Helper()
	backups := m.backups()
	if len(backups) == 0 {
		return
	}
	f := backups[which%len(backups)]
	if f.packed {
		return
	}
	m.world.pack(f.name, 1)
	if which%3 == 0 {
		m.look()
	}
	f.packed = true
	m.remove(f.name)
}

// prune deletes the oldest backup, if all that can be read of it was read, or is held.
func (m *writersModel) prune() {
	m.Helper()
	backups := m.backups()
	if len(backups) == 0 || m.stepped { // the oldest by name is the newest then
		return
	}
	f := backups[0]
	if !m.isOpen(f) && !m.heldPacked(f) && slices.ContainsFunc(f.lines, func(l string) bool {
		return !m.acked[l] && !m.read[l] && !m.mayMiss[l]
	}) {
		return
	}
	for _, name := range []string{f.name, f.name + ".gz"} {
		if err := os.Remove(m.file(name)); err != nil && !os.IsNotExist(err) {
			m.Fatal(err)
		}
	}
	f.deleted = true
}

func (m *writersModel) heldPacked(f *modelFile) bool {
	return slices.ContainsFunc(m.tailer.chain.links, func(l *link) bool { return l.stem == f.name && l.file != nil })
}

// check reads up to n lines: none twice, and none that was acknowledged.
func (m *writersModel) check(n int) {
	m.Helper()
	for range n {
		l, err := m.tailer.Next(ended)
		if err != nil {
			return
		}
		s := string(l.Bytes)
		if m.read[s] || m.acked[s] && !m.inDoubt[s] {
			m.Fatalf("read again: %q, acknowledged %v%s", s, m.acked[s], m.chain())
		}
		var event time.Time
		if event, err = time.Parse(time.RFC3339Nano, s[:len(s)-7]); err != nil || l.Fragment {
			m.Fatalf("a torn line %q", s)
		}
		if l.Gap != nil && !m.gapped || m.tailer.Hole(event) {
			m.Fatalf("a gap before %q: %+v, hole %v, after %v until %v%s", s, l.Gap, m.tailer.Hole(event), m.tailer.after, m.tailer.until, m.chain())
		}
		if before := m.ends[len(m.ends)-1]; l.End.LSN <= before.LSN {
			m.Fatalf("lsn %d after %d", l.End.LSN, before.LSN)
		}
		m.gapped = false
		m.read[s] = true
		m.lines = append(m.lines, s)
		m.ends = append(m.ends, l.End)
		m.ends[len(m.ends)-1].EventTime = event
	}
}

// acknowledge moves the acknowledged position up to what was read, and kills the Tailer unless that destroys something.
func (m *writersModel) acknowledge(how int) {
	m.Helper()
	n := len(m.lines) * (how % 4) / 3
	acked := map[string]bool{}
	for _, l := range m.lines[:n] {
		acked[l] = true
	}
	for _, f := range m.files {
		for i, l := range f.lines {
			if (f.deleted || f.packed && !m.inPack(f, i)) && !m.acked[l] && !acked[l] && !m.mayMiss[l] {
				return
			}
		}
	}
	end := m.ends[n]
	if !end.Identified() && len(m.acked) > 0 {
		return // names alone tell the order then
	}
	for l := range acked {
		m.acked[l] = true
	}
	for _, f := range m.files {
		for _, l := range f.lines {
			m.inDoubt[l] = f.packed && !f.deleted && !m.inPack(f, len(f.lines)-1)
		}
	}
	m.gapped = end.Identified() && !slices.ContainsFunc(m.files, func(f *modelFile) bool {
		return !f.deleted && len(f.lines) > 0 && sha256.Sum256([]byte(f.lines[0]+"\n")) == end.FirstLine
	})
	m.begin(&end)
}

// inPack reports whether the .gz of a file has its line i.
func (m *writersModel) inPack(f *modelFile, i int) bool {
	e := entry{stem: f.name, gz: true}
	z, err := e.open(m.dir)
	m.ok(err)
	defer z.close()
	length := int64(0)
	for _, l := range f.lines[:i+1] {
		length += int64(len(l) + 1)
	}
	return z.size() >= length
}

// finish looks and reads until nothing can be missing.
func (m *writersModel) finish() {
	m.Helper()
	m.write(0)
	for i := range 3 {
		m.ok(os.WriteFile(m.file(fmt.Sprintf("other-%d", i)), nil, 0o600)) // a change of the directory
		m.look()
		m.check(1 << 30)
	}
	for _, f := range m.files {
		for _, l := range f.lines {
			if !m.acked[l] && !m.read[l] && !m.mayMiss[l] {
				m.Fatalf("not read: %q of %s, packed %v, deleted %v%s", l, f.name, f.packed, f.deleted, m.chain())
			}
		}
	}
	if n := m.tailer.Unread(); n != 0 {
		m.Fatalf("unread %d at the end%s", n, m.chain())
	}
}

func TestWritersModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	for done := 0; done < *writersSteps; done += 400 {
		seed++
		r := rand.New(rand.NewPCG(seed, 2))
		program := make([]byte, 500)
		for i := range program {
			program[i] = byte(r.Uint32())
		}
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { runWriters(t, program) })
		if t.Failed() {
			return
		}
	}
}

func FuzzWritersModel(f *testing.F) {
	f.Add([]byte{0, 0, 3, 11, 16, 6, 0, 3, 11, 16, 17, 3, 3, 7, 0, 11, 14})
	f.Add([]byte{1, 0, 16, 17, 3, 19, 0, 6, 0, 0, 6, 0, 11, 17, 2})
	f.Fuzz(func(t *testing.T, program []byte) { runWriters(t, program[:min(len(program), 2000)]) })
}
