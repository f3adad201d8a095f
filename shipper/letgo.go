package shipper

import (
	"context"
	"errors"
	"fmt"

	"github.com/golang/snappy"
	"google.golang.org/protobuf/encoding/protowire"
)

// letGo gives back the memory of the entries of a batch that is pushed as a whole, as nearly all are, when the body is about to be sent.
// The body has all of it, in a fifth of the space, and nothing else is needed as long as Loki takes its time, or is away. And the next
// batch is filled in the same memory, while that is still in the processor's cache.
func (d *delivery) letGo(s span) {
	if d.batch.packed.Load() || s.len() < d.batch.Len() {
		return
	}
	d.batch.letGo()
}

// letGo gives back the memory of the entries of a batch that is there as the body of a push, or is settled. What has room for another
// batch now is told.
func (b *Batch) letGo() {
	for i := range b.records {
		b.records[i].wire = nil
	}
	b.arena.reset()
	b.packed.Store(true)
	select {
	case b.news <- struct{}{}:
	default:
	}
}

// restore undoes letGo, from the body: for the few batches of which only a part can be pushed, or goes to the dead-letter file.
func (d *delivery) restore() error {
	if !d.batch.packed.Load() {
		return nil
	}
	message, err := snappy.Decode(nil, d.body)
	if err != nil {
		return fmt.Errorf("reading back a push: %w", err)
	}
	streams := d.batch.streams
	err = eachField(message, func(_ byte, stream []byte, _ uint64) error {
		if len(streams) == 0 {
			return errors.New("reading back a push: it has more streams than the batch")
		}
		s := &streams[0]
		streams = streams[1:]
		return d.batch.restore(s, stream)
	})
	if err == nil && len(streams) > 0 {
		err = errors.New("reading back a push: it has fewer streams than the batch")
	}
	if err != nil {
		return err
	}
	d.batch.packed.Store(false)
	return nil
}

// restoreAnyhow is restore, but ends with an error only if ctx ends before: a body that cannot be read back, which takes a bug, or
// broken memory, holds up the batch, and all after it, and that is told.
func (d *delivery) restoreAnyhow(ctx context.Context) error {
	for {
		err := d.restore()
		if err == nil {
			return nil
		}
		d.client.health.begin(d, "bug", err.Error()+": please report this, and start the agent again", err)
		if err := d.pause(ctx, answer{meaning: misconfigured}); err != nil {
			return err
		}
	}
}

// restore takes the entries of a stream from its message.
func (b *Batch) restore(s *stream, message []byte) error {
	for i := s.first; i < s.first+s.count; {
		number, _, n := protowire.ConsumeField(message)
		if n < 0 {
			return fmt.Errorf("reading back a push: %w", protowire.ParseError(n))
		}
		if number == tagEntries>>3 {
			b.at(i).wire = message[:n:n]
			i++
		}
		message = message[n:]
	}
	return nil
}
