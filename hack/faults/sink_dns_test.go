//go:build e2e

package faults

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/net/dns/dnsmessage"
)

func init() {
	register(scenario{side: "sink", name: "a name that DNS does not know at first", play: lateName})
}

// nameServer answers every question for an A record with 127.0.0.1 once it knows it, and before with code.
type nameServer struct {
	socket  net.PacketConn
	code    atomic.Int32 // a dnsmessage.RCode
	known   atomic.Bool
	refused atomic.Int64 // questions answered with code
}

// lateName gives the agent, in a mount namespace of its own, a resolv.conf that names a server which does not know Loki yet.
func lateName(r *run) {
	const address = "127.86.53.1" // loopback; resolv.conf can name no port but 53
	socket, err := net.ListenPacket("udp", address+":53")
	if err != nil {
		r.Fatalf("this scenario needs root, for a DNS server on port 53: %v", err)
	}
	server := &nameServer{socket: socket}
	server.code.Store(int32(dnsmessage.RCodeNameError))
	served := make(chan error, 1)
	go func() { served <- server.serve() }()
	r.Cleanup(func() {
		_ = socket.Close() // which ends serve
		if err := <-served; !errors.Is(err, net.ErrClosed) {
			r.Error(err)
		}
	})

	resolvConf := filepath.Join(r.dir, "resolv.conf")
	r.must(os.WriteFile(resolvConf, []byte("nameserver "+address+"\noptions timeout:1 attempts:1\n"), 0o644))
	r.agent.Wrapper = []string{"unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, resolvConf}
	r.agent.LokiURL = strings.Replace(r.url, "127.0.0.1", "loki.faults.example.", 1)
	r.start()
	r.write(r.rotating(), 2000)
	r.eventually("the agent said that the name does not resolve", func() bool {
		return r.logged("Loki does not take pushes", "reason=unavailable", "no such host")
	})
	server.code.Store(int32(dnsmessage.RCodeServerFailure))
	before := server.refused.Load()
	r.eventually("the name server failed", func() bool { return server.refused.Load() >= before+20 })
	if n := len(r.server.Entries()); n != 0 {
		r.Errorf("%d entries found their way without a name", n)
	}
	server.known.Store(true)
}

// serve answers until the socket is closed.
func (s *nameServer) serve() error {
	buf := make([]byte, 1500)
	for {
		n, from, err := s.socket.ReadFrom(buf)
		if err != nil {
			return err
		}
		answer, err := s.answer(buf[:n])
		if err != nil {
			return err
		}
		if _, err := s.socket.WriteTo(answer, from); err != nil {
			return err
		}
	}
}

func (s *nameServer) answer(question []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil {
		return nil, err
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	if !s.known.Load() {
		m.RCode = dnsmessage.RCode(s.code.Load())
		s.refused.Add(1)
		return m.Pack()
	}
	if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
			Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
		}}
	}
	return m.Pack()
}
