package shipper

// chunkSize is that of the arena's chunks: small enough that a batch of 1 MiB wastes little at its end.
const chunkSize = 64 << 10

// An arena hands out memory in a few big chunks. More than a chunk holds gets memory of its own, which with reset serves another.
type arena struct {
	store  *spares  // where chunks come from and go to with reset; one of its own if it has none
	chunks [][]byte // each with capacity chunkSize; filled, but the last one, which is to its length
	long   [][]byte // for one entry each, which is larger
}

// take gives n bytes, which nobody else has until reset. What they hold is left over from before.
func (a *arena) take(n int) []byte {
	if a.store == nil {
		a.store = new(spares)
	}
	if n > chunkSize {
		long := a.store.takeLong(n)
		a.long = append(a.long, long)
		return long[:n:n]
	}
	if last := len(a.chunks) - 1; last < 0 || n > chunkSize-len(a.chunks[last]) {
		chunk := a.store.take()
		if chunk == nil {
			chunk = make([]byte, 0, chunkSize)
		}
		a.chunks = append(a.chunks, chunk)
	}
	c := &a.chunks[len(a.chunks)-1]
	start := len(*c)
	*c = (*c)[:start+n]
	return (*c)[start : start+n : start+n]
}

func (a *arena) reset() {
	if len(a.long) > 0 {
		a.store.giveLong(a.long)
		clear(a.long)
		a.long = a.long[:0]
	}
	if len(a.chunks) == 0 {
		return
	}
	a.store.give(a.chunks...)
	clear(a.chunks)
	a.chunks = a.chunks[:0]
}
