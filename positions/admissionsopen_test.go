package positions

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What Open takes of a file, and what it leaves of it.
func TestOpenAdmissions(t *testing.T) {
	lines, _ := encodeAdmissions(nil, []Admission{admission(pathA, 1), admission(pathB, 2), admission(pathA, 3)})
	each := bytes.SplitAfter(lines, []byte{'\n'})
	text := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	head, room := admissionsHead, bytes.Repeat([]byte{'\n'}, 100)
	newer, _ := appendLine(nil, admissionsVersionLine{2})
	const cut = "INFO admissions file was cut while it was written; nothing that was sent needs what is missing"
	const damaged = "ERROR admissions file is damaged and kept aside; events that are sent again may get other labels than before"
	lowered, _ := encodeAdmissions(nil, []Admission{{Path: pathA, Kind: admission(pathA, 1).Kind, Words: admission(pathA, 1).Words}})
	stranger, _ := encodeAdmissions(nil, []Admission{admission("/audit/gone.log", 1)})
	for _, test := range []struct {
		name    string
		raw     []byte
		want    []int64 // where the admissions begin
		log     string
		rewrite bool
		err     string
	}{
		{name: "whole", raw: text(head, lines), want: []int64{1, 2, 3}},
		{name: "with room", raw: text(head, lines, room), want: []int64{1, 2, 3}},
		{name: "with room in the middle", raw: text(head, each[0], room, each[1], room), want: []int64{1, 2}},
		{name: "nothing but the version", raw: text(head, room)},
		{name: "cut", raw: text(head, each[0], each[1][:20]), want: []int64{1}, log: cut, rewrite: true},
		{name: "cut at the newline", raw: text(head, each[0], bytes.TrimSpace(each[1])), want: []int64{1}, log: cut, rewrite: true},
		{name: "cut in the room", raw: text(head, each[0], each[1][:20], room), want: []int64{1}, log: cut, rewrite: true},
		{name: "zeroed at the end", raw: text(head, each[0], make([]byte, 500)), want: []int64{1}, log: cut, rewrite: true},
		{name: "a byte changed", raw: text(head, bytes.Replace(each[0], []byte("get"), []byte("got"), 1), each[1]), want: []int64{2}, log: damaged, rewrite: true},
		{name: "the version damaged", raw: text([]byte("x"), head, each[0]), log: damaged, rewrite: true},
		{name: "empty", raw: []byte{}, rewrite: true},
		{name: "zeroed", raw: make([]byte, 100), log: damaged, rewrite: true},
		{name: "lowered", raw: text(head, lines, lowered), want: []int64{0, 2, 3}, rewrite: true},
		{name: "twice", raw: text(head, lines, each[0]), want: []int64{1, 2, 3}, rewrite: true},
		{name: "raised", raw: text(head, lowered, each[0]), want: []int64{0}, rewrite: true},
		{name: "a path without a position", raw: text(head, lines, stranger), want: []int64{1, 2, 3}, rewrite: true},
		{name: "of a newer agent", raw: text(newer, lines), err: "version 2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			content := withPositions(t)
			content[admissionsPath] = test.raw
			m, records, cfg := newMemFS(content), &recorder{}, testConfig()
			cfg.Logger = records.logger()
			s, err := open(cfg, m, testNow)
			if err != nil {
				t.Fatal(err)
			}
			a, err := OpenAdmissions(s, keepAll)
			if test.err != "" {
				wantError(t, err, test.err, admissionsPath)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []int64
			for _, one := range a.held {
				got = append(got, one.From)
			}
			if !slices.Equal(got, test.want) || strings.Join(records.lines, "\n") != test.log {
				t.Errorf("from %v, want %v; log %q", got, test.want, records.lines)
			}
			if rewritten := !bytes.Equal(m.live[admissionsPath].data, test.raw); rewritten != test.rewrite {
				t.Errorf("rewritten: %t", rewritten)
			}
			if aside := m.live[admissionsPath+".damaged-20261123T203323.092Z"]; (aside != nil) != (test.log == damaged) ||
				aside != nil && !bytes.Equal(aside.data, test.raw) {
				t.Errorf("kept aside: %v", slices.Sorted(maps.Keys(m.live)))
			}
			more := admission(pathB, 99)
			if err := a.Append([]Admission{more}); err != nil {
				t.Fatal(err)
			}
			if err := checkAdmissions(m.killed(), append(a.held, more), [][]Admission{a.held}); err != nil {
				t.Error(err)
			}
		})
	}
}

// A path that begins anew forgets what was admitted; if the positions are lost, it holds from the beginning, or by the time of events.
func TestAdmissionsOfPathsWithoutAPosition(t *testing.T) {
	m := newMemFS(withPositions(t))
	_, a, err := openBoth(m)
	if err != nil {
		t.Fatal(err)
	}
	timed := admission(pathA, 9)
	timed.Since = testTime
	if err := a.Append([]Admission{admission(pathA, 7), admission(pathB, 8), timed}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		durable []byte
		want    []int64
	}{
		{"both are known", sealed(t, paths(1, 1)), []int64{7, 8, 9}},
		{"one is not", sealed(t, map[string]Position{pathB: at(pathB, 1)}), []int64{8}},
		{"positions removed", nil, nil},
		{"positions lost", []byte("{}"), []int64{0, 0, -1}},
	} {
		content := m.killed()
		delete(content, testFile)
		if test.durable != nil {
			content[testFile] = test.durable
		}
		after := newMemFS(content)
		_, a, err := openBoth(after)
		if err != nil {
			t.Fatal(err)
		}
		var got []int64
		for _, one := range a.held {
			got = append(got, one.From)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: from %v, want %v", test.name, got, test.want)
		}
		found, err := decodeAdmissions(after.live[admissionsPath].data)
		if err != nil || len(found.admissions) != len(test.want) {
			t.Errorf("%s: the file has %v, %v", test.name, found.admissions, err)
		}
	}
}

// What is of no use any more is removed from the file.
func TestAdmissionsThatAreNotKept(t *testing.T) {
	m := newMemFS(withPositions(t))
	_, a, _ := openBoth(m)
	if err := a.Append([]Admission{admission(pathA, 7), admission(pathB, 8), admission(pathA, 9)}); err != nil {
		t.Fatal(err)
	}
	clear(m.locked)
	s, err := open(testConfig(), m, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = OpenAdmissions(s, func(all []Admission) []Admission { return all[1:2] }); err != nil {
		t.Fatal(err)
	}
	found, _ := decodeAdmissions(m.live[admissionsPath].data)
	if len(found.admissions) != 1 || found.admissions[0].From != 8 {
		t.Errorf("left: %v", found.admissions)
	}
}

// Bad blocks cost the admissions, not the start.
func TestAdmissionsThatCannotBeRead(t *testing.T) {
	content := withPositions(t)
	content[admissionsPath] = admissionsHead
	for _, fault := range []syscall.Errno{syscall.EIO, syscall.EACCES} {
		m := newMemFS(content)
		m.intercept = func(_ int, op, name string) error {
			if op == "read" && name == admissionsPath {
				return fault
			}
			return nil
		}
		_, a, err := openBoth(m)
		if fault == syscall.EACCES {
			wantError(t, err, admissionsPath, "/data")
			continue
		}
		if err != nil || m.live[admissionsPath+".damaged-20261123T203323.092Z"] == nil || a.Append([]Admission{admission(pathA, 1)}) != nil {
			t.Errorf("%v: %v, files %v", fault, err, slices.Sorted(maps.Keys(m.live)))
		}
	}
}

// On a full disk the agent starts, and what it found stays where it is until it can be written.
func TestAdmissionsOpenOnAFullDisk(t *testing.T) {
	content := withPositions(t)
	lines, _ := encodeAdmissions(slices.Clip(admissionsHead), []Admission{admission(pathA, 1)})
	content[admissionsPath] = append(lines, "damage\n"...)
	content[admissionsPath] = append(content[admissionsPath], lines[len(admissionsHead):]...)
	m := newMemFS(content)
	m.intercept = func(_ int, op, _ string) error {
		if op == "write" {
			return syscall.ENOSPC
		}
		return nil
	}
	_, a, err := openBoth(m)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(m.live[admissionsPath].data, content[admissionsPath]) || a.Trouble() == nil || a.Append(nil) == nil {
		t.Errorf("trouble %v", a.Trouble())
	}
	m.intercept = nil
	if err := a.Append(nil); err != nil || a.Trouble() != nil {
		t.Error(err)
	}
	if found, err := decodeAdmissions(m.live[admissionsPath].data); err != nil || found.damage || len(found.admissions) != 1 {
		t.Errorf("%+v, %v", found, err)
	}
}

// Who chooses what is kept sees each admission once, with the position that was written last.
func TestAdmissionsThatWereLoweredAreGivenOnce(t *testing.T) {
	m := newMemFS(withPositions(t))
	_, a, err := openBoth(m)
	if err != nil {
		t.Fatal(err)
	}
	first, lowered := admission(pathA, 7), admission(pathA, 7)
	lowered.From = -1
	for _, one := range []Admission{first, lowered} {
		if err := a.Append([]Admission{one}); err != nil {
			t.Fatal(err)
		}
	}
	s, err := open(testConfig(), newMemFS(m.killed()), func() time.Time { return testTime })
	if err != nil {
		t.Fatal(err)
	}
	var given []Admission
	if _, err := OpenAdmissions(s, func(found []Admission) []Admission { given = found; return found }); err != nil {
		t.Fatal(err)
	}
	if len(given) != 1 || given[0].From != -1 {
		t.Errorf("given %+v, want one from -1", given)
	}
}
