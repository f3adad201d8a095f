package main

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestUnchanged(t *testing.T) {
	const smaps = `00400000-00a4c000 r-xp 00000000 fe:00 123                                /usr/bin/auditferry
Size:               6448 kB
Rss:                3392 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me
00a4c000-01114000 r--p 0064c000 fe:00 123                                /usr/bin/auditferry
Anonymous:             0 kB
Swap:                  0 kB
01114000-01180000 r--p 00d14000 fe:00 123                                /usr/bin/auditferry
Anonymous:             4 kB
Swap:                  0 kB
01180000-01200000 r--p 00d94000 fe:00 123                                /usr/bin/auditferry
Anonymous:             0 kB
Swap:                  4 kB
01200000-01300000 rw-p 00d14000 fe:00 123                                /usr/bin/auditferry
Anonymous:             0 kB
Swap:                  0 kB
7f0000000000-7f0000001000 r--p 00000000 fe:00 124                        /usr/lib/libc.so
Anonymous:             0 kB
Swap:                  0 kB
7f0000001000-7f0000002000 r--p 00000000 00:00 0
Anonymous:             0 kB
Swap:                  0 kB
`
	got := unchanged(strings.NewReader(smaps), "/usr/bin/auditferry")
	want := []mapping{{0x400000, 0xa4c000}, {0xa4c000, 0x1114000}}
	if !slices.Equal(got, want) {
		t.Errorf("%x, want %x: neither what can be written nor what was changed may be dropped", got, want)
	}
}

func TestDropStart(t *testing.T) {
	before := mappedBytes(t)
	dropStart()
	if after := mappedBytes(t); after > before*3/4 {
		t.Errorf("%d kB of files are mapped in memory, before they were %d kB", after, before)
	}
}

// mappedBytes is how much of the files that this process has mapped is in its memory, in kB.
func mappedBytes(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(status), "RssFile:")
	if !found {
		t.Skip("this kernel does not tell RssFile")
	}
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kb
}
