package positions

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// recorder keeps the level and message of each log record.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) logger() *slog.Logger                     { return slog.New(r) }
func (r *recorder) Enabled(context.Context, slog.Level) bool { return true }
func (r *recorder) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *recorder) WithGroup(string) slog.Handler            { return r }
func (r *recorder) Handle(_ context.Context, record slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, record.Level.String()+" "+record.Message)
	return nil
}

// sealed gives a positions file as the agents before the second latest file wrote it: without generation or padding.
func sealed(t testing.TB, paths map[string]Position) []byte { return written(t, 0, 0, paths) }

// written gives a positions file of that generation, padded to size.
func written(t testing.TB, generation uint64, size int, paths map[string]Position) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := encode(&buf, generation, paths); err != nil {
		t.Fatal(err)
	}
	pad(&buf, size)
	seal(buf.Bytes())
	return buf.Bytes()
}

func paths(a, b int64) map[string]Position {
	return map[string]Position{pathA: at(pathA, a), pathB: at(pathB, b)}
}

func TestOpenChoosesPerPath(t *testing.T) {
	whole := func(a, b int64) []byte { return sealed(t, paths(a, b)) }
	cut := func(raw []byte) []byte { return raw[:len(raw)-20] }
	zeroed := func(raw []byte) []byte { return make([]byte, len(raw)) }
	flipped := func(raw []byte) []byte { return bytes.Replace(raw, []byte(`"lsn": 5`), []byte(`"lsn": 6`), 1) }
	const (
		lost    = "ERROR positions are lost: no positions file is whole; every path begins anew, Loki will be sent again what it has"
		damaged = "WARN positions file is damaged and kept aside"
		durably = testFile + ".damaged-20261123T203323.092Z"
		lately  = latestFile + ".damaged-20261123T203323.092Z"
	)
	for _, test := range []struct {
		name            string
		durable, latest []byte // nil: no file
		want            map[string]Position
		lost            bool
		aside           []string
		log             []string
	}{
		{name: "first start", want: nil},
		{name: "durable only", durable: whole(50, 60), want: paths(50, 60)},
		{name: "latest only", latest: whole(50, 60), want: paths(50, 60)},
		{name: "latest ahead", durable: whole(50, 60), latest: whole(70, 80), want: paths(70, 80)},
		{name: "latest behind", durable: whole(70, 80), latest: whole(50, 60), want: paths(70, 80)},
		{name: "each ahead in one path", durable: whole(50, 80), latest: whole(70, 60), want: paths(70, 80)},
		{name: "latest cut", durable: whole(50, 60), latest: cut(whole(70, 80)), want: paths(50, 60),
			aside: []string{lately}, log: []string{damaged}},
		{name: "latest empty", durable: whole(50, 60), latest: []byte{}, want: paths(50, 60),
			aside: []string{lately}, log: []string{damaged}},
		{name: "latest zeroed", durable: whole(50, 60), latest: zeroed(whole(70, 80)), want: paths(50, 60),
			aside: []string{lately}, log: []string{damaged}},
		{name: "latest with one byte changed", durable: whole(40, 40), latest: flipped(whole(50, 60)), want: paths(40, 40),
			aside: []string{lately}, log: []string{damaged}},
		{name: "durable damaged", durable: cut(whole(50, 60)), latest: whole(50, 60), want: paths(50, 60),
			aside: []string{durably}, log: []string{damaged}},
		{name: "both damaged", durable: []byte("{}"), latest: []byte{}, lost: true,
			aside: []string{durably, lately}, log: []string{lost, damaged, damaged}},
		{name: "durable damaged, no latest", durable: zeroed(whole(50, 60)), lost: true,
			aside: []string{durably}, log: []string{lost, damaged}},
		{name: "latest damaged, no durable", latest: []byte("x"), lost: true,
			aside: []string{lately}, log: []string{lost, damaged}},
	} {
		t.Run(test.name, func(t *testing.T) {
			content := map[string][]byte{}
			if test.durable != nil {
				content[testFile] = test.durable
			}
			if test.latest != nil {
				content[latestFile] = test.latest
			}
			m, records, cfg := newMemFS(content), &recorder{}, testConfig()
			cfg.Logger = records.logger()
			s, err := open(cfg, m, testNow)
			if err != nil {
				t.Fatal(err)
			}
			if !same(s.held, test.want) || s.Lost() != test.lost {
				t.Errorf("opened %v, lost=%t; want %v, lost=%t", s.held, s.Lost(), test.want, test.lost)
			}
			if !slices.Equal(records.lines, test.log) {
				t.Errorf("log %q, want %q", records.lines, test.log)
			}
			for _, name := range test.aside {
				original, _, _ := strings.Cut(name, ".damaged-")
				if i := m.live[name]; i == nil || !bytes.Equal(i.data, content[original]) {
					t.Errorf("%s is not kept aside: %v", name, slices.Sorted(maps.Keys(m.live)))
				}
			}
			// What Open found is durable at once, as is what it kept aside.
			for content := range m.powerLosses {
				got, err := decode(content[testFile])
				if err != nil || !same(got.Paths, test.want) {
					t.Errorf("durable file after Open: %v (%v), want %v", got.Paths, err, test.want)
				}
			}
			if len(m.unsynced) != 0 {
				t.Errorf("%d changes of the directory are not durable after Open", len(m.unsynced))
			}
		})
	}
}

// A crash while Open keeps a damaged file aside does not cost what the other one holds.
func TestCrashWhileKeepingAside(t *testing.T) {
	l := newLedger()
	l.acknowledged[pathA], l.acknowledged[pathB] = []int64{50}, []int64{60}
	least := map[string]int64{pathA: 50, pathB: 60}
	content := map[string][]byte{testFile: {}, latestFile: sealed(t, paths(50, 60))}
	n := crashes(content, l, []step{{act: "open"}}, "", func(m *memFS, l *ledger) {
		if err := l.check(m.killed(), least); err != nil {
			t.Errorf("killed after %q: %v", last(m), err)
		}
		for content := range m.powerLosses {
			if err := l.check(content, least); err != nil {
				t.Errorf("power lost after %q: %v", last(m), err)
			}
		}
	})
	if n < 10 {
		t.Errorf("only %d crashes", n)
	}
}

// Files of a newer agent are refused whatever the other file is, and nothing in the directory changes.
func TestOpenRefusesUnknownVersion(t *testing.T) {
	newer := []byte(`{
  "version": 2,
  "checksum": "of another kind",
  "shards": []
}
`)
	for name, content := range map[string]map[string][]byte{
		"durable": {testFile: newer, latestFile: sealed(t, paths(50, 60))},
		"latest":  {testFile: sealed(t, paths(50, 60)), latestFile: newer},
		"damaged": {testFile: []byte("x"), latestFile: newer},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemFS(content)
			_, err := open(testConfig(), m, testNow)
			var version versionError
			if !errors.As(err, &version) || version != 2 || !strings.Contains(err.Error(), "a newer agent wrote it") {
				t.Fatalf("error %v", err)
			}
			if len(m.unsynced) != 0 || len(m.locked) != 0 {
				t.Errorf("changes %v, locked %v", m.unsynced, m.locked)
			}
		})
	}
}

func TestOpenRemovesTemporaryFiles(t *testing.T) {
	m := newMemFS(map[string][]byte{testFile + ".tmp": sealed(t, paths(1, 1)), latestFile + ".tmp": nil})
	s, err := open(testConfig(), m, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.held) != 0 || s.Lost() {
		t.Errorf("opened %v, lost=%t from temporary files", s.held, s.Lost())
	}
	noLitter(t, m)
}

func TestOpenTwiceOnOneRegistry(t *testing.T) {
	cfg := testConfig()
	cfg.Registerer = prometheus.NewPedanticRegistry()
	s, err := open(cfg, newMemFS(nil), testNow)
	if err != nil {
		t.Fatal(err)
	}
	m := newMemFS(nil)
	if _, err := open(cfg, m, testNow); !errors.As(err, &prometheus.AlreadyRegisteredError{}) || len(m.locked) != 0 {
		t.Errorf("second store: %v, locked %v", err, m.locked)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := open(cfg, m, testNow); err != nil {
		t.Errorf("after Close: %v", err)
	}
}

// What is kept with a position before it is told comes after the position, at the same lsn: the file that has it is the newer one.
func TestWhatIsKeptIsNewerThanItsPosition(t *testing.T) {
	for name, keep := range map[string]func(p *Position){
		"a gap":                        func(p *Position) { p.Gap = &Gap{Reason: "deleted"} },
		"where a gap ends":             func(p *Position) { p.Gap = &Gap{Reason: "deleted", First: testTime} },
		"where a stretch ends":         func(p *Position) { p.Old = &Stretch{Skipped: 1, First: testTime} },
		"the time for old events":      func(p *Position) { p.Restamp = &Restamp{Old: testTime} },
		"a gap, beside an old stretch": func(p *Position) { p.Old, p.Gap = &Stretch{Skipped: 1}, &Gap{Reason: "deleted"} },
	} {
		without := at(pathA, 50)
		without.Gap, without.Old, without.Restamp = nil, nil, nil
		with := without
		keep(&with)
		if name == "where a stretch ends" {
			without.Old = &Stretch{Skipped: 1}
		}
		for _, files := range [][]Position{{without, with}, {with, without}} {
			got := merge(map[string]Position{pathA: files[0]}, map[string]Position{pathA: files[1]})
			if !got[pathA].Equal(with) {
				t.Errorf("%s: of %+v, %+v counts", name, files, got[pathA])
			}
		}
	}
}
