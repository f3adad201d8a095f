package audit

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// wire is all that is sent of an entry.
func wire(e *Entry) string {
	return fmt.Sprintf("%s %s %q %q", e.Stream, e.Time.Format(time.RFC3339Nano), e.Metadata, e.Line)
}

// nastyLog is lines that admit streams and resources all along, damaged ones among them: custom resources before and after
// they were served, more users than there is room for, users of the names of our own words.
func nastyLog(lines int, seed uint64) [][]byte {
	random := rand.New(rand.NewPCG(seed, 0))
	pick := func(words ...string) string { return words[random.IntN(len(words))] }
	log := make([][]byte, lines)
	for i := range log {
		user := fmt.Sprintf("u%d\\n\\\"", random.IntN(1+i))
		if random.IntN(3) == 0 {
			user = pick("other", "", "system:node:n1", "system:anonymous", "bob", strings.Repeat("long", 600))
		}
		ref := pick(`null`, `{"resource":"pods","namespace":"kube-system"}`, `{"resource":"secrets","namespace":"other"}`,
			fmt.Sprintf(`{"apiGroup":"x.io","resource":"r%d"}`, random.IntN(1+i/4)), `{"apiGroup":"apps","resource":"deployments"}`,
			`{"resource":"apps","subresource":"deployments"}`, `{"resource":"p\u0000"}`)
		line := fmt.Appendf(nil, `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":%q,"auditID":"%d","stage":%q,"verb":%q,"user":{"username":"%s","groups":[%s]},`+
			`"objectRef":%s,"responseStatus":{"code":%s},"stageTimestamp":"2026-11-23T20:33:05.%06dZ","annotations":{"a.b/c":%q}}`,
			pick("Metadata", "Request"), i, pick("RequestReceived", "ResponseComplete"), pick("get", "list", "watch", "pwn", "create"), user,
			pick(`"a","b"`, `"c"`, ``), ref, pick("0", "200", "200", "403", "404"), i, pick("", "x", "y"))
		switch random.IntN(12) {
		case 0:
			line = append(line[:60:60], line...) // torn, and glued to the next
		case 1:
			line = append(line, line...)
		case 2:
			line = line[:80]
		}
		log[i] = line
	}
	return log
}

// reader describes one path of an agent.
type reader struct {
	d        *Describer
	log      [][]byte
	ends     []int64 // position after each line
	next     int
	previous time.Time
}

func newReader(t *testing.T, cfg Config, all *Admissions, path string, log [][]byte) *reader {
	t.Helper()
	d, err := NewDescriber(cfg, all, path)
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{d: d, log: log, previous: before}
	end := int64(0)
	for _, line := range log {
		end += int64(len(line)) + 1
		r.ends = append(r.ends, end)
	}
	return r
}

// read gives all that is sent of the next line.
func (r *reader) read() (sent []string) {
	at := int64(0)
	if r.next > 0 {
		at = r.ends[r.next-1]
	}
	pieces := r.d.Entries(r.log[r.next], r.previous, at)
	for e, ok := pieces.Next(); ok; e, ok = pieces.Next() {
		sent = append(sent, wire(e))
		r.previous = e.Time
	}
	r.next++
	return sent
}

// crashConfigs are the ways to make labels that are tried.
var crashConfigs = []Config{
	{Node: "n"},
	{Node: "n", UserLabel: UserClass},
	{Node: "n", UserLabel: UserNone},
	{Node: "n", LabelFields: []string{"verb", "user", "resource", "namespace", "stage", "groups", "annotation:a.b/c"},
		MetadataFields: append([]string{"groups", "annotation:a.b/c"}, DefaultMetadataFields...)},
	{Node: "n", LabelFields: []string{"level"}},
}

// TestCrashAtEveryLine reads two paths, in turn, in batches of a few lines, whose admissions are durable before they are sent.
// It crashes after every line and reads again, from what is durable then, from several positions that may be acknowledged, and in
// another order of the paths: all that was sent before is the same again, byte for byte.
func TestCrashAtEveryLine(t *testing.T) {
	const batch, lines = 3, 150
	paths := []string{"/a", "/b"}
	for i, cfg := range crashConfigs {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			all, err := NewAdmissions(cfg, 2*MinStreams, paths...)
			if err != nil {
				t.Fatal(err)
			}
			logs := [][][]byte{nastyLog(lines, 1), nastyLog(lines, 2)}
			var readers []*reader
			for i, path := range paths {
				readers = append(readers, newReader(t, cfg, all, path, logs[i]))
			}
			want := make([][][]string, 2) // by path and line
			sent := [2]int{}              // lines of each path
			times := [2][]time.Time{{before}, {before}}
			var durable []Admission
			for n := range lines {
				for i, r := range readers {
					want[i] = append(want[i], r.read())
					times[i] = append(times[i], r.previous)
					// Crash here: what was described since the last batch is gone, or its admissions are durable and it was not sent.
					crashed(t, cfg, paths, logs, times, want, sent, durable)
					if (n+i)%batch == 0 {
						durable = append(durable, all.Take()...)
						crashed(t, cfg, paths, logs, times, want, sent, durable)
						sent[i] = n + 1
					}
				}
			}
			streams, _ := all.Streams()
			t.Logf("%d streams, %d admissions", streams, len(durable))
			if len(cfg.LabelFields) != 1 && cfg.UserLabel == "" && streams < MinStreams {
				t.Error("the log does not come to the limit: this tests nothing")
			}
		})
	}
}

// crashed reads again what was sent.
func crashed(t *testing.T, cfg Config, paths []string, logs [][][]byte, times [2][]time.Time, want [][][]string, sent [2]int, durable []Admission) {
	t.Helper()
	for _, back := range []int{4, 150} {
		if back > 4 && sent[0]%10 != 1 {
			continue
		}
		all, err := NewAdmissions(cfg, 2*MinStreams, paths...)
		if err != nil {
			t.Fatal(err)
		}
		if kept := all.Restore(merged(durable)); len(kept) != len(merged(durable)) {
			t.Fatalf("%d of %d admissions are kept", len(kept), len(merged(durable)))
		}
		for i := len(paths) - 1; i >= 0; i-- {
			r := newReader(t, cfg, all, paths[i], logs[i])
			r.next = max(0, sent[i]-back)
			r.previous = times[i][r.next]
			for r.next < sent[i] {
				n := r.next
				if got := r.read(); !slices.Equal(got, want[i][n]) {
					t.Fatalf("line %d of %s, of %d and %d sent:\n got %s\nwant %s", n, paths[i], sent[0], sent[1], got, want[i][n])
				}
			}
		}
	}
}

// merged is what package positions makes of admissions that come twice.
func merged(all []Admission) (once []Admission) {
	for _, one := range all {
		i := slices.IndexFunc(once, func(o Admission) bool {
			return o.Path == one.Path && o.Kind == one.Kind && slices.Equal(o.Words, one.Words)
		})
		if i < 0 {
			once = append(once, one)
		} else {
			once[i].From = min(once[i].From, one.From)
		}
	}
	return once
}

// Without the record of a stream or a resource, something that was sent is not the same again: the test above can fail.
func TestCrashNeedsEachAdmission(t *testing.T) {
	cfg := Config{Node: "n"}
	log := nastyLog(300, 1)
	all := newAdmissions(t, cfg, MinStreams)
	r := newReader(t, cfg, all, testPath, log)
	var want []string
	for range log {
		want = append(want, r.read()...)
	}
	made := all.Take()
	changes := 0
	for missing := range made {
		all := newAdmissions(t, cfg, MinStreams)
		all.Restore(slices.Delete(slices.Clone(made), missing, missing+1))
		r := newReader(t, cfg, all, testPath, log)
		var got []string
		for range log {
			got = append(got, r.read()...)
		}
		if !slices.Equal(got, want) {
			changes++
		}
	}
	if changes == 0 {
		t.Errorf("none of %d admissions makes a difference", len(made))
	}
	t.Logf("%d of %d admissions make a difference", changes, len(made))
}

// What one path has admitted decides what room another has, so it is taken with what that one has made of it.
func TestRoomTakenByAnotherPath(t *testing.T) {
	cfg, paths := Config{Node: "n"}, []string{"/a", "/b"}
	all, err := NewAdmissions(cfg, 2*MinStreams, paths...)
	if err != nil {
		t.Fatal(err)
	}
	describe := func(all *Admissions, path, user string) string {
		d, err := NewDescriber(cfg, all, path)
		if err != nil {
			t.Fatal(err)
		}
		return d.Entry(event(`"get"`, `{"username":"`+user+`"}`, `{"resource":"pods"}`, "200"), before, 1).User
	}
	for n := range 2*MinStreams - 2*reservedFor {
		describe(all, "/b", fmt.Sprint("u", n))
	}
	if got := describe(all, "/a", "bob"); got != Other {
		t.Fatalf("the label is %q: this tests nothing", got)
	}
	made := all.Take()
	for _, c := range []struct {
		durable []Admission
		want    string
	}{
		{made, Other},
		{slices.DeleteFunc(slices.Clone(made), func(a Admission) bool { return a.Path == "/b" }), "bob"},
	} {
		again, err := NewAdmissions(cfg, 2*MinStreams, paths...)
		if err != nil {
			t.Fatal(err)
		}
		again.Restore(c.durable)
		if got := describe(again, "/a", "bob"); got != c.want {
			t.Errorf("after a crash with %d admissions: %q, want %q", len(c.durable), got, c.want)
		}
	}
}
