package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/auditferry/auditferry/shipper/lokitest"
)

// systemd is the end of the protocol that listens.
type systemd struct {
	t    *testing.T
	mu   sync.Mutex
	told []string // each line of each message
}

// newSystemd listens, and makes the agents of this process tell it how they are. The watchdog is off if within is 0.
func newSystemd(t *testing.T, within time.Duration) *systemd {
	dir, err := os.MkdirTemp("", "notify") // the name of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	address := &net.UnixAddr{Name: filepath.Join(dir, "socket"), Net: "unixgram"}
	conn, err := net.ListenUnixgram(address.Net, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", address.Name)
	if within > 0 {
		t.Setenv("WATCHDOG_USEC", fmt.Sprint(within.Microseconds()))
		t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	}
	s := &systemd{t: t}
	read := make(chan struct{})
	go func() {
		defer close(read)
		message := make([]byte, 4096)
		for {
			n, err := conn.Read(message)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.told = append(s.told, strings.Split(string(message[:n]), "\n")...)
			s.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-read
	})
	return s
}

// count gives how often a line was told that begins so.
func (s *systemd) count(begin string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.told {
		if strings.HasPrefix(line, begin) {
			n++
		}
	}
	return n
}

// last gives the last line that was told and begins so.
func (s *systemd) last(begin string) (last string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.told {
		if strings.HasPrefix(line, begin) {
			last = line
		}
	}
	return last
}

// On a busy machine a loop may well be found dead between two looks: so it is not counted how often a status is told.
func TestSystemdIsToldHowTheAgentIs(t *testing.T) {
	s := newSystemd(t, 300*time.Millisecond)
	n := newNode(t)
	n.loki.Answer(func(lokitest.Request) lokitest.Reply { return lokitest.Refused(401, "no\norg\x01id\nMAINPID=1") })
	n.start()
	n.until("READY", func() bool { return s.count("READY=1") == 1 })
	n.until("the status", func() bool {
		return s.count("STATUS=following "+n.path("audit.log")+"; waiting for "+n.path("audit.log")+", which does not exist") > 0
	})
	n.until("the watchdog being told", func() bool { return s.count("WATCHDOG=1") >= 3 })
	n.write("audit.log", event(0))
	n.until("the trouble", func() bool { return s.count("STATUS=Loki at "+n.url) > 0 })
	more := s.count("WATCHDOG=1") + 3
	n.until("the watchdog being told in spite of the trouble", func() bool { return s.count("WATCHDOG=1") >= more })
	n.loki.Answer(nil)
	n.until("the end of the trouble", func() bool { return s.last("STATUS=") == "STATUS=following "+n.path("audit.log") })
	if code := n.stopped(); code != exitOK {
		t.Errorf("exit code %d: %s", code, n.stderr.String())
	}
	n.until("the stop", func() bool { return s.count("STOPPING=1") == 1 && s.count("EXTEND_TIMEOUT_USEC=20000000") == 1 })
	if got := s.count("READY=1"); got != 1 {
		t.Errorf("it said %d times that it is ready", got)
	}
	if s.count("MAINPID") > 0 {
		t.Errorf("Loki gave systemd an order: %q", s.told)
	}
}

// The looks are all at one time, at which no loop can have stood still for too long.
func TestAStatusThatDoesNotChangeIsToldOnce(t *testing.T) {
	s := newSystemd(t, time.Minute)
	n := newNode(t)
	a := opened(t, n)
	now := time.Now()
	notifier, interval := newNotifier(a, now)
	if interval != 20*time.Second {
		t.Errorf("it looks every %s", interval)
	}
	notifier.status = "" // the first look tells it
	for range 10 {
		notifier.look(now)
	}
	n.until("the looks", func() bool { return s.count("WATCHDOG=1") == 10 })
	if got := s.count("STATUS="); got != 1 {
		t.Errorf("the status was told %d times: %q", got, s.told)
	}
	if err := a.close(); err != nil {
		t.Error(err)
	}
}

func TestWithoutAWatchdogItIsNotTold(t *testing.T) {
	s := newSystemd(t, 0)
	n := newNode(t)
	n.start()
	n.until("READY", func() bool { return s.count("READY=1") == 1 })
	n.stopped()
	n.until("the stop", func() bool { return s.count("STOPPING=1") == 1 })
	if s.count("WATCHDOG=1") > 0 {
		t.Errorf("a watchdog was told that there is not: %q", s.told)
	}
}

func TestASystemdThatIsNotThereIsLoggedOnce(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/no/such/socket")
	t.Setenv("WATCHDOG_USEC", "30000")
	n := newNode(t)
	n.start()
	n.write("audit.log", events(0, 3)...)
	n.wait(3)
	n.stopped()
	if got := strings.Count(n.stderr.String(), "systemd cannot be told"); got != 1 {
		t.Errorf("logged %d times: %s", got, n.stderr.String())
	}
}

// opened gives the agent of a node, which does not run yet.
func opened(t *testing.T, n *node) *agent {
	t.Helper()
	_, cfg, err := parse(n.flags(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	cfg.now = n.now
	a := &agent{cfg: cfg, logger: slog.New(slog.DiscardHandler), registry: prometheus.NewRegistry()}
	if err := a.open(); err != nil {
		t.Fatal(errors.Join(err, a.close()))
	}
	return a
}

// The lock that the test holds is one that the loop takes for each batch.
func TestTheWatchdogIsNotToldWhileALoopIsDead(t *testing.T) {
	s := newSystemd(t, 150*time.Millisecond)
	n := newNode(t)
	a := opened(t, n)
	ctx, cancel := context.WithCancel(t.Context())
	stopNotifying := a.notify(ctx)
	n.stop, n.exit = cancel, make(chan int, 1)
	go func() {
		if err := a.run(ctx); err != nil {
			t.Error(err)
		}
		n.exit <- exitOK
	}()
	n.until("the watchdog being told", func() bool { return s.count("WATCHDOG=1") > 0 })
	lock := &a.followers[0].metrics.mu
	lock.Lock()
	n.write("audit.log", event(0))
	dead := "STATUS=the loop of " + n.path("audit.log") + " is dead"
	n.until("the loop being found dead", func() bool { return s.count(dead) > 0 })
	told := s.count("WATCHDOG=1")
	lock.Unlock()
	n.wait(1)
	n.until("the watchdog being told again", func() bool {
		return s.count("WATCHDOG=1") > told && strings.HasPrefix(s.last("STATUS="), "STATUS=following")
	})
	n.stopped()
	if err := a.close(); err != nil {
		t.Error(err)
	}
	stopNotifying()
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.IndexFunc(s.told, func(line string) bool { return strings.HasPrefix(line, dead) })
	if again := slices.IndexFunc(s.told[at:], func(line string) bool { return line == "WATCHDOG=1" }); again >= 0 &&
		slices.IndexFunc(s.told[at:], func(line string) bool { return strings.HasPrefix(line, "STATUS=following") }) > again {
		t.Errorf("the watchdog was told while the loop was dead: %q", s.told)
	}
}
