package lokitest

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/golang/snappy"
	"github.com/grafana/loki/pkg/push"
)

// maxBody bounds a body, packed and unpacked, as Loki's -distributor.max-recv-msg-size does (100 MiB).
const maxBody = 100 << 20

// A refusal is an answer that Loki gives before it looks at the entries.
type refusal struct {
	status int
	text   string
}

// ServeHTTP takes one push. GET /ready is answered as Loki does; any other request than a push is refused.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.enter()
	defer s.leave()
	if r.Method == http.MethodGet && r.URL.Path == "/ready" {
		_, _ = io.WriteString(w, "ready\n") // a client that has gone does not matter
		return
	}
	entries, bad := decode(w, r)
	if bad != nil {
		http.Error(w, bad.text, bad.status)
		return
	}
	s.mu.Lock()
	s.requests++
	script, number := s.script, s.requests
	s.mu.Unlock()
	reply := OK()
	if script != nil {
		reply = script(Request{Number: number, Header: r.Header, Tenant: r.Header.Get("X-Scope-OrgID"), Packed: r.ContentLength, Entries: entries})
	}
	if !s.keep(entries, reply) {
		panic(http.ErrAbortHandler) // net/http's way to close a connection
	}
	reply.send(w, r)
}

// keep stores what the reply says, before a byte of the answer is sent; not ok if the server has been closed: a request can be
// read to its end by then, and not have come here yet.
func (s *Server) keep(entries []Entry, reply Reply) (ok bool) {
	acked := reply.Status == http.StatusNoContent && !reply.Hang && !reply.Cut && reply.Raw == ""
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if reply.Store == nil {
		return true
	}
	for _, e := range entries {
		if reply.Store(e) {
			s.store.add(e, acked)
		}
	}
	return true
}

// decode reads a push as Loki's pkg/loghttp/push does.
func decode(w http.ResponseWriter, r *http.Request) ([]Entry, *refusal) {
	if !strings.HasSuffix(r.URL.Path, PushPath) {
		return nil, &refusal{http.StatusNotFound, "404 page not found"}
	}
	if r.Method != http.MethodPost {
		return nil, &refusal{http.StatusMethodNotAllowed, "405 method not allowed"}
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-protobuf" {
		return nil, &refusal{http.StatusUnsupportedMediaType, "Content-Type must be application/x-protobuf"}
	}
	packed, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, err.Error()}
	}
	if n, err := snappy.DecodedLen(packed); err == nil && n > maxBody {
		return nil, &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("request body too large: %d bytes", n)}
	}
	plain, err := snappy.Decode(nil, packed)
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, err.Error()}
	}
	var request push.PushRequest
	if err := request.Unmarshal(plain); err != nil {
		return nil, &refusal{http.StatusBadRequest, err.Error()}
	}
	if len(request.Streams) == 0 {
		return nil, &refusal{http.StatusUnprocessableEntity, "error at least one valid stream is required for ingestion"}
	}
	return entriesOf(&request)
}

func entriesOf(request *push.PushRequest) ([]Entry, *refusal) {
	var entries []Entry
	for _, stream := range request.Streams {
		labels, err := ParseLabels(stream.Labels)
		if err != nil {
			return nil, &refusal{http.StatusBadRequest, fmt.Sprintf("couldn't parse labels: %v", err)}
		}
		name := formatLabels(labels)
		for _, e := range stream.Entries {
			entry := Entry{Stream: name, Labels: labels, Time: e.Timestamp, Line: e.Line, Bytes: len(e.Line), LineHash: sha256.Sum256([]byte(e.Line))}
			for _, f := range e.StructuredMetadata {
				entry.Metadata = append(entry.Metadata, Field(f))
			}
			slices.SortStableFunc(entry.Metadata, func(a, b Field) int { return cmp.Compare(a.Name, b.Name) })
			entries = append(entries, entry)
		}
	}
	return entries, nil
}
