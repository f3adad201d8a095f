package main

import (
	"bytes"
	"encoding/binary"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReadOnlyMappings(t *testing.T) {
	const maps = `00400000-00a4c000 r-xp 00000000 fe:00 123                                /usr/bin/auditferry
00a4c000-01114000 r--p 0064c000 fe:00 123                                /usr/bin/auditferry
01200000-01300000 rw-p 00d14000 fe:00 123                                /usr/bin/auditferry
7f0000000000-7f0000001000 r--p 00000000 fe:00 124                        /usr/lib/libc.so
7f0000001000-7f0000002000 r--p 00000000 00:00 0
`
	got := readOnly(strings.NewReader(maps), "/usr/bin/auditferry")
	if want := []mapping{{0x400000, 0xa4c000}, {0xa4c000, 0x1114000}}; !slices.Equal(got, want) {
		t.Errorf("%x, want %x: what can be written to must not be dropped", got, want)
	}
}

// A mapping is dropped only if no page of it is a copy, present or swapped out.
func TestIsOfFile(t *testing.T) {
	const none, file, copied, swapped = 0, pagePresent | pageOfFile, pagePresent, pageSwapped
	page := uintptr(os.Getpagesize())
	for _, row := range []struct {
		name  string
		pages []uint64
		want  bool
	}{
		{"nothing is in memory", slices.Repeat([]uint64{none}, 200), true},
		{"all is that of the file", slices.Repeat([]uint64{file, none}, 100), true},
		{"a breakpoint", append(slices.Repeat([]uint64{file}, 199), copied), false},
		{"a breakpoint, swapped out", append([]uint64{swapped}, slices.Repeat([]uint64{file}, 199)...), false},
		{"the kernel tells less", slices.Repeat([]uint64{file}, 150), false},
	} {
		var pagemap bytes.Buffer
		pagemap.Write(make([]byte, 8*3)) // before the mapping
		for _, p := range row.pages {
			pagemap.Write(binary.NativeEndian.AppendUint64(nil, p))
		}
		if got := isOfFile(bytes.NewReader(pagemap.Bytes()), mapping{3 * page, 203 * page}); got != row.want {
			t.Errorf("%s: %t", row.name, got)
		}
	}
}

// Other goroutines of the test may need a page again at once, so it may take more than one try.
func TestGiveBack(t *testing.T) {
	program := mappedProgram()
	for _, m := range program {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_POPULATE_READ); errno != 0 {
			t.Skipf("this kernel cannot map all of the program: %v", errno)
		}
	}
	before := mappedBytes(t)
	var after int
	for range 20 {
		giveBack(program)
		if after = mappedBytes(t); after <= before*3/4 {
			return
		}
	}
	t.Errorf("%d kB of files are mapped in memory, before they were %d kB", after, before)
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
