package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

// A gateway that limits bodies is met a few times at a start, and then batches are small enough.
func TestBatchesFitTheGateway(t *testing.T) {
	n := newNode(t)
	n.listen = freeAddress(t)
	var tooLarge atomic.Int64
	n.loki.Answer(func(request lokitest.Request) lokitest.Reply {
		if request.Packed > 20_000 {
			tooLarge.Add(1)
			return lokitest.Refused(413, "request entity too large")
		}
		return lokitest.OK()
	})
	random := rand.New(rand.NewPCG(1, 2))
	written := 0
	more := func(lines int) {
		var text []string
		for range lines {
			text = append(text, strings.Replace(event(written), `"id-`, fmt.Sprintf(`"%x-%x-`, random.Uint64(), random.Uint64()), 1))
			written++
		}
		n.write("audit.log", text...)
		n.wait(written)
	}
	n.start("--batch-wait=100ms", "--batch-size=200KiB")
	more(2000)
	if tooLarge.Load() == 0 {
		t.Fatal("nothing was too large")
	}
	n.until("the size is told", func() bool {
		_, metrics := n.get("/metrics")
		return strings.Contains(metrics, "auditferry_batch_limit_bytes ") && !strings.Contains(metrics, "auditferry_batch_limit_bytes 0\n")
	})
	before := tooLarge.Load()
	more(4000)
	if got := tooLarge.Load() - before; got != 0 {
		t.Errorf("%d pushes were too large though that is known", got)
	}
	n.stopped()
	if said := strings.Count(n.stderr.String(), "smaller batches are pushed from now on"); said == 0 || said > 4 {
		t.Errorf("said %d times:\n%s", said, n.stderr.String())
	}
}

// A server that answers 200 is one to push to, if it is named so: for the agent as for replay.
func TestAnotherServerAcknowledgesWith200(t *testing.T) {
	n, letters := deadNode(t)
	n.loki.Answer(func(lokitest.Request) lokitest.Reply { return lokitest.Stored(200, `{"status":"success"}`) })
	if code, stdout, stderr := n.replay("--loki-accept-status=200", letters); code != exitOK || stdout != letters+": 5 taken\n" {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	n.listen = freeAddress(t)
	n.write("audit.log", events(10, 13)...)
	n.start("--loki-accept-status=200", "--loki-accept-status=202")
	n.waitMetric("auditferry_sent_entries_total", "3")
	n.wantLines(events(0, 13))
	if code, body := n.get("/readyz"); code != 200 {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if code, _, stderr := n.replay("--loki-accept-status=400", letters); code != exitUsage || !strings.Contains(stderr, "--loki-accept-status") {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}

// --loki-rate is that of the client, and can come from the file.
func TestTheRateIsTold(t *testing.T) {
	n := newNode(t)
	n.listen = freeAddress(t)
	n.write("audit.log", event(0))
	n.start("--config=" + write(t, "loki-rate: 2MiB\n"))
	n.wait(1)
	n.waitMetric("auditferry_push_rate_limit_bytes", "2.097152e+06")
	for _, scope := range []string{"tenant", "stream", "other"} {
		n.waitMetric(`auditferry_rate_limited_total{scope="`+scope+`"}`, "0")
	}
}
