package rig

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

func testCorpus(t *testing.T) Corpus {
	t.Helper()
	corpus, err := FindCorpus()
	if err != nil {
		t.Fatal(err)
	}
	return corpus
}

// Against encoding/json: the two timestamps at the top are moved, nothing else, and no byte but theirs.
func TestShiftMovesTheTopLevelTimestampsOnly(t *testing.T) {
	const by = 49*time.Hour + 59*time.Minute + 123456*time.Microsecond
	stamps := []string{"requestReceivedTimestamp", "stageTimestamp"}
	lines := 0
	for line, err := range testCorpus(t).Lines(SampleLog) {
		if err != nil {
			t.Fatal(err)
		}
		moved, err := Shift(by).Append([]byte("before"), line)
		if err != nil {
			t.Fatal(err)
		}
		moved, ok := bytes.CutPrefix(moved, []byte("before"))
		if !ok || len(moved) != len(line) {
			t.Fatalf("line %d: %d bytes became %d", lines, len(line), len(moved))
		}
		var was, is map[string]any
		if err := json.Unmarshal(line, &was); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(moved, &is); err != nil {
			t.Fatal(err)
		}
		for _, key := range stamps {
			from, err := time.Parse(time.RFC3339Nano, was[key].(string))
			if err != nil {
				t.Fatal(err)
			}
			if want := from.Add(by).Format(microTime); is[key] != want {
				t.Errorf("line %d: %s is %v, want %s", lines, key, is[key], want)
			}
			delete(was, key)
			delete(is, key)
		}
		if !reflect.DeepEqual(was, is) {
			t.Errorf("line %d: more than the timestamps changed", lines)
		}
		back, err := Shift(-by).Append(nil, moved)
		if err != nil || !bytes.Equal(back, line) {
			t.Errorf("line %d: moved there and back it is another (%v)", lines, err)
		}
		lines++
	}
	if lines < 600 {
		t.Errorf("only %d lines of %s", lines, SampleLog)
	}
}

func TestShiftLeavesBodiesAlone(t *testing.T) {
	const line = `{"requestObject":{"requestReceivedTimestamp":"2026-01-01T00:00:00.000000Z","stageTimestamp":"2026-01-01T00:00:00.000000Z"},` +
		`"requestReceivedTimestamp":"2026-01-01T00:00:00.999999Z","stageTimestamp":"2026-01-01T00:00:01.000000Z",` +
		`"annotations":{"a":"\"requestReceivedTimestamp\":\"2026-01-01T00:00:00.000000Z\",\"stageTimestamp\":\"2026-01-01T00:00:00.000000Z\""}}`
	want := bytes.Replace([]byte(line), []byte("00:00:00.999999"), []byte("00:00:01.000000"), 1)
	want = bytes.Replace(want, []byte(`"stageTimestamp":"2026-01-01T00:00:01.000000Z",`), []byte(`"stageTimestamp":"2026-01-01T00:00:01.000001Z",`), 1)
	got, err := Shift(time.Microsecond).Append(nil, []byte(line))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got  %s\nwant %s (%v)", got, want, err)
	}
	for _, bad := range []string{``, `{}`, `{"requestReceivedTimestamp":"2026-01-01T00:00:00.000000Z"}`, `{"requestReceivedTimestamp":"2026-01-01T00:00:00Z","stageTimestamp":"2026-01-01T00:00:00Z"}`} {
		if _, err := Shift(0).Append(nil, []byte(bad)); err == nil {
			t.Errorf("%q was moved", bad)
		}
	}
}

func TestReplayLaysPassesEndToEnd(t *testing.T) {
	end := time.Date(2031, 2, 3, 4, 5, 6, 789012000, time.UTC)
	seen := map[lineHash]bool{}
	var latest, latestOfFirst, earliestOfSecond time.Time
	lines := 0
	for line, err := range testCorpus(t).Replay(end, SampleLog, SampleLog) {
		if err != nil {
			t.Fatal(err)
		}
		at, err := StageTime(line)
		if err != nil {
			t.Fatal(err)
		}
		if at.After(latest) {
			latest = at
		}
		if lines < 673 {
			latestOfFirst = latest
		} else if earliestOfSecond.IsZero() || at.Before(earliestOfSecond) {
			earliestOfSecond = at
		}
		seen[hashLine(line)] = true
		lines++
	}
	if lines != 2*673 || len(seen) != lines {
		t.Errorf("%d lines, %d different ones, want 1346 of each", lines, len(seen))
	}
	if !latest.Equal(end) {
		t.Errorf("the last event is at %s, want %s", latest, end)
	}
	if got := earliestOfSecond.Sub(latestOfFirst); got != pause {
		t.Errorf("%s between the passes, want %s", got, pause)
	}
}

func TestFileLines(t *testing.T) {
	const content = "a\r\n\nb\x00\nlast"
	want := []string{"a\r", "", "b\x00", "last"}
	dir := t.TempDir()
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	if _, err := zip.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	for name, bytes := range map[string][]byte{"plain": []byte(content), "packed.gz": packed.Bytes()} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, bytes, 0o600); err != nil {
			t.Fatal(err)
		}
		var got []string
		for line, err := range FileLines(path) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(line))
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
