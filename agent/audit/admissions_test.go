package audit

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// A resource is other until a request for it has succeeded, and not any more from there on.
func TestResourceIsAdmittedByASuccess(t *testing.T) {
	const ref = `{"apiGroup":"x.io","resource":"things"}`
	d := newDescriber(t)
	for _, c := range []struct {
		at         int64
		code, want string
		admitted   int // after it
	}{
		{10, "404", "other", 0}, {20, "0", "other", 0}, {30, "201", "x.io/things", 1}, {40, "404", "x.io/things", 1}, {50, "0", "x.io/things", 1},
		{29, "404", "other", 1},       // read again: it was not admitted then
		{30, "201", "x.io/things", 1}, // as before
		{25, "200", "x.io/things", 1}, // an earlier one that was not read before
		{29, "404", "x.io/things", 1}, {24, "404", "other", 1},
	} {
		got := d.Entry(event(`"get"`, `{}`, ref, c.code), before, c.at)
		requested := slices.ContainsFunc(got.Metadata, func(f Field) bool { return f.Name == "requested_resource" })
		if got.Resource != c.want || requested != (c.want == Other) || (got.Folded == FoldedResource) != requested {
			t.Errorf("%d, code %s: %q, folded %b", c.at, c.code, got.Resource, got.Folded)
		}
		if all, _ := d.streams.all.Resources(); all != c.admitted {
			t.Errorf("%d resources are admitted, want %d", all, c.admitted)
		}
	}
	var made []string
	for _, one := range d.streams.all.Take() {
		if one.Kind == resourceKind {
			made = append(made, fmt.Sprint(one.Path, " ", one.From, one.Words))
		}
	}
	if want := []string{testPath + " 30 [x.io things ]", testPath + " 25 [x.io things ]"}; !slices.Equal(made, want) {
		t.Errorf("admitted %q, want %q", made, want)
	}
}

// TestManyUsers: no more streams than --max-streams, bounded memory, and the name of each user is there.
func TestManyUsers(t *testing.T) {
	const maxStreams, users = 1000, 100_000
	for _, more := range []string{"", strings.Repeat("x", 2000)} {
		all := newAdmissions(t, testConfig, maxStreams)
		d := describerOf(t, testConfig, all)
		streams := make(map[string]bool)
		heap := heapInUse()
		for i := range users {
			user := fmt.Sprintf("u%d%s", i, more)
			e := d.Entry(event(`"`+[]string{"get", "list", "pwn"}[i%3]+`"`, `{"username":"`+user+`"}`, `{"resource":"`+[]string{"pods", "secrets"}[i%2]+`"}`, "200"), before, int64(i))
			streams[e.Stream] = true
			named := slices.ContainsFunc(e.Metadata, func(f Field) bool { return f.Name == "username" && string(f.Value) == user })
			if e.User != user && (e.User != Other || !named || e.Folded&FoldedUser == 0) {
				t.Fatalf("user %.20s: label %.20s, metadata %.100q, folded %b", user, e.User, e.Metadata, e.Folded)
			}
		}
		grown := heapInUse() - heap
		t.Logf("names of %d bytes: %d streams, %d KiB", len(more)+5, len(streams), grown>>10)
		if n, _ := all.Streams(); len(streams) > maxStreams-ownStreams || n != len(streams) || n < maxStreams*8/10 {
			t.Errorf("%d streams, %d admitted", len(streams), n)
		}
		if limit := int64(4<<20 + maxKnownBytes + maxStreams*3*len(more)); grown > limit {
			t.Errorf("%d bytes, want at most %d", grown, limit)
		}
		runtime.KeepAlive(d)
	}
}

func heapInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestFloodOfWords: what anybody can put into requests makes none but the streams of refused requests, and those are few.
func TestFloodOfWords(t *testing.T) {
	all := newAdmissions(t, testConfig, 1000)
	d := describerOf(t, testConfig, all)
	streams := make(map[string]bool)
	for i := range 10_000 {
		e := d.Entry(event(fmt.Sprintf(`"v%d"`, i), `{"username":"system:anonymous"}`,
			fmt.Sprintf(`{"apiGroup":"g%d.io","resource":"r%d","subresource":"s%d","namespace":"n%d","name":"x%d"}`, i, i, i, i, i), "403"), before, int64(i))
		streams[e.Stream] = true
	}
	if n, _ := all.Streams(); n != 1 || len(streams) != 1 || len(d.streams.known) > 2 {
		t.Errorf("%d streams, %d admitted, %d known", len(streams), n, len(d.streams.known))
	}
	if n, _ := all.Resources(); n != 0 {
		t.Errorf("%d resources", n)
	}
}

// TestLimits: whatever comes, there are no more streams than the limit, those without a thing always have room, and so it is with
// several paths and after a restart.
func TestLimits(t *testing.T) {
	paths := []string{"/a", "/b", "/c"}
	limit := MinStreams * len(paths)
	cfg := Config{Node: "n"}
	all, err := NewAdmissions(cfg, limit, paths...)
	if err != nil {
		t.Fatal(err)
	}
	streams := make(map[string]bool)
	var durable []Admission
	for round := range 3 {
		for i, path := range paths {
			cfg.Filename = path
			d, err := NewDescriber(cfg, all, path)
			if err != nil {
				t.Fatal(err)
			}
			for n := range 400 {
				verb := []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "head", "post", "put", "connect", "options", "trace", "pwn"}[n%15]
				resource := fmt.Sprintf(`{"apiGroup":"x.io","resource":"r%d-%d"}`, round, n/15)
				e := d.Entry(event(`"`+verb+`"`, fmt.Sprintf(`{"username":"u%d-%d"}`, i, n), resource, "200"), before, int64(1000*round+n))
				streams[e.Stream] = true
				if e.Folded&FoldedAll != 0 && (e.User != Other || e.Resource != Other) || e.Folded&FoldedUser != 0 && (e.User != Other || (e.Resource == Other) != (e.Folded&FoldedResource != 0)) {
					t.Fatalf("%s, folded %b", e.Stream, e.Folded)
				}
			}
			streams[d.Entry([]byte("x"), before, 0).Stream] = true
			gap, err := cfg.GapStream()
			if err != nil {
				t.Fatal(err)
			}
			streams[gap] = true
		}
		durable = append(durable, all.Take()...)
		if all, err = NewAdmissions(cfg, limit, paths...); err != nil {
			t.Fatal(err)
		}
		if kept := all.Restore(durable); len(kept) != len(durable) {
			t.Fatalf("%d of %d are kept", len(kept), len(durable))
		}
	}
	if len(streams) > limit || len(streams) < limit*2/3 {
		t.Errorf("%d streams, the limit is %d", len(streams), limit)
	}
}

// What does not fit the configuration any more is not kept; what other paths have is.
func TestRestore(t *testing.T) {
	kind := func(cfg Config) string { return newAdmissions(t, cfg, MinStreams).kind }
	stream := func(kind string, words ...string) Admission {
		return Admission{Path: testPath, From: 5, Kind: kind, Words: words}
	}
	usual := kind(testConfig)
	if usual != "stream of verb,user,resource" || kind(Config{UserLabel: UserClass}) != "stream of verb,user class,resource" {
		t.Errorf("%q, %q", usual, kind(Config{UserLabel: UserClass}))
	}
	all := newAdmissions(t, testConfig, MinStreams)
	var many []Admission
	for n := range 100 {
		many = append(many, stream(usual, "get", fmt.Sprint("u", n), "pods"))
	}
	many = append(many, stream(usual, "get", Other, "pods"), stream(usual, "get", Other, Other), stream(usual, "list", Other, Other))
	dead := []Admission{stream(usual, "get", "u0", "pods"), stream(kind(Config{UserLabel: UserClass}), "get", "user", "pods"),
		stream(usual, "get"), stream("something else", "x"), stream(resourceKind, "a", "b")}
	others := []Admission{{Path: "/gone", From: 7, Kind: usual, Words: []string{"get", "u", "pods"}}, stream(resourceKind, "x.io", "things", "")}
	kept := all.Restore(slices.Concat(dead[1:], many, dead[:1], others))
	want := slices.Concat(many[:MinStreams-reservedFor], many[101:], others)
	if fmt.Sprint(kept) != fmt.Sprint(want) {
		t.Errorf("kept %v\nwant %v", kept, want)
	}
	d := describerOf(t, testConfig, all)
	for _, c := range []struct {
		at          int64
		user, label string
	}{{5, "u0", "u0"}, {4, "u0", "u0"}, {5, "u99", "other"}} {
		if got := d.Entry(event(`"get"`, `{"username":"`+c.user+`"}`, `{"resource":"pods"}`, "200"), before, c.at); got.User != c.label {
			t.Errorf("%+v: %s", c, got.Stream)
		}
	}
	if made := all.Take(); len(made) != 1 || made[0].From != 4 {
		t.Errorf("made %v", made)
	}
	if _, err := NewAdmissions(testConfig, 2*MinStreams-1, "/a", "/b"); err == nil || !strings.Contains(err.Error(), "64 for each") {
		t.Error(err)
	}
}

// Lines that are read again at other positions get the labels that they had: those before the first success of a resource as well as
// those after it, whatever their times, also if the agent was started again in between, and if that success is gone.
func TestAdmissionsByTime(t *testing.T) {
	at := func(second int, code string) []byte {
		return fmt.Appendf(nil, `{"verb":"get","user":{"username":"u"},"objectRef":{"resource":"things","apiGroup":"x.io"},"responseStatus":{"code":%s},`+
			`"stageTimestamp":"2026-11-23T20:33:%02d.000000Z"}`, code, second)
	}
	lines := [][]byte{at(10, "404"), at(14, "404"), at(11, "404"), at(12, "200"), at(11, "404"), at(13, "404"), at(14, "200"), at(12, "404")}
	all := newAdmissions(t, testConfig, 1000)
	d := describerOf(t, testConfig, all)
	read := func(d *Describer, from int64) (resources []string) {
		for i, line := range lines {
			resources = append(resources, d.Entry(line, before, from+int64(i)).Resource)
		}
		return resources
	}
	want := read(d, 0)
	if !slices.Equal(want, slices.Concat(slices.Repeat([]string{Other}, 3), slices.Repeat([]string{"x.io/things"}, 5))) {
		t.Fatalf("first: %q", want)
	}
	durable := all.Take()
	for round := range 2 {
		d.Again()
		if got := read(d, int64(100+10*round)); !slices.Equal(got, want) {
			t.Errorf("again: %q, want %q", got, want)
		}
	}
	if got := d.Entry(at(11, "200"), before, 200).Resource; got != "x.io/things" {
		t.Errorf("what shows itself that it is served is %s", got)
	}
	more := all.Take()
	if len(more) != 1 || more[0].From != ByTime || !slices.Equal(more[0].Words, []string{"x.io", "things", ""}) {
		t.Fatalf("admissions after the second reading: %+v", more)
	}
	for i := range durable {
		if durable[i].Kind == resourceKind {
			durable[i] = more[0]
		}
	}
	restored := newAdmissions(t, testConfig, 1000)
	restored.Restore(durable)
	if got := read(describerOf(t, testConfig, restored), 300); !slices.Equal(got, want) {
		t.Errorf("after a restart: %q, want %q", got, want)
	}
	without := newAdmissions(t, testConfig, 1000)
	without.Restore(durable)
	d = describerOf(t, testConfig, without)
	for second := 13; second < 15; second++ {
		if got := d.Entry(at(second, "404"), before, 400).Resource; got != "x.io/things" {
			t.Errorf("without what showed it, after a restart: %s", got)
		}
	}
	d.Again()
	for _, c := range []struct {
		second int
		next   bool // another file begins with it
		want   string
	}{
		{10, true, Other}, {13, false, Other}, // the one that shows it may still come
		{13, true, "x.io/things"}, {14, false, "x.io/things"},
		{11, true, Other}, {13, false, Other},
	} {
		if c.next {
			d.NextFile()
		}
		if got := d.Entry(at(c.second, "404"), before, 500).Resource; got != c.want {
			t.Errorf("%+v: without what showed it, in one of several files: %s", c, got)
		}
	}
	d.Entry(at(12, "200"), before, 600)
	without.Take()
	d.NextFile()
	if got := d.Entry(at(11, "404"), before, 700).Resource; got != "x.io/things" {
		t.Errorf("in the file after the one with what showed it: %s", got)
	}
	if made := without.Take(); len(made) > 0 {
		t.Errorf("NextFile made %v", made)
	}
}
