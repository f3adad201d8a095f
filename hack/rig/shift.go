package rig

import (
	"bytes"
	"errors"
	"time"
)

// microTime is how kube-apiserver writes timestamps: always six decimals, always UTC (metav1.MicroTime).
const microTime = "2006-01-02T15:04:05.000000Z"

var (
	receivedKey = []byte(`"requestReceivedTimestamp":"`)
	stageKey    = []byte(`","stageTimestamp":"`)
)

// errNoTimestamps is given for a line in which the two timestamps of an event do not stand as kube-apiserver writes them.
var errNoTimestamps = errors.New("a line without requestReceivedTimestamp and stageTimestamp side by side")

// Shift moves an event in time: requestReceivedTimestamp and stageTimestamp, nothing else.
type Shift time.Duration

// Append appends line to dst with its two top-level timestamps moved, byte for byte the same otherwise, of the same length.
func (s Shift) Append(dst, line []byte) ([]byte, error) {
	received, stage, err := timestamps(line)
	if err != nil {
		return nil, err
	}
	start := len(dst)
	dst = append(dst, line...)
	for _, at := range []int{received, stage} {
		field := dst[start+at : start+at+len(microTime)]
		t, err := time.Parse(microTime, string(field))
		if err != nil {
			return nil, err
		}
		copy(field, t.Add(time.Duration(s)).Format(microTime))
	}
	return dst, nil
}

// StageTime gives the top-level stageTimestamp of a line that kube-apiserver wrote.
func StageTime(line []byte) (time.Time, error) {
	_, stage, err := timestamps(line)
	if err != nil {
		return time.Time{}, err
	}
	return time.Parse(microTime, string(line[stage:stage+len(microTime)]))
}

// timestamps gives where the values of the top-level timestamps begin. They are the last pair in the line: bodies stand
// before them, and what follows is annotations, in whose strings every quote is escaped.
func timestamps(line []byte) (received, stage int, err error) {
	at := bytes.LastIndex(line, receivedKey)
	if at < 0 {
		return 0, 0, errNoTimestamps
	}
	received = at + len(receivedKey)
	rest := line[received:]
	if len(rest) < 2*len(microTime)+len(stageKey) || !bytes.HasPrefix(rest[len(microTime):], stageKey) {
		return 0, 0, errNoTimestamps
	}
	return received, received + len(microTime) + len(stageKey), nil
}
