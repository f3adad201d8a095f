package shipper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/auditferry/auditferry/shipper/lokitest"
	"github.com/golang/snappy"
)

// While a push is under way, the memory of its entries is there for the next batch.
func TestMemoryOfEntriesUnderWay(t *testing.T) {
	for _, row := range []struct {
		name  string
		extra []Entry
		letGo bool
	}{
		{"of one push", nil, true},
		{"of two, one of them of a stream in doubt", []Entry{{Stream: `{job="new"}`, Time: testTime, Line: []byte("d")}}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t, nil)
			arrived, released := make(chan struct{}, 2), make(chan struct{})
			r.server.Answer(func(lokitest.Request) lokitest.Reply {
				arrived <- struct{}{}
				return lokitest.After(released, lokitest.OK())
			})
			b := r.batch("a", "b", "c")
			for _, e := range row.extra {
				b.Add(e)
			}
			if err := r.queue.Send(t.Context(), b, func() {}); err != nil {
				t.Fatal(err)
			}
			for range 1 + len(row.extra) {
				<-arrived
			}
			free := r.client.chunks.take()
			if (free != nil) != row.letGo {
				t.Errorf("the memory is free: %t, want %t", free != nil, row.letGo)
			}
			clear(free[:cap(free)]) // as the next batch would
			close(released)
			if err := r.queue.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := len(strings.Fields(r.inLoki())); got != 3+len(row.extra) {
				t.Errorf("%d entries in Loki: %s", got, r.inLoki())
			}
		})
	}
}

// What is let go is read back from the body as it was, whatever the next batch has made of its memory.
func TestRestore(t *testing.T) {
	for _, row := range []struct {
		name string
		give func(i int) Entry
	}{
		{"events", func(i int) Entry { return testEntry(i, fmt.Sprint("line ", i)) }},
		{"of one stream", func(i int) Entry { return testEntry(0, fmt.Sprint("line ", i)) }},
		{"without labels, or a line", func(i int) Entry { return Entry{Time: testTime, Stream: []string{"", "{}"}[i%2]} }},
		{"lines longer than a chunk", func(i int) Entry { return testEntry(i, strings.Repeat(fmt.Sprint(i), chunkSize)) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t, nil)
			b := r.queue.Batch()
			var want []Entry
			for i := range 40 {
				want = append(want, row.give(i))
				b.Add(want[i])
			}
			d := r.packed(b)
			for i := range b.records {
				if b.records[i].wire != nil {
					t.Fatal("an entry holds memory")
				}
			}
			for free := r.client.chunks.take(); free != nil; free = r.client.chunks.take() {
				clear(free[:cap(free)])
			}
			if err := d.restore(); err != nil {
				t.Fatal(err)
			}
			for i := range want {
				checkReadBack(t, b, i, want[b.grouped[i]])
			}
			again, err := r.client.encoder.encode(nil, b, 0, b.Len())
			if err != nil || !bytes.Equal(again, d.body) {
				t.Errorf("the body is another one (%v)", err)
			}
		})
	}
}

// packed gives the delivery of a batch that is let go.
func (r *rig) packed(b *Batch) *delivery {
	r.t.Helper()
	b.group(together)
	d := newDelivery(r.client, b)
	var err error
	if d.body, err = r.client.encoder.encode(nil, b, 0, b.Len()); err != nil {
		r.t.Fatal(err)
	}
	d.letGo(span{0, b.Len()})
	return d
}

// A body that cannot be read back is an error, which holds up the batch: it is not taken for stored.
func TestRestoreOfDamage(t *testing.T) {
	for _, row := range []struct {
		name   string
		damage func([]byte) []byte
	}{
		{"nothing", func([]byte) []byte { return nil }},
		{"not snappy", func(body []byte) []byte { return body[:len(body)-1] }},
		{"no message", func([]byte) []byte { return []byte{3, 2 << 2, 'a', 'b', 'c'} }},
		{"no stream", func([]byte) []byte { return []byte{0} }},
		{"twice as many streams", func(body []byte) []byte {
			message, err := snappy.Decode(nil, body)
			if err != nil {
				t.Fatal(err)
			}
			return snappy.Encode(nil, append(message, message...))
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t, nil)
			b := r.batch("a", "b", "c")
			d := r.packed(b)
			d.body = row.damage(d.body)
			if err := d.restore(); err == nil {
				t.Error("no error")
			}
		})
	}
}

// What cannot be read back holds up its batch, and is told, until the agent is stopped.
func TestRestoreThatFailsIsTold(t *testing.T) {
	r := newRig(t, nil)
	b := r.batch("a", "b", "c")
	b.group(together)
	d := newDelivery(r.client, b)
	d.body = []byte("no body")
	b.letGo()
	ctx, cancel := context.WithCancel(t.Context())
	pauses := 0
	r.client.sleep = func(ctx context.Context, _ time.Duration) error {
		if pauses++; pauses == 3 {
			cancel()
		}
		return ctx.Err()
	}
	if err := d.restoreAnyhow(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	var trouble *Trouble
	if err := r.client.State(); !errors.As(err, &trouble) || trouble.Reason != "bug" || pauses != 3 {
		t.Errorf("after %d pauses the state is %v", pauses, err)
	}
}
