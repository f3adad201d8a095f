package shipper

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDeadLetterHoldsTheEntry(t *testing.T) {
	r := newRig(t, func(cfg *Config) { cfg.TenantID = "one" })
	r.server.Answer(refusing("max entry size '1' bytes exceeded for stream '{}'"))
	lines := []string{`bad {"a":"<&> \u0000 é"}`, "bad \xff\xfe", "bad\ttab \u2028 end"}
	b := r.queue.Batch()
	for i, line := range lines {
		e := testEntry(i, line)
		e.Stream = `{job="test", user="a\"b"}`
		e.Metadata = []Field{{"z", []byte("1")}, {"a", []byte("\xff")}, {"a", nil}}
		b.Add(e)
	}
	if err := r.queue.Send(t.Context(), b, func() {}); err != nil {
		t.Fatal(err)
	}
	if err := r.queue.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	letters := deadLettersOf(t, r.client.cfg.DeadLetterFile)
	if len(letters) != len(lines) {
		t.Fatalf("%d dead letters", len(letters))
	}
	for i, d := range letters {
		if d.Event+string(d.EventBytes) != lines[i] || d.Labels != `{job="test", user="a\"b"}` || d.Reason != ReasonLine ||
			!strings.HasPrefix(d.Answer, "400 Bad Request: max entry size") || !d.Time.Equal(testTime) {
			t.Errorf("%+v", d)
		}
		if want := testEntry(i, "").Time.Format(time.RFC3339Nano); d.Timestamp != want {
			t.Errorf("timestamp %s, want %s", d.Timestamp, want)
		}
		if m := d.Metadata; len(m) != 3 || m[0].Name != "z" || m[0].Value != "1" || m[0].Bytes != nil ||
			m[1].Name != "a" || string(m[1].Bytes) != "\xff" || m[2].Value != "" {
			t.Errorf("structured metadata %+v", m)
		}
	}
	info, err := os.Stat(r.client.cfg.DeadLetterFile)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if got := r.metric("dead_letter_bytes", ""); got != float64(info.Size()) {
		t.Errorf("dead_letter_bytes %v, want %d", got, info.Size())
	}
}

// The order is: written, synced, acknowledged. The sync is watched, and fails at first.
func TestDeadLetterIsSyncedBeforeTheAcknowledgement(t *testing.T) {
	r := newRig(t, nil)
	r.server.Answer(refusing("x"))
	acked, syncs := false, 0
	r.client.letters.sync = func(path string) error {
		if acked {
			t.Error("acknowledged before the sync")
		}
		if text, err := os.ReadFile(path); err != nil || !strings.Contains(string(text), `"bad1"`) {
			t.Errorf("synced before it was written: %q, %v", text, err)
		}
		if syncs++; syncs <= 2 {
			return errors.New("no space left on device")
		}
		return syncFile(path)
	}
	var during error
	r.client.sleep = func(context.Context, time.Duration) error {
		during = r.client.State()
		return nil
	}
	if err := r.queue.Send(t.Context(), r.batch("bad1"), func() { acked = true }); err != nil {
		t.Fatal(err)
	}
	if err := r.queue.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !acked || syncs != 3 || r.server.Requests() != 3 {
		t.Errorf("acked %v after %d syncs, %d requests", acked, syncs, r.server.Requests())
	}
	var trouble *Trouble
	if !errors.As(during, &trouble) || trouble.Reason != "dead_letter" || !strings.Contains(trouble.Words, "no space left") {
		t.Errorf("state meanwhile: %v", during)
	}
	if got := r.metric("dropped_entries_total", reasonRefused); got != 1 {
		t.Errorf("%v dropped", got)
	}
}

// What is buried is not pushed, and is acknowledged only when it is durable, also where nothing else is in the batch.
func TestBurial(t *testing.T) {
	for _, lines := range [][]string{nil, {"a", "b"}} {
		r := newRig(t, nil)
		acked, syncs := false, 0
		r.client.letters.sync = func(path string) error {
			if acked {
				t.Error("acknowledged before the sync")
			}
			if syncs++; syncs == 2 {
				return errors.New("no space left on device")
			}
			return syncFile(path)
		}
		batch := r.batch(lines...)
		long, old := testEntry(7, "long"), testEntry(8, "old")
		batch.Bury(long, ReasonLine, "the line is too long")
		batch.Bury(old, ReasonOld, "the event is too old")
		long.Line[0], old.Metadata[0].Value[0] = 'x', 'x' // the batch keeps no slice of them
		if batch.Len() != len(lines) || batch.Bytes() < len("long")+len("old") {
			t.Errorf("%d entries to push, %d bytes", batch.Len(), batch.Bytes())
		}
		if err := r.queue.Send(t.Context(), batch, func() { acked = true }); err != nil {
			t.Fatal(err)
		}
		if err := r.queue.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !acked || syncs != 3 || len(r.server.Entries()) != len(lines) {
			t.Errorf("acked %v after %d syncs, %d entries in Loki", acked, syncs, len(r.server.Entries()))
		}
		letters := deadLettersOf(t, r.client.cfg.DeadLetterFile)
		if len(letters) != 3 { // the second one was written twice, as after any failed sync
			t.Fatalf("%d dead letters, want 3", len(letters))
		}
		first, last := letters[0], letters[2]
		if first.Event != "long" || first.Reason != ReasonLine || first.Answer != "the line is too long" ||
			last.Event != "old" || last.Reason != ReasonOld || last.Metadata[0].Value != "id-old" || last.Labels != testEntry(8, "").Stream {
			t.Errorf("dead letters %+v", letters)
		}
		if got := r.metric("dropped_entries_total", ReasonOld); got != 1 {
			t.Errorf("%v dropped as too old", got)
		}
		if next := r.queue.Batch(); len(next.buried) != 0 || next.Bytes() != 0 {
			t.Error("the batch is not empty when it is used again")
		}
	}
}

// At the limit an entry is not dropped: it waits until there is room, and the state says so.
func TestDeadLetterLimit(t *testing.T) {
	r := newRig(t, func(cfg *Config) { cfg.DeadLetterMaxSize = 600 })
	r.server.Answer(refusing("x"))
	var moved string
	r.client.sleep = func(_ context.Context, d time.Duration) error {
		if d < 30*time.Second {
			t.Errorf("paused only %v", d)
		}
		if err := r.client.State(); err == nil || !strings.Contains(err.Error(), "full") {
			t.Errorf("state %v", err)
		}
		path := r.client.cfg.DeadLetterFile
		moved = path + ".moved"
		return os.Rename(path, moved)
	}
	lines := strings.Fields("bad1 bad2 bad3")
	r.send(lines...)
	before, after := deadLettersOf(t, moved), deadLettersOf(t, r.client.cfg.DeadLetterFile)
	if len(before) != 2 || len(after) != 1 {
		t.Errorf("%d dead letters until the file was full, %d after it was moved", len(before), len(after))
	}
	if r.log.count("Loki does not take pushes") != 1 || r.log.count("Loki takes pushes again") != 1 {
		t.Error("the log does not say once that it stopped, and that it went on")
	}
}

func TestDeadLetterFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "dead-letter.jsonl")
	letters, err := openDeadLetters(path, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	letters.each = 4000
	write := func(line string) {
		t.Helper()
		if err := letters.write(newDeadLetter(testTime, Entry{Stream: "{}", Line: []byte(line)}, answer{status: 400})); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Repeat("x", 5000)) // longer than a file
	write("first")                   // so this one rotates, and only this one
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"time":"torn`); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	write("after a torn line")
	write("last")
	var got []string
	for _, d := range deadLettersOf(t, path) {
		got = append(got, d.Event)
	}
	if len(got) != 4 || len(got[0]) != 5000 || got[1] != "first" || got[2] != "after a torn line" || got[3] != "last" {
		t.Errorf("%d dead letters: %.20q", len(got), got)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	sum := int64(0)
	for _, name := range files {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		sum += info.Size()
	}
	if len(files) != 2 || letters.size() != sum {
		t.Errorf("%d files of %d bytes, counted %d", len(files), sum, letters.size())
	}
}

// Another destination's dead letters lie beside ours, under a name that can begin like ours.
func TestLettersOfOthersDoNotCount(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int{
		"dead-letters.loki.jsonl": 1, "dead-letters.loki-2026-11-23T20-00-00.000.jsonl": 2,
		"dead-letters.loki-2026-11-23T20-00-00.000-ABCDEF.jsonl": 4, // of a replay
		"dead-letters.loki-2.jsonl":                              8, "dead-letters.loki-2-2026-11-23T20-00-00.000.jsonl": 16, "dead-letters.jsonl": 32,
		"dead-letters.loki-2026-11-23T20-00-00.000.jsonl.gz": 64,
	} {
		write(t, filepath.Join(dir, name), strings.Repeat("x", size))
	}
	for name, want := range map[string]int64{"dead-letters.loki.jsonl": 7, "dead-letters.loki-2.jsonl": 24, "dead-letters.jsonl": 32} {
		letters := deadLetters{path: filepath.Join(dir, name)}
		if got := letters.size(); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
}

func TestTimeThatNoPushCanHold(t *testing.T) {
	r := newRig(t, nil)
	b := r.batch("a")
	b.Add(Entry{Stream: `{job="test"}`, Time: time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), Line: []byte("year0")})
	b.Add(Entry{Stream: `{job="test"}`, Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), Line: []byte("year10000")})
	if err := r.queue.Send(t.Context(), b, func() {}); err != nil {
		t.Fatal(err)
	}
	if err := r.queue.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	letters := deadLettersOf(t, r.client.cfg.DeadLetterFile)
	if len(letters) != 2 || letters[0].Event != "year0" || letters[1].Event != "year10000" || letters[0].Reason != reasonUnencodable {
		t.Errorf("%+v", letters)
	}
	if r.inLoki() != " a " {
		t.Errorf("in Loki:%s", r.inLoki())
	}
}
