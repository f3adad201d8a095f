//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

const (
	crashes       = 50
	crashInFlight = 2
	crashBatch    = 256 << 10
	crashLatency  = 40 * time.Millisecond
)

// TestCrash ends the agent by SIGKILL at random, 50 times, while the audit log is written as fast as it goes and pushes are
// under way. After each kill it looks at the positions on disk; at the end it counts. AUDITFERRY_CRASH_SEED repeats the choice
// of moments, as far as time repeats itself.
func TestCrash(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	seed := crashSeed(t)
	random := rand.New(rand.NewPCG(seed, 0))
	ledger := newLedger(crashLatency, rand.New(rand.NewPCG(seed, 1)))
	server, url := startEndpoint(t, lokitest.HashLines())
	server.Answer(ledger.answer)
	dir := workDir(t)
	auditLog := filepath.Join(subDir(t, dir, "audit"), "audit.log")
	stop := startWriting(t, ctx, ledger, auditLog)
	agent := newAgent(t, dir, auditLog, url)

	from := 0
	for range crashes {
		startLife(t, agent, ledger, from, 512<<10+random.Int64N(16<<20))
		waitForCrash(t, ctx, ledger, random)
		if err := agent.Kill(); err != nil {
			t.Fatal(err)
		}
		from = lookAfterCrash(t, agent, ledger)
	}
	startLife(t, agent, ledger, from, 16<<20)
	stop()
	if err := ledger.waitForAll(ctx); err != nil {
		t.Fatalf("waiting for the agent after the last kill: %v; its log is %s", err, agent.LogFile())
	}
	stopAgent(t, agent)
	server.Close()
	reportCrashes(t, ledger, server, seed)
}

// crashSeed gives the seed of the environment, else one of the clock, and prints it.
func crashSeed(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("AUDITFERRY_CRASH_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatalf("AUDITFERRY_CRASH_SEED: %v", err)
		}
	}
	t.Logf("AUDITFERRY_CRASH_SEED=%d", seed)
	return seed
}

// startWriting writes real events, rotated and compressed, until stop is called; that waits for the writer.
func startWriting(t *testing.T, ctx context.Context, ledger *ledger, auditLog string) (stop func()) {
	t.Helper()
	lines := crashLines(t)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- writeUntil(ctx, ledger, lines, auditLog) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// crashLines gives the lines of one pass over real events.
func crashLines(t *testing.T) [][]byte {
	t.Helper()
	corpus, err := rig.FindCorpus()
	if err != nil {
		t.Fatal(err)
	}
	var lines [][]byte
	for line, err := range corpus.Lines(corpus.Mixed()) {
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, slices.Clone(line))
	}
	return lines
}

// writeUntil writes the lines over and over, a day earlier each time so that no two are equal, until ctx ends.
func writeUntil(ctx context.Context, ledger *ledger, lines [][]byte, auditLog string) error {
	writer := rig.NewWriter(rig.WriterConfig{Path: auditLog, MaxSize: 5, Compress: true})
	var moved []byte
	for pass := 0; ; pass++ {
		shift := rig.Shift(-time.Duration(pass) * 24 * time.Hour)
		for _, line := range lines {
			if ledger.waitForRoom(ctx) != nil || ctx.Err() != nil {
				return writer.Close()
			}
			var err error
			if moved, err = shift.Append(moved[:0], line); err != nil {
				return errors.Join(err, writer.Close())
			}
			if err := ledger.wrote(moved); err != nil {
				return errors.Join(err, writer.Close())
			}
			// A line that the ledger has must be written, whatever becomes of ctx.
			if err := writer.Write(context.WithoutCancel(ctx), moved); err != nil {
				return errors.Join(err, writer.Close())
			}
		}
	}
}

// startLife starts the agent, whose position on disk is before line from.
func startLife(t *testing.T, agent *rig.Agent, ledger *ledger, from int, room int64) {
	t.Helper()
	agent.ExtraArgs = []string{
		"--loki-stream-rate=0", // full tilt
		"--loki-reject-old=0",  // each pass over the events is a day earlier
		"--loki-tenant-id=" + ledger.begin(from, room),
		fmt.Sprintf("--batch-size=%d", crashBatch), fmt.Sprintf("--pushes-in-flight=%d", crashInFlight),
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
}

// waitForCrash waits for a moment at random: in one case of three soon after the start, else around one of the first pushes.
func waitForCrash(t *testing.T, ctx context.Context, ledger *ledger, random *rand.Rand) {
	t.Helper()
	wait := time.Duration(random.Int64N(int64(300 * time.Millisecond)))
	if random.IntN(3) > 0 {
		wait = time.Duration(random.Int64N(int64(2 * crashLatency)))
		if err := ledger.waitForPushes(ctx, 1+random.IntN(20)); err != nil {
			t.Fatalf("waiting for pushes: %v", err)
		}
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
}

// lookAfterCrash checks that the positions on disk are not past what the endpoint has acknowledged, and gives the line before
// which they stand.
func lookAfterCrash(t *testing.T, agent *rig.Agent, ledger *ledger) int {
	t.Helper()
	position := positionOnDisk(t, agent)
	line, prefix, err := ledger.end(position)
	if err != nil {
		t.Fatal(err)
	}
	if line > prefix {
		t.Fatalf("the position on disk is after %d lines, the endpoint has acknowledged %d in a row", line, prefix)
	}
	return line
}

// positionOnDisk gives the lsn of the audit log in the positions files, the highest one: DESIGN section 5. 0 if there is none.
// As no power was lost, SIGKILL can have cut only one of them: the one that was being overwritten.
func positionOnDisk(t *testing.T, agent *rig.Agent) int64 {
	t.Helper()
	lsn, torn, err := agent.PositionOnDisk()
	if err != nil {
		t.Fatal(err)
	}
	if torn > 1 {
		t.Fatalf("%d positions files are not whole after SIGKILL", torn)
	}
	return lsn
}

// reportCrashes judges what has arrived, life by life and as a whole, and prints the summary.
func reportCrashes(t *testing.T, ledger *ledger, server *lokitest.Server, seed uint64) {
	t.Helper()
	entries := server.Entries()
	missing, shownTwice := len(ledger.ends), 0
	seen := make([]bool, len(ledger.ends))
	for _, e := range entries {
		n, known := ledger.numbers[e.LineHash]
		switch {
		case !known: // counted when it arrived
		case seen[n]:
			shownTwice++
		default:
			seen[n] = true
			missing--
		}
	}
	interrupted, most := 0, 0
	for i, l := range ledger.lives {
		if l.lowest >= 0 && l.lowest < l.from {
			t.Errorf("life %d began at line %d and pushed line %d, which is before its position", i, l.from, l.lowest)
		}
		if i == crashes {
			break
		}
		batches := ledger.batches(ledger.lives[i+1].from, l.highest+1, crashBatch)
		if batches > 0 {
			interrupted++
		}
		most = max(most, batches)
	}
	fmt.Printf("crash: kills %d (%d in a push), written %d (%.0f MB), in Loki %d, missing %d, repeated %d, altered or never written %d, "+
		"sent again %d (after one kill %d batches at the most), positions past the acknowledged 0, seed %d\n",
		crashes, interrupted, len(ledger.ends), float64(ledger.written())/1e6, len(entries), missing, shownTwice, ledger.foreign,
		server.Arrivals()-len(entries), most, seed)
	if missing != 0 || shownTwice != 0 || ledger.foreign != 0 {
		t.Error("not every event is in Loki once, as it was written")
	}
	if most > crashInFlight {
		t.Errorf("a kill repeated %d batches, with %d pushes in flight", most, crashInFlight)
	}
	if interrupted < crashes/5 {
		t.Errorf("only %d of %d kills interrupted a push: the test tests too little", interrupted, crashes)
	}
}
