// Package faults holds the fault suite, with the build tag e2e: the agent's binary between an audit log, written by lumberjack or
// worse, and lokitest, with one thing going wrong at a time. `make faults` runs it and prints a table of one row a scenario.
//
// A scenario plays its fault, asserts that it really happened, and returns while the agent runs. The suite then waits until all
// that was written is delivered, stops the agent, and judges (judge_test.go): nothing missing, nothing shown twice, nothing
// dropped, the position on disk never past what was acknowledged. Where a scenario destroys data before it can be read, each
// missing event must lie in a gap that the agent told of.
//
// A row that cannot fail is none: for each, the safeguard that it stands for was taken out of the agent, and the row failed.
// The log of this directory says which (git log -- hack/faults). A new row is tried in the same way.
package faults
