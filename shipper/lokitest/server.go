package lokitest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
)

// PushPath is the path of Loki's push API.
const PushPath = "/loki/api/v1/push"

// A Server is an http.Handler that takes pushes, and may listen by itself on loopback. It is safe for concurrent use.
type Server struct {
	mu       sync.Mutex
	idle     sync.Cond // active has become 0
	active   int       // requests being answered
	script   func(Request) Reply
	requests int
	closed   bool // nothing is stored
	store    *store
	address  string
	http     *http.Server
	served   chan struct{}
	stop     context.CancelFunc
}

// An Option changes how New makes a server.
type Option func(*Server)

// HashLines keeps the SHA-256 of each line and no lines, no structured metadata, so that a test can push gigabytes.
func HashLines() Option {
	return func(s *Server) { s.store.hashOnly = true }
}

// New returns a server that stores whatever is valid and answers 204. It does not listen yet: see Start.
func New(options ...Option) *Server {
	s := &Server{store: newStore()}
	s.idle.L = &s.mu
	for _, o := range options {
		o(s)
	}
	return s
}

// Answer sets the script: it is called for each valid push, and says what happens to it. It may be called from several
// goroutines at a time. Nil, as at the beginning, is OK for everything.
func (s *Server) Answer(script func(Request) Reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = script
}

// Start listens on loopback and returns the URL of the server, without the path of the push API. After a Close it listens
// at the address it had before, so that Close and Start are an outage.
func (s *Server) Start() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil {
		return "", errors.New("lokitest: the server listens already")
	}
	address := s.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return "", fmt.Errorf("lokitest: listening on %s: %w", address, err)
	}
	s.address = listener.Addr().String()
	s.closed = false
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.served = make(chan struct{})
	s.http = &http.Server{Handler: s, BaseContext: func(net.Listener) context.Context { return ctx }}
	go func(server *http.Server, served chan struct{}) {
		defer close(served)
		// Serve returns at Close, which is the only error there can be on a loopback listener.
		_ = server.Serve(listener)
	}(s.http, s.served)
	return "http://" + s.address, nil
}

// Close stops listening, cuts every connection, ends the requests that hang and waits for them. What was stored stays
// readable. Without a Start before it, it waits for the requests that another server passes to ServeHTTP.
func (s *Server) Close() {
	s.mu.Lock()
	server, served, stop := s.http, s.served, s.stop
	s.http, s.served, s.stop = nil, nil, nil
	s.closed = server != nil
	s.mu.Unlock()
	if server != nil {
		stop()
		_ = server.Close()
		<-served
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.active > 0 {
		s.idle.Wait()
	}
}

// enter and leave count the requests that Close waits for.
func (s *Server) enter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active++
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active--; s.active == 0 {
		s.idle.Broadcast()
	}
}

// Requests returns how many valid pushes have arrived, whatever was answered.
func (s *Server) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// Entries returns what a log query over everything would show: entries of equal stream, timestamp, line and structured
// metadata once, in the order of their first arrival.
func (s *Server) Entries() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.list()
}

// Arrivals returns how many entries were stored, repeats included: Arrivals() - len(Entries()) is how many were repeated.
func (s *Server) Arrivals() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.arrivals
}

// Streams returns a summary of each stream, those with most entries first.
func (s *Server) Streams() []Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.summary()
}
