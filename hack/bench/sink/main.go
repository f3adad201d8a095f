// Command sink takes pushes as Loki does and keeps nothing of them but counts: what the benchmarks push to, in a process of
// its own, so that its work is not counted as the agent's.
//
//	sink -listen ADDR [-delay TIME] [-latency]
//
// POST /loki/api/v1/push answers 204. GET /stats gives Stats as JSON.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/golang/snappy"
	"google.golang.org/protobuf/encoding/protowire"
)

// Stats is what has arrived.
type Stats struct {
	Requests, Entries int
	WireBytes         int64 // bodies as they were sent
	// P50 and P99 are of the time from an entry's own timestamp to its arrival; 0 without -latency.
	P50, P99 time.Duration
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "`address`")
	s := &sink{bodies: sync.Pool{New: func() any { return new(body) }}}
	flag.DurationVar(&s.delay, "delay", 0, "pause before each answer")
	flag.BoolVar(&s.latency, "latency", false, "keep how old each entry is when it arrives")
	flag.Parse()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /loki/api/v1/push", s.push)
	mux.HandleFunc("GET /stats", s.stats)
	fmt.Fprintln(os.Stderr, "sink:", http.ListenAndServe(*listen, mux))
	os.Exit(1)
}

type sink struct {
	delay   time.Duration
	latency bool
	bodies  sync.Pool

	mu        sync.Mutex
	now       Stats
	latencies []time.Duration
}

// body is the memory that one push takes.
type body struct{ packed, plain []byte }

func (s *sink) push(w http.ResponseWriter, r *http.Request) {
	b := s.bodies.Get().(*body)
	defer s.bodies.Put(b)
	b.packed = slices.Grow(b.packed[:0], int(max(0, r.ContentLength)))[:max(0, r.ContentLength)]
	if _, err := io.ReadFull(r.Body, b.packed); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	plain, err := snappy.Decode(b.plain[:cap(b.plain)], b.packed)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	b.plain = plain
	time.Sleep(s.delay)
	s.count(b)
	w.WriteHeader(http.StatusNoContent)
}

// count walks over a PushRequest: its field 1 is a stream, whose field 2 is an entry, whose field 1 is the time. Decoding it
// into structs would cost more than an agent needs to make it, and take the processor from the agent.
func (s *sink) count(b *body) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Requests++
	s.now.WireBytes += int64(len(b.packed))
	arrived := time.Now()
	fields(b.plain, 1, func(stream []byte) {
		fields(stream, 2, func(entry []byte) {
			s.now.Entries++
			if s.latency {
				fields(entry, 1, func(stamp []byte) { s.latencies = append(s.latencies, arrived.Sub(timestamp(stamp))) })
			}
		})
	})
}

// fields gives each occurrence of the field of a message that has the number, which is itself a message.
func fields(message []byte, number protowire.Number, give func([]byte)) {
	for len(message) > 0 {
		found, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return
		}
		message = message[n:]
		if found == number && kind == protowire.BytesType {
			value, n := protowire.ConsumeBytes(message)
			if n < 0 {
				return
			}
			give(value)
			message = message[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(found, kind, message); n < 0 {
			return
		}
		message = message[n:]
	}
}

// timestamp reads a google.protobuf.Timestamp.
func timestamp(message []byte) time.Time {
	var parts [3]int64 // seconds in 1, nanoseconds in 2
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 || kind != protowire.VarintType || number > 2 {
			break
		}
		value, m := protowire.ConsumeVarint(message[n:])
		if m < 0 {
			break
		}
		parts[number] = int64(value)
		message = message[n+m:]
	}
	return time.Unix(parts[1], parts[2])
}

func (s *sink) stats(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.latencies)
	if n := len(s.latencies); n > 0 {
		s.now.P50, s.now.P99 = s.latencies[n/2], s.latencies[n*99/100]
	}
	_ = json.NewEncoder(w).Encode(s.now) // a driver that is gone needs no answer
}
