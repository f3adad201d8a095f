package shipper

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

// bodiesUpTo is a gateway that takes bodies of so many bytes, whatever is in them.
func bodiesUpTo(bytes int64, tooLarge *atomic.Int64) func(lokitest.Request) lokitest.Reply {
	return func(request lokitest.Request) lokitest.Reply {
		if request.Packed > bytes {
			tooLarge.Add(1)
			return lokitest.Refused(413, "<html>413 Request Entity Too Large</html>")
		}
		return lokitest.OK()
	}
}

// A gateway that limits bodies is met a few times, and then no more: batches are small enough from the start. Now and then a
// line is too large for it by itself, and is a dead letter that teaches nothing about the others.
func TestTheSizeOfABatchIsLearnt(t *testing.T) {
	const body, wanted = 100_000, 1 << 20
	r := newRig(t, nil)
	var tooLarge atomic.Int64
	r.server.Answer(bodiesUpTo(body, &tooLarge))
	random := rand.New(rand.NewPCG(1, 2))
	text := func(bytes, letters int) []byte { // the fewer letters, the better it is compressed
		line := make([]byte, bytes)
		for i := range line {
			line[i] = byte(' ' + random.IntN(letters))
		}
		return line
	}
	sent, giants := 0, 0
	next := func(giantEach int) []byte {
		if sent++; giantEach > 0 && sent%giantEach == 0 {
			giants++
			return text(3*body, 90)
		}
		return append(text(200, 90), []byte(strings.Repeat("managedFields ", 100))...)
	}
	var line []byte // that had no room in the batch before
	run := func(batches, giantEach int) (pushes int) {
		before := r.server.Requests()
		for range batches {
			b, size := r.queue.Batch(), r.queue.BatchSize(wanted)
			for b.Len() == 0 || b.Bytes()+len(line) <= size {
				if line != nil {
					b.Add(Entry{Stream: testEntry(sent, "").Stream, Time: testTime.Add(time.Duration(sent)), Line: line})
				}
				line = next(giantEach)
			}
			if err := r.queue.Send(t.Context(), b, func() {}); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.queue.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		return r.server.Requests() - before
	}
	if r.queue.BatchSize(wanted) != wanted || r.metric("batch_limit_bytes", "") != 0 {
		t.Error("a size is known before anything was pushed")
	}
	run(3, 0)
	if tooLarge.Load() == 0 {
		t.Fatal("nothing was too large")
	}
	learnt := r.queue.BatchSize(wanted)
	if learnt < 256<<10 || learnt > wanted/2+2048 {
		t.Errorf("batches of %d bytes from now on", learnt)
	}
	tooLarge.Store(0)
	if pushes := run(50, 0); tooLarge.Load() != 0 || pushes != 50 {
		t.Errorf("%d pushes for 50 batches, %d were too large though that is known", pushes, tooLarge.Load())
	}
	run(20, 500)
	if got := r.queue.BatchSize(wanted); giants == 0 || got != learnt {
		t.Errorf("%d lines that are too large by themselves changed the size of a batch from %d to %d", giants, learnt, got)
	}
	if len(line) == 3*body {
		giants--
	}
	sent-- // the last line was not pushed
	if got := len(deadLettersOf(t, r.client.cfg.DeadLetterFile)); got != giants || len(r.server.Entries()) != sent-giants {
		t.Errorf("%d entries in Loki and %d dead letters, want %d and %d", len(r.server.Entries()), got, sent-giants, giants)
	}
	if got := r.metric("batch_limit_bytes", ""); got != float64(learnt) {
		t.Errorf("batch_limit_bytes is %v, want %d", got, learnt)
	}
	if said := r.log.count("smaller batches are pushed from now on"); said != 1 || r.log.count(fmt.Sprint("batch_bytes=", learnt)) != 1 {
		t.Errorf("said %d times:\n%s", said, r.log.buf.String())
	}
}

// A gateway that takes nothing teaches no batches of nothing.
func TestBatchesDoNotBecomeTiny(t *testing.T) {
	r := newRig(t, nil)
	r.server.Answer(noMoreThan(0, 413))
	var lines []string
	for i := range 40 {
		lines = append(lines, strings.Repeat(fmt.Sprint(i%10), 1000))
	}
	r.send(lines...)
	if got := r.queue.BatchSize(1 << 20); got < smallestBatch || got > 2*smallestBatch {
		t.Errorf("batches of %d bytes", got)
	}
	if got := r.queue.BatchSize(1 << 10); got != 1<<10 {
		t.Errorf("batches of %d bytes, where 1 KiB is wanted", got)
	}
	if got := len(deadLettersOf(t, r.client.cfg.DeadLetterFile)); got != len(lines) {
		t.Errorf("%d dead letters, want %d", got, len(lines))
	}
}

// What was under way when a size was learnt does not teach a smaller one; what is of that size and still too large does.
func TestWhatTeachesASize(t *testing.T) {
	r := newRig(t, nil)
	batch := func(lines ...int) (*Batch, span) {
		b := new(Batch)
		for i, bytes := range lines {
			b.Add(Entry{Stream: `{a="b"}`, Time: testTime.Add(time.Duration(i)), Line: make([]byte, bytes)})
		}
		b.group(func(*stream) bool { return false })
		return b, span{0, len(lines)}
	}
	for _, row := range []struct {
		lines []int
		want  int
	}{
		{[]int{10 << 20}, 1 << 30},
		{[]int{600 << 10, 400 << 10}, 1 << 30},      // the first of them may be to blame
		{[]int{5 << 10, 5 << 10, 5 << 10}, 1 << 30}, // less than the least
		{[]int{400 << 10, 300 << 10, 300 << 10}, 500 << 10},
		{[]int{400 << 10, 300 << 10, 300 << 10}, 500 << 10},
		{[]int{300 << 10, 300 << 10, 100 << 10}, 500 << 10}, // was under way
		{[]int{200 << 10, 200 << 10, 100 << 10}, 250 << 10},
		{[]int{10 << 10, 10 << 10, 10 << 10}, smallestBatch},
		{[]int{10 << 10, 5 << 10, 10 << 10}, smallestBatch},
	} {
		r.client.sizes.refused(batch(row.lines...))
		if got := r.queue.BatchSize(1 << 30); got != row.want {
			t.Errorf("batches of %d bytes after a push of %v was refused, want %d", got, row.lines, row.want)
		}
	}
}
