package main

import (
	"fmt"
	"time"

	"github.com/auditferry/auditferry/agent/audit"
	"github.com/auditferry/auditferry/shipper"
)

// pushOrBury puts an entry into the open batch: to be pushed, at a time and with structured metadata, or for the dead letters if
// Loki would refuse it for its length.
func (f *follower) pushOrBury(e *audit.Entry, at time.Time, metadata []shipper.Field) {
	if e.TooLong {
		f.bury(e, shipper.ReasonLine, f.tooLong(e))
		return
	}
	if e.Removed > 0 {
		f.metrics.reducedLines.Inc()
		f.metrics.reducedBytes.Add(float64(e.Removed))
	}
	f.push(shipper.Entry{Stream: e.Stream, Time: at, Line: e.Line, Metadata: metadata})
}

// tooLong says why an entry is buried.
func (f *follower) tooLong(e *audit.Entry) string {
	why := "what can be removed of an event is not enough"
	if e.Malformed {
		why = "what is not one JSON object cannot be reduced"
	}
	return fmt.Sprintf("the line has %d bytes, --max-line-size is %d, and %s", len(e.Line), f.maxLine, why)
}
