// Package audit says what one kube-apiserver audit line is for Loki: the stream it belongs to, its timestamp and its
// structured metadata. Everything it says is a pure function of the bytes of the line, of the configuration and, for a
// line without a timestamp, of the time of the line before it: a line that is read again after a crash gets the same
// answer, so that Loki drops it as a repeat.
//
// Read it in this order:
//
//   - scan.go, string.go: a JSON validator that walks over bytes. It accepts what encoding/json accepts.
//   - fields.go: [Describer.Describe] walks over one line and picks out the fields that matter, each at its own depth.
//   - labels.go, resources.go, streams.go: which labels those fields give, with bounded cardinality.
//   - metadata.go, value.go: the structured metadata, and what Loki can hold as a value.
//   - entry.go, pieces.go: [Describer.Entries] puts it together, and takes apart lines that were torn and glued.
//
// The client of the API server chooses much of what stands in an event, even before it is authenticated: the verb,
// every string in objectRef, the audit ID, the user agent. Nothing here trusts any of it.
//
// This is the hot path. In steady state nothing allocates: strings are slices of the line, what had to be decoded is in
// a scratch buffer that the next call reuses, and the label sets of streams are interned.
package audit
