package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"
)

// Sink is hack/bench/sink as a child process: it takes pushes as Loki does and keeps nothing of them but counts.
type Sink struct {
	URL string
	run *process
}

// SinkStats mirrors the sink's Stats.
type SinkStats struct {
	Requests, Entries int
	WireBytes         int64
	P50, P99          time.Duration
}

// arrivalInterval is the time between two looks at what has arrived: short, since wall times are taken by it.
const arrivalInterval = 5 * time.Millisecond

// StartSink runs the binary on loopback with further flags, its output in sink.log under dir, and waits until it answers. If that
// fails, nothing is left running.
func StartSink(ctx context.Context, binary, dir string, flags ...string) (*Sink, error) {
	ports, err := FreePorts(1)
	if err != nil {
		return nil, err
	}
	address := fmt.Sprintf("127.0.0.1:%d", ports[0])
	command := append([]string{binary, "-listen", address}, flags...)
	run, err := startProcess("sink", command, filepath.Join(dir, "sink.log"), nil)
	if err != nil {
		return nil, err
	}
	s := &Sink{URL: "http://" + address, run: run}
	if err := run.waitReady(ctx, http.DefaultClient, s.URL+"/stats", ""); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// Stats gives what has arrived so far.
func (s *Sink) Stats(ctx context.Context) (now SinkStats, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/stats", nil)
	if err != nil {
		return now, fmt.Errorf("asking the sink: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return now, fmt.Errorf("asking the sink: %w", err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&now); err != nil {
		return now, fmt.Errorf("asking the sink: %w", err)
	}
	return now, nil
}

// Wait waits until so many entries have arrived. It gives up when running, which tells of who sends them, gives an error.
func (s *Sink) Wait(ctx context.Context, entries int, running func() error) (now SinkStats, err error) {
	err = pollEvery(ctx, arrivalInterval, func() (bool, error) {
		var err error
		if now, err = s.Stats(ctx); err != nil || now.Entries >= entries {
			return err == nil, err
		}
		return false, running()
	})
	if err != nil {
		err = fmt.Errorf("%d of %d entries have arrived: %w", now.Entries, entries, err)
	}
	return now, err
}

// Stop ends the sink.
func (s *Sink) Stop() error {
	_, err := s.run.terminate(20 * time.Second)
	return err
}
