package shipper

import (
	"cmp"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

// write makes a file beside the others of a test.
func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// names are those of the files in dir.
func names(t *testing.T, dir string) []string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, f := range files {
		list = append(list, f.Name())
	}
	return list
}

// take takes a file, which must be possible, and reads it to its end.
func take(t *testing.T, path string) (*Letters, []Entry) {
	t.Helper()
	l, err := TakeLetters(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	var entries []Entry
	for {
		e, err := l.Next()
		if errors.Is(err, io.EOF) {
			return l, entries
		}
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
}

func TestFileInUseIsMovedAsideUnderANameThatCounts(t *testing.T) {
	dir := t.TempDir()
	one := letterLine(t, testTime, "one")
	path := write(t, filepath.Join(dir, "dead-letters.jsonl"), one)
	l, entries := take(t, path)
	if len(entries) != 1 || string(entries[0].Line) != "one" {
		t.Fatalf("read %+v", entries)
	}
	if got := names(t, dir); len(got) != 1 || got[0] != filepath.Base(l.Path) || content(t, l.Path) != one {
		t.Fatalf("the directory holds %v, want %s with the letter", got, l.Path)
	}
	counted := deadLetters{path: path}
	if counted.size() != int64(len(one)) {
		t.Errorf("%d bytes count against the limit, want %d", counted.size(), len(one))
	}
	write(t, l.Refused, "12345")
	if counted.size() != int64(len(one))+5 {
		t.Errorf("%s does not count", l.Refused)
	}
	l.Close()
	again, _ := take(t, l.Path)
	if again.Path != l.Path || again.Refused == l.Refused {
		t.Errorf("taken again, it is %s with the refused in %s", again.Path, again.Refused)
	}
	if err := again.Settle(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); len(got) != 1 || got[0] != filepath.Base(l.Refused) {
		t.Errorf("%v are left", got)
	}
}

func TestRotatedFileKeepsItsName(t *testing.T) {
	for _, name := range []string{"dead-letters-2026-11-24T01-40-20.123.jsonl", "dead-letters-2026-11-24T01-40-20.123-ABC234.jsonl"} {
		path := write(t, filepath.Join(t.TempDir(), name), letterLine(t, testTime, "one"))
		l, _ := take(t, path)
		if l.Path != path || strings.Count(l.Refused, "T") < 1 || strings.Count(filepath.Base(l.Refused), "-2026") > 1 {
			t.Errorf("%s became %s, and %s", path, l.Path, l.Refused)
		}
	}
}

func TestWhatCannotBeTakenIsNotTouched(t *testing.T) {
	good := letterLine(t, testTime, "one")
	for _, tt := range []struct {
		name, want string
		make       func(t *testing.T, dir string) string
	}{
		{"missing", "no such file", func(_ *testing.T, dir string) string { return filepath.Join(dir, "absent.jsonl") }},
		{"directory", "is not a file", func(_ *testing.T, dir string) string { return dir }},
		{"empty", "is empty", func(t *testing.T, dir string) string { return write(t, filepath.Join(dir, "a.jsonl"), "") }},
		{"only a torn letter", "not a dead-letter file", func(t *testing.T, dir string) string {
			return write(t, filepath.Join(dir, "a.jsonl"), good[:50])
		}},
		{"audit log", "not a dead-letter file", func(t *testing.T, dir string) string {
			return write(t, filepath.Join(dir, "audit.log"), content(t, "../hack/corpus/sample.log"))
		}},
		{"replayed by another", "another auditferry", func(t *testing.T, dir string) string {
			path := write(t, filepath.Join(dir, "a.jsonl"), good)
			l, _ := take(t, path)
			return l.Path
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := tt.make(t, dir)
			before := names(t, dir)
			_, err := TakeLetters(path)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if after := names(t, dir); !slices.Equal(before, after) {
				t.Errorf("there were %v, there are %v", before, after)
			}
		})
	}
}

// A letter whose file was deleted between its opening and its locking is gone, and must not be replayed once more.
func TestFileThatWasReplayedMeanwhile(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "a.jsonl"), "x")
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := stillAt(path, f); err != nil {
		t.Error(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := stillAt(path, f); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("deleted: %v", err)
	}
	write(t, filepath.Join(filepath.Dir(path), "b"), "y") // which may get the inode
	write(t, path, "z")
	if err := stillAt(path, f); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("another one has its name: %v", err)
	}
}

func TestLinkedFileIsMovedWhereItIs(t *testing.T) {
	dir, linked := t.TempDir(), t.TempDir()
	path := write(t, filepath.Join(dir, "dead.jsonl"), letterLine(t, testTime, "one"))
	link := filepath.Join(linked, "dead.jsonl")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	l, entries := take(t, link)
	if len(entries) != 1 || filepath.Dir(l.Path) != dir || len(names(t, linked)) != 1 {
		t.Errorf("%d entries, now in %s", len(entries), l.Path)
	}
}

func TestPiecesAreKept(t *testing.T) {
	good := letterLine(t, testTime, "one")
	late := strings.Replace(good, `"timestamp":"2`, `"timestamp":"12`, 1)
	for _, tt := range []struct{ text, kept string }{
		{good[:30] + "\n" + good + late + good, good[:30] + "\n" + late},
		{good + good[:30], good[:30] + "\n"},
	} {
		l, _ := take(t, write(t, filepath.Join(t.TempDir(), "a.jsonl"), tt.text))
		if err := l.Settle(); err != nil {
			t.Fatal(err)
		}
		if got := content(t, l.Refused); got != tt.kept {
			t.Errorf("kept %q, want %q", got, tt.kept)
		}
	}
}

// What Loki refuses, and takes when it is replayed, is in every respect the entry that the agent pushed.
func TestReplayedEntryIsTheRefusedOne(t *testing.T) {
	r := newRig(t, nil)
	var refused []lokitest.Entry
	r.server.Answer(func(request lokitest.Request) lokitest.Reply {
		if len(request.Entries) == 1 {
			refused = append(refused, request.Entries...)
		}
		return lokitest.Refused(400, "entry too far behind")
	})
	b := r.queue.Batch()
	for i, line := range []string{`{"a":"<&>\u0000\ud800"}`, "\xff\xfe", "\ttab \u2028 \x00\x7f \ufffd", "", strings.Repeat("é", 300_000)} {
		e := testEntry(i, line)
		e.Stream = `{job="test", user="a\"b\n\u202e"}`
		e.Metadata = []Field{{"z", []byte("1")}, {"bytes", []byte("\xff")}, {"empty", nil}, {"a", []byte("\"")}}
		b.Add(e)
	}
	if err := errors.Join(r.queue.Send(t.Context(), b, func() {}), r.queue.Drain(t.Context())); err != nil {
		t.Fatal(err)
	}
	l, entries := take(t, r.client.cfg.DeadLetterFile)
	second := newRig(t, nil)
	b = second.queue.Batch()
	for _, e := range entries {
		b.Add(e)
	}
	if err := errors.Join(second.queue.Send(t.Context(), b, func() {}), second.queue.Drain(t.Context()), l.Settle()); err != nil {
		t.Fatal(err)
	}
	got := second.server.Entries()
	for i := range got {
		got[i].Count, got[i].Acked = 0, 0
	}
	if byTime(refused); len(refused) != 5 || !reflect.DeepEqual(byTime(got), refused) {
		t.Errorf("pushed %+v, replayed %+v", refused, got)
	}
}

func byTime(entries []lokitest.Entry) []lokitest.Entry {
	slices.SortFunc(entries, func(a, b lokitest.Entry) int { return cmp.Compare(a.Time.UnixNano(), b.Time.UnixNano()) })
	return entries
}

// The agent writes a letter while its file is taken, read and deleted, at the worst moments: the letter is written again.
func TestLetterWrittenWhileItsFileIsTaken(t *testing.T) {
	for _, settled := range []bool{false, true} {
		dir := t.TempDir()
		letters, err := openDeadLetters(filepath.Join(dir, "dead-letters.jsonl"), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		letters.sync = func(path string) error {
			letters.sync = syncFile
			l, _ := take(t, path)
			if settled {
				if err := l.Settle(); err != nil {
					t.Error(err)
				}
			}
			return syncFile(path)
		}
		d := newDeadLetter(testTime, Entry{Stream: "{}", Time: testTime, Line: []byte("one")}, answer{status: 400})
		if err := letters.write(d); err == nil {
			t.Error("a letter counts as written whose file was taken before the sync")
		}
		if err := letters.write(d); err != nil {
			t.Fatal(err)
		}
		if _, entries := take(t, letters.path); len(entries) != 1 {
			t.Errorf("the new file has %d letters", len(entries))
		}
	}
}

// An agent writes letters as fast as it can, with rotation, while they are taken, read and deleted: each that was written is
// read.
func TestLettersAreTakenFromAnAgentThatWrites(t *testing.T) {
	const count = 300
	dir := t.TempDir()
	letters, err := openDeadLetters(filepath.Join(dir, "dead-letters.jsonl"), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	letters.each = 2000
	failed := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range count {
			at := testTime.Add(time.Duration(i))
			d := newDeadLetter(testTime, Entry{Stream: "{}", Time: at, Line: []byte(at.String())}, answer{status: 400})
			for letters.write(d) != nil {
				failed++
			}
		}
	}()
	read := make(map[string]bool)
	taken := 0
	for writing := true; writing; {
		select {
		case <-done:
			writing = false // one last look
		default:
		}
		for _, name := range names(t, dir) {
			l, err := TakeLetters(filepath.Join(dir, name))
			if err != nil {
				continue // just made, or rotated meanwhile
			}
			taken++
			for e, err := l.Next(); err == nil; e, err = l.Next() {
				read[string(e.Line)] = true
			}
			if err := l.Settle(); err != nil {
				t.Fatal(err)
			}
			l.Close()
		}
	}
	if len(read) != count {
		t.Errorf("%d letters were read of %d", len(read), count)
	}
	t.Logf("%d files taken; %d letters written again", taken, failed)
}

// Loki tells the truth only about a stream that is alone, and a client that shares streams with an agent cannot know which
// are in doubt.
func TestEveryStreamAlone(t *testing.T) {
	r := newRig(t, func(cfg *Config) { cfg.EveryStreamAlone = true })
	r.server.Answer(lokitest.LikeLoki(10))
	agent := newRig(t, func(cfg *Config) { cfg.URL = "http://" + r.client.url.Host })
	b := agent.queue.Batch()
	b.Add(testEntry(0, "newest"))
	if err := errors.Join(agent.queue.Send(t.Context(), b, func() {}), agent.queue.Drain(t.Context())); err != nil {
		t.Fatal(err)
	}
	b = r.queue.Batch()
	for i, line := range []string{"behind", "fine"} {
		e := testEntry(i, line)
		e.Time = e.Time.Add(-2 * time.Hour)
		b.Add(e)
	}
	if err := errors.Join(r.queue.Send(t.Context(), b, func() {}), r.queue.Drain(t.Context())); err != nil {
		t.Fatal(err)
	}
	letters := deadLettersOf(t, r.client.cfg.DeadLetterFile)
	if len(letters) != 1 || letters[0].Event != "behind" || r.inLoki() != " newest fine " {
		t.Errorf("in Loki:%s, dead letters %+v", r.inLoki(), letters)
	}
}
