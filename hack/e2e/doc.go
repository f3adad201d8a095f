// Package e2e holds the end-to-end tests, with the build tag e2e: the agent's binary between a real audit log and a real
// Loki, killed and cut off on the way, and every event read back through Loki's query API.
//
//	TestCorpus   recorded logs, written by lumberjack as kube-apiserver does; the agent killed 5 times, Loki away for 20 s
//	TestCluster  a real kube-apiserver under varied requests, 1 MB files, compressed; the agent killed 3 times
//	TestStreamLimit  300 streams into a Loki that admits 20 and answers 204 all the same; then the limit is raised
//	TestDeadLettersOfLoki  events that Loki refuses as too far behind, replayed as they are and with a label more
//	TestDefaultLimits  a backlog with lines of megabytes, a Loki at its default limits, 2 kills: it refuses nothing but for its rate
//	TestTwoDestinations  one of them is down while the other, a real Loki, gets everything; then it comes up and gets it too
//	TestAnonymousFlood  10,000 anonymous requests, all random, to a real kube-apiserver: not one new stream
//	TestChecker  no agent: pushes wrong things to a real Loki by hand, and sees that the tally of the others finds them
//
// `make e2e` builds the agent and the servers into .cache/bin and runs these. `make crash` needs no server but lokitest:
//
//	TestCrash             50 SIGKILLs under load; positions never past the acknowledged, repeats at most what was in flight
//	TestFirstStartMemory  the peak RSS of a first start on 41 MB
//	TestManyUsers         100,000 users: streams and memory within bounds, and each is found by name
//	TestUsage             what can be wrong at start: one line that says what to do, and the exit code
//	TestStop              SIGTERM under load, and while Loki hangs
//	TestReplay            dead letters replayed beside the agent, through 3 SIGKILLs and another refusal
//
// `make manifests` needs etcd, kube-apiserver and kubectl:
//
//	TestManifests  kustomizations, chart outputs and pods of manifests/: a real kube-apiserver takes each, without a warning, and
//	               applied twice; Pod Security lets their pods in; the agent takes their settings
//
// `make caps` needs Docker, and runs the image that it has built, with limits, against the sink of hack/bench:
//
//	TestCapsBacklog  48 MiB and 0.2 CPU: 1 GB, or AUDITFERRY_CAPS_GB, to a Loki that answers at once and to a slow one
//	TestCapsSteady   48 MiB and 0.05 CPU: 500 events a second for a minute
//	TestCapsPaths    64 MiB: four backlogs at a time
//
// `make containers` needs Docker, root and the servers, and tries what manifests/ says:
//
//	TestPolicy            a real kube-apiserver with the audit policy: levels, no secrets, no noise
//	TestImage             the image with the rights of the manifests, between a real kube-apiserver and a real Loki, through 4 SIGKILLs
//	TestImageConfined     what it cannot do with these rights
//	TestImageRights     that the manifests agree in them
//	TestSidecar           a static pod with the native sidecar, stopped 3 times: the last event is in Loki
//	TestSidecarManifests  kubeadm and kube-apiserver take the patch and the example
package e2e
