// Package e2e holds the end-to-end tests, with the build tag e2e: the agent's binary between a real audit log and a real
// Loki, killed and cut off on the way, and every event read back through Loki's query API.
//
//	TestCorpus   recorded logs, written by lumberjack as kube-apiserver does; the agent killed 5 times, Loki away for 20 s
//	TestCluster  a real kube-apiserver under varied requests, 1 MB files, compressed; the agent killed 3 times
//	TestStreamLimit  300 streams into a Loki that admits 20 and answers 204 all the same; then the limit is raised
//	TestDeadLettersOfLoki  events that Loki refuses as too far behind, replayed as they are and with a label more
//	TestChecker  no agent: pushes wrong things to a real Loki by hand, and sees that the tally of the other two finds them
//
// `make e2e` builds the agent and the servers into .cache/bin and runs these. `make crash` needs no server but lokitest:
//
//	TestCrash             50 SIGKILLs under load; positions never past the acknowledged, repeats at most what was in flight
//	TestFirstStartMemory  the peak RSS of a first start on 41 MB
//	TestUsage             what can be wrong at start: one line that says what to do, and the exit code
//	TestStop              SIGTERM under load, and while Loki hangs
//	TestReplay            dead letters replayed beside the agent, through 3 SIGKILLs and another refusal
package e2e
