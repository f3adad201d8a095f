package tailer

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/auditferry/auditferry/positions"
)

// cutLine is what a line should come out as.
type cutLine struct {
	bytes     string
	hole, cut int64
	id        positions.Hash
}

// split is the specification of lineBuffer, without reading in parts.
func split(content []byte, maxLine int) (lines []cutLine, rest *cutLine) {
	for len(content) > 0 {
		line, whole := content, content
		i := bytes.IndexByte(content, '\n')
		if i >= 0 {
			line, whole = content[:i], content[:i+1]
		}
		l := cutLine{id: sha256.Sum256(whole)}
		if len(line) > maxLine {
			kept := bytes.TrimLeft(line, "\x00")
			l.hole = int64(len(line) - len(kept))
			l.cut = int64(max(0, len(kept)-maxLine))
			line = kept[:min(len(kept), maxLine)]
		}
		l.bytes = string(line)
		if i < 0 {
			if len(line) > 0 {
				rest = &l
			}
			return lines, rest
		}
		lines = append(lines, l)
		content = content[i+1:]
	}
	return lines, nil
}

// throughBuffer reads all lines, asking for every hash.
func throughBuffer(b *lineBuffer, r io.Reader) (lines []cutLine, rest *cutLine, err error) {
	b.reset()
	made := func(l rawLine) cutLine { return cutLine{string(l.bytes), l.hole, l.cut, l.id} }
	for {
		for {
			l, ok := b.next(true)
			if !ok {
				break
			}
			lines = append(lines, made(l))
		}
		if n, err := b.fill(r.Read); n == 0 && err != nil {
			if l, ok := b.rest(true); ok {
				l := made(l)
				rest = &l
			}
			return lines, rest, notEOF(err)
		}
	}
}

// chunks reads in parts of the given size at most.
type chunks struct {
	io.Reader
	size int
}

func (c chunks) Read(p []byte) (int, error) { return c.Reader.Read(p[:min(len(p), c.size)]) }

func checkSplit(t *testing.T, content []byte, maxLine int, r io.Reader) {
	t.Helper()
	want, wantRest := split(content, maxLine)
	got, rest, err := throughBuffer(&lineBuffer{max: maxLine}, r)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		for i := range min(len(got), len(want)) {
			if got[i] != want[i] {
				t.Fatalf("line %d: got %.80q %+d %+d, want %.80q %+d %+d, or the hash differs", i,
					got[i].bytes, got[i].hole, got[i].cut, want[i].bytes, want[i].hole, want[i].cut)
			}
		}
		t.Fatalf("%d lines, want %d", len(got), len(want))
	}
	if (rest == nil) != (wantRest == nil) || rest != nil && *rest != *wantRest {
		t.Fatalf("rest %v, want %v", rest, wantRest)
	}
}

func TestLinesDoNotDependOnReads(t *testing.T) {
	nul := strings.Repeat("\x00", 300)
	contents := map[string]string{
		"empty":      "",
		"plain":      "a\nbc\n\ndef\n",
		"no end":     "a\nbcd",
		"at max":     strings.Repeat("m", 50) + "\n" + strings.Repeat("n", 51) + "\n" + strings.Repeat("o", 49) + "\n",
		"too long":   strings.Repeat("long", 400) + "\nx\n" + strings.Repeat("long", 400),
		"hole":       nul + "event\nnext\n",
		"hole, long": nul + strings.Repeat("long", 400) + nul + "\nnext\n",
		"small hole": nul[:45] + "event\n" + nul[:45] + "eventsss\nnext\n",
		"nul inside": strings.Repeat("x", 40) + nul + "\nnext",
		"only hole":  nul,
		"hole, end":  "a\n" + nul + "\n",
		"sample":     string(corpus(t, "sample.log")),
		"torn":       string(corpus(t, "torn-glued.log")),
		"nul":        string(corpus(t, "nul-hole.log.gz")),
	}
	for name, content := range contents {
		for _, size := range []int{1, 2, 3, 7, 50, 51, 4096, 1 << 20} {
			for _, maxLine := range []int{1, 50, 1000, 1 << 20} {
				if len(content) > 200_000 && (size != 7 && size != 4096 || maxLine < 1000) {
					continue
				}
				t.Run(fmt.Sprintf("%s/reads of %d/max %d", name, size, maxLine), func(t *testing.T) {
					checkSplit(t, []byte(content), maxLine, chunks{strings.NewReader(content), size})
				})
			}
		}
	}
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nbc\n\x00\x00\x00ddd\n"), uint16(3), uint64(1))
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00e\nf"), uint16(4), uint64(2))
	f.Fuzz(func(t *testing.T, content []byte, maxLine uint16, seed uint64) {
		// Blown up, so that lines pass the ends of the buffer.
		blown := bytes.ReplaceAll(content, []byte("b"), bytes.Repeat([]byte("b"), 20_000))
		blown = bytes.ReplaceAll(blown, []byte("z"), make([]byte, 20_000))
		blown = blown[:min(len(blown), 4<<20)]
		r := rand.New(rand.NewPCG(seed, 0))
		random := readerFunc(func() int { return 1 + r.IntN(1<<r.IntN(18)) })
		checkSplit(t, blown, 1+int(maxLine), random(bytes.NewReader(blown)))
	})
}

func readerFunc(size func() int) func(io.Reader) io.Reader {
	return func(r io.Reader) io.Reader {
		return iotest.DataErrReader(readsOf{r, size})
	}
}

type readsOf struct {
	io.Reader
	size func() int
}

func (r readsOf) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), r.size())]) }

// Memory is bounded by the longest line that is kept, and given back after a burst of long lines.
func TestBufferSize(t *testing.T) {
	const maxLine = 2 << 20
	b := &lineBuffer{max: maxLine}
	long := strings.Repeat("x", 50<<20) + "\n"
	if _, _, err := throughBuffer(b, chunks{strings.NewReader(long), 64 << 10}); err != nil {
		t.Fatal(err)
	}
	if len(b.buf) > 2*maxLine {
		t.Fatalf("the buffer grew to %d bytes for lines of %d", len(b.buf), maxLine)
	}
	short := strings.Repeat(strings.Repeat("y", 1000)+"\n", 20_000)
	if _, _, err := throughBuffer(b, chunks{strings.NewReader(short), 64 << 10}); err != nil {
		t.Fatal(err)
	}
	if len(b.buf) != bufferSize {
		t.Fatalf("the buffer keeps %d bytes", len(b.buf))
	}
}

// An error between two reads loses nothing.
func TestReadErrors(t *testing.T) {
	failed := errors.New("once")
	content := strings.Repeat("0123456789\n", 10)
	r, fail := strings.NewReader(content), false
	b := &lineBuffer{max: 100}
	var got int
	for range 1000 {
		for _, ok := b.next(false); ok; _, ok = b.next(false) {
			got++
		}
		_, _ = b.fill(func(p []byte) (int, error) {
			if fail = !fail; fail {
				return 0, failed
			}
			return r.Read(p[:7])
		})
	}
	if got != 10 {
		t.Fatalf("%d lines, want 10", got)
	}
}
