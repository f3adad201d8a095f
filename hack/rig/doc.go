// Package rig holds what the demo, the crash test and the end-to-end tests are made of: the agent as a child process, real
// audit logs, a writer that writes as kube-apiserver does, a real Loki, a real kube-apiserver with its etcd, and the tally of
// what was written against what a log query finds.
//
// A run is put together like this:
//
//	corpus, _ := rig.FindCorpus()                       // real events
//	writer, _ := rig.NewWriter(rig.WriterConfig{…})     // lumberjack, as kube-apiserver uses it
//	loki := &rig.Loki{Dir: …}                           // or lokitest, or a running Loki
//	agent := &rig.Agent{…}                              // the binary under test
//	…write, kill, restart, wait…
//	loki.Entries(ctx, …)                                // everything that a log query sees
//	tally.Result()                                      // missing, repeated, altered, wrong labels
//
// Nothing here imports a package of the agent: the rig judges it from outside, by the files, the flags and Loki's answers.
// Oracle is the rig's own statement of DESIGN section 6, on encoding/json.
package rig
