//go:build e2e

package faults

import (
	"time"

	"github.com/auditferry/auditferry/hack/rig"
	"github.com/auditferry/auditferry/shipper/lokitest"
)

func init() {
	register(
		scenario{side: "sink", name: "refuses connections for 2 min, rotations", play: refusesConnections, flags: []string{"--backoff-max=5s"}},
		scenario{side: "sink", name: "hangs", flags: []string{"--loki-timeout=1s"}, play: func(r *run) {
			outage(r, 40, lokitest.Hang())
		}},
		scenario{side: "sink", name: "closes the connection in an answer", play: func(r *run) {
			outage(r, 60,
				lokitest.CutShort("HTTP/1.1 204 No Content\r\nDate: Tue, 24 N"),
				lokitest.CutShort("HTTP/1.1 204 "),
				lokitest.CutShort("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nok"),
				lokitest.CutShort("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 100\r\n\r\ningester"))
		}},
		scenario{side: "sink", name: "stores, and the answer is lost", play: func(r *run) {
			outage(r, 60, lokitest.StoredCut())
			r.mustHaveRepeated()
		}},
	)
}

// refusesConnections takes Loki away while the audit log is rotated several times.
func refusesConnections(r *run) {
	r.start()
	stop := r.keepWriting(rig.WriterConfig{MaxSize: 1, PerSecond: 40, Compress: true})
	r.delivered(100)
	r.server.Close()
	entries, rotated := len(r.server.Entries()), r.backups()
	r.pass(2 * time.Minute)
	if n := r.backups() - rotated; n < 3 {
		r.Errorf("%d rotations during the outage, want 3", n)
	}
	if n := len(r.server.Entries()); n != entries {
		r.Errorf("%d entries arrived during the outage", n-entries)
	}
	if !r.logged("Loki does not take pushes", "reason=unavailable", "connection refused") {
		r.Error("the agent did not log that Loki refuses connections")
	}
	_, err := r.server.Start()
	r.must(err)
	stop()
}
