// Package shipper takes log entries to Loki: batches, encoding, pushes, retries, what a status means, dead letters.
//
//	client, err := shipper.New(shipper.Config{URL: "http://loki:3100", DeadLetterFile: "…/dead-letter.jsonl"})
//	queue := client.NewQueue(path)     // one for each followed path
//	batch := queue.Batch()
//	batch.Add(entry)                   // until batch.Bytes() is enough, or it is old enough
//	queue.Send(ctx, batch, func() { commit(end) })
//	…
//	queue.Drain(ctx)
//
// # What an acknowledgement is worth
//
// The function given to Send is called when each entry of the batch, and of all batches sent before it, is stored by Loki
// or lies fsynced in the dead-letter file; in the order of Send, one call at a time. Nothing else calls it: a position that
// moves only there is never past what is safe. A crash between the two is a repeat, of at most Config.InFlight batches and the extras,
// because a batch holds its place until it is acknowledged, not until its push ends.
//
// There is no time limit and no give-up: what can end differently is tried again for as long as it takes, and meanwhile
// Send blocks, the caller stops reading, and memory stays bounded. Only an entry that Loki refuses for good, alone in its
// request, leaves the queue by the other door, the dead-letter file; and if that is full or cannot be written, not even that.
//
// # Where to read
//
//	batch.go       entries, grouped by stream, in memory that is used again
//	wire.go        an entry as protobuf, written once, when it is added
//	encode.go      the body of a push: protobuf and snappy, once for each push, not once for each attempt
//	letgo.go       the memory of a batch, given back while it is on its way
//	queue.go       pushes in flight, acknowledgement in order, backpressure, drain
//	extras.go      how many more may be in flight while Loki answers slowly
//	plan.go        which streams are pushed alone, because only then Loki's answer is the truth
//	pace.go        how fast a stream may be, so that Loki does not cut it into shards
//	throttle.go    how fast all of it may be: --loki-rate, and the limit of the tenant, which is found out
//	size.go        how large a push may be, learnt from 413
//	lanes.go       pushes of one batch side by side
//	http.go        the HTTP client, where its library is too patient
//	retry.go       one batch until it is settled: attempts, pauses, halving
//	answer.go      what an answer of Loki means (DESIGN section 7)
//	deadletter.go  what Loki refuses for good
//	reread.go      the same, read again to be replayed
//	letters.go     a file of it that is taken out of use while its agent runs, and deleted once it is replayed
//	health.go      whether pushes go through: one log line at each change, and Client.State
package shipper
