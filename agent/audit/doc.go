// Package audit says what one kube-apiserver audit line is for Loki: the stream it belongs to, its timestamp and its
// structured metadata. Everything it says is a pure function of the bytes of the line, of the configuration, of what was
// admitted to the labels before it and, for a line without a timestamp, of the time of the line before it: a line that is read
// again after a crash gets the same answer, so that Loki drops it as a repeat.
//
// Read it in this order:
//
//   - scan.go, string.go: a JSON validator that walks over bytes. It accepts what encoding/json accepts.
//   - field.go: which fields of an event can be labels and structured metadata, and which the configuration wants.
//   - fields.go, status.go, extras.go: [Describer.Describe] walks over one line and picks out the fields that matter, each at its own depth.
//   - usual.go, memo.go: its short cuts, for keys in their usual order and for objects that were read before.
//   - labels.go, resources.go, streams.go: which labels those fields give, with bounded cardinality.
//   - admissions.go: what makes it bounded: a resource and a stream are admitted, from a position on.
//   - metadata.go, value.go: the structured metadata, and what Loki can hold as a value.
//   - reduce.go, note.go: what is left of an event that is too long for Loki.
//   - entry.go, pieces.go: [Describer.Entries] puts it together, and takes apart lines that were torn and glued.
//
// The client of the API server chooses much of what stands in an event, even before it is authenticated: the verb,
// every string in objectRef, the audit ID, the user agent. Nothing here trusts any of it.
//
// # Admissions, and why a line that is read again gets the labels that it had
//
// An event gets the name of a resource as a label if that is built in, was admitted at a position up to its own, or if the event
// itself shows that the server has it; then that admits it. Of the label sets that it can have, from all its labels to the verb
// alone, it gets the first that was admitted up to its position, or for which there is room; then that admits it. Both depend on
// the past only by what was admitted, and on room, of which there never is more than before.
//
// After a crash an agent has all the admissions of what it had sent, since they are durable first, of all its paths, and perhaps
// some more. An event that was sent under a label set finds it: it was admitted up to there. An event that was sent under another
// than its first one did not find the first admitted, nor room: now it is not admitted up to there either, and there is no room,
// since as much is admitted as was then. So it gets the same.
//
// This is the hot path. In steady state nothing allocates: strings are slices of the line, what had to be decoded is in
// a scratch buffer that the next call reuses, and the label sets of streams are interned.
package audit
