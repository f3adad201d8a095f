// Package lokitest is a Loki push endpoint inside the process: it decodes what arrives with Loki's own types, checks it
// where that is cheap, keeps it, and misbehaves on a script.
//
//	server := lokitest.New()
//	url, err := server.Start()
//	defer server.Close()
//	server.Answer(lokitest.Sequence(lokitest.Stored(500, "ingester gone"), lokitest.Hang()))
//	…
//	server.Entries() // as a log query sees them: a repeat is shown once, with a count
//
// A script decides two things for each request, apart from one another: which of its entries are stored, and what the
// client is told. Everything that DESIGN section 7 lists is a combination of the two.
//
// It is no Loki: there is no query language, no limits of its own and no ingester. It is stricter in one point: any other
// Content-Type than that of a protobuf push is answered 415, where Loki takes it for protobuf.
package lokitest
