package positions

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

func TestEncode(t *testing.T) {
	raw := written(t, 17, 0, map[string]Position{
		"/var/log/b.log": {},
		`/var/log/<a>".log`: {
			FirstLine: Hash{0xab, 31: 0x01}, Offset: 12, LSN: 34, Name: "a.log", Inode: 1<<64 - 1, EventTime: testTime,
			Others: map[Hash]int64{{0xcd}: 56}, Gap: &Gap{Reason: "deleted", Last: testTime, Files: 2},
			Old:     &Stretch{Last: testTime, Newest: testTime, Skipped: 7, Files: 8, Bytes: 9},
			Restamp: &Restamp{Old: testTime}, Destination: "http://loki:3100/loki/api/v1/push",
		},
	})
	want := `{
  "version": 1,
  "checksum": "` + sumWithoutLine3(raw) + `",
  "generation": 17,
  "paths": {
    "/var/log/<a>\".log": {
      "first_line": "ab00000000000000000000000000000000000000000000000000000000000001",
      "offset": 12,
      "lsn": 34,
      "name": "a.log",
      "inode": 18446744073709551615,
      "event_time": "2026-11-23T20:33:23.092Z",
      "others": {
        "cd00000000000000000000000000000000000000000000000000000000000000": 56
      },
      "gap": {
        "reason": "deleted",
        "last_event": "2026-11-23T20:33:23.092Z",
        "files": 2
      },
      "old": {
        "last_event": "2026-11-23T20:33:23.092Z",
        "newest_event": "2026-11-23T20:33:23.092Z",
        "skipped_events": 7,
        "skipped_files": 8,
        "skipped_bytes": 9
      },
      "restamp": {
        "old": "2026-11-23T20:33:23.092Z"
      },
      "destination": "http://loki:3100/loki/api/v1/push"
    },
    "/var/log/b.log": {
      "first_line": "0000000000000000000000000000000000000000000000000000000000000000",
      "offset": 0,
      "lsn": 0,
      "name": "",
      "inode": 0,
      "event_time": "0001-01-01T00:00:00Z",
      "others": null
    }
  }
}
`
	if string(raw) != want {
		t.Errorf("encoded\n%s\nwant\n%s", raw, want)
	}
}

// sumWithoutLine3 is what `sed 3d | sha256sum` prints.
func sumWithoutLine3(raw []byte) string {
	lines := bytes.SplitAfter(raw, []byte("\n"))
	sum := sha256.Sum256(bytes.Join(append(append([][]byte{}, lines[:2]...), lines[3:]...), nil))
	return hex.EncodeToString(sum[:])
}

func TestDecodeGivesWhatWasEncoded(t *testing.T) {
	for name, want := range map[string]map[string]Position{
		"no map":     nil,
		"old":        {"/a": {Old: &Stretch{First: testTime, Oldest: testTime.Add(1), DeadLetters: 1, Restamped: 1<<63 - 1}, Restamp: &Restamp{Future: testTime}}},
		"no paths":   {},
		"two paths":  paths(50, 60),
		"odd name":   {"/a\n\u2028\x00": {Name: "\u202e\"\\"}},
		"extremes":   {"": {Offset: 1<<63 - 1, LSN: 1<<63 - 1, EventTime: time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC)}},
		"before all": {"/a": {EventTime: time.Date(0, 1, 1, 0, 0, 0, 1, time.UTC)}},
	} {
		for _, size := range []int{0, pageSize} {
			got, err := decode(written(t, 17, size, want))
			if err != nil || !same(got.Paths, want) || got.Generation != 17 {
				t.Errorf("%s, padded to %d: decoded %v (%v), want %v", name, size, got, err, want)
			}
		}
	}
}

// No change of a single byte, and no cut, goes unnoticed.
func TestDecodeNoticesDamage(t *testing.T) {
	raw := sealed(t, paths(50, 60))
	for i := range raw {
		if _, err := decode(raw[:i]); err == nil {
			t.Errorf("accepted, cut to %d of %d bytes", i, len(raw))
		}
		for _, bits := range []byte{1, 0x20, 0x80, raw[i]} { // the last one makes it NUL
			damaged := bytes.Clone(raw)
			damaged[i] ^= bits
			if _, err := decode(damaged); err == nil {
				t.Errorf("accepted with byte %d changed from %q to %q", i, raw[i], damaged[i])
			}
		}
	}
	if _, err := decode(append(bytes.Clone(raw), '\n')); err == nil {
		t.Error("accepted with a byte appended")
	}
}

// Even with a right checksum, what no agent writes is not taken.
func TestDecodeRefusesWithRightChecksum(t *testing.T) {
	raw := sealed(t, map[string]Position{pathA: at(pathA, 50)})
	for _, test := range []struct{ name, from, to, want string }{
		{"negative offset", `"offset": 50`, `"offset": -50`, "offset -50"},
		{"negative lsn", `"lsn": 50`, `"lsn": -50`, "lsn -50"},
		{"negative count", `"skipped_files": 1`, `"skipped_files": -1`, "count of old events"},
		{"year of an old event", "\"old\": {\n        \"last_event\": \"2026", "\"old\": {\n        \"last_event\": \"12026", "parsing time"},
		{"short hash", `"first_line": "`, `"first_line": "0`, "65 characters, want 64"},
		{"not hex", `"first_line": "0`, `"first_line": "x`, "invalid byte"},
		{"not JSON", `"offset": 50`, `"offset": `, "invalid character"},
		{"trailing", "}\n}\n", "}\n}\n{}", "invalid character"},
		{"year", `"2026-`, `"12026-`, "parsing time"},
		{"zero padded version", `"version": 1`, `"version": 01`, "as this agent writes it"},
		{"no version", `"version": 1`, `"version": `, "reading the version"},
	} {
		changed := bytes.Replace(raw, []byte(test.from), []byte(test.to), 1)
		if bytes.Equal(raw, changed) {
			t.Fatalf("%s: nothing changed", test.name)
		}
		seal(changed)
		if _, err := decode(changed); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", test.name, err, test.want)
		}
	}
}

// Older agents did not write it, and it is not written where it is not known.
func TestDestinationIsOptional(t *testing.T) {
	raw := sealed(t, map[string]Position{pathA: at(pathA, 50)})
	if bytes.Contains(raw, []byte("destination")) {
		t.Errorf("a position without a destination is written as\n%s", raw)
	}
	p := at(pathA, 50)
	p.Destination = "http://loki/push"
	if p.Equal(at(pathA, 50)) {
		t.Error("another destination makes no difference")
	}
	s := &Store{held: map[string]Position{}}
	for i, destination := range []string{"", "http://loki/push", "http://other/push", "http://other/push"} {
		p.Destination = destination
		if generation, err := s.hold(pathA, p); err != nil || generation != uint64(min(i+1, 3)) {
			t.Errorf("of %q: generation %d (%v)", destination, generation, err)
		}
	}
	p.Destination = "\xff"
	if _, err := s.hold(pathA, p); err == nil {
		t.Error("a destination that is not UTF-8 is taken")
	}
	if got, _ := s.Position(pathA); got.Destination != "http://other/push" || len(s.Paths()) != 1 || s.Paths()[0] != pathA {
		t.Errorf("held is %+v, of %v", got, s.Paths())
	}
}

func FuzzDecode(f *testing.F) {
	raw := sealed(f, paths(50, 60))
	f.Add(raw)
	f.Add(sealed(f, nil))
	f.Add(sealed(f, map[string]Position{"/a\u2028": {Name: "\\\""}}))
	f.Add(raw[:len(raw)/2])
	f.Add(make([]byte, 300))
	f.Add([]byte(versionKey + "2" + versionEnd))
	f.Add([]byte(versionKey + "1" + versionEnd + checksumKey + noChecksum + checksumEnd + "\"paths\": {\"a\": null}}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		checkDecode(t, raw)
		if len(raw) >= checksumNext { // past the checksum, which no fuzzer guesses
			raw = bytes.Clone(raw)
			seal(raw)
			checkDecode(t, raw)
		}
	})
}

// checkDecode decodes; what it accepts must survive being written and read again.
func checkDecode(t *testing.T, raw []byte) {
	t.Helper()
	got, err := decode(raw)
	if err != nil {
		if got.Paths != nil {
			t.Fatalf("positions %v beside the error %v", got, err)
		}
		return
	}
	for path, p := range got.Paths {
		got.Paths[path] = p.asRead()
	}
	again, err := decode(written(t, got.Generation, 0, got.Paths))
	if err != nil || !same(got.Paths, again.Paths) || got.Generation != again.Generation {
		t.Fatalf("read %v, then %v (%v)", got, again, err)
	}
}

func BenchmarkEncode(b *testing.B) {
	var buf bytes.Buffer
	held := paths(50, 60)
	b.ReportAllocs()
	for b.Loop() {
		if err := encode(&buf, 1, held); err != nil {
			b.Fatal(err)
		}
		seal(buf.Bytes())
	}
}
