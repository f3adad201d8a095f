package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

const (
	// looksPerWatchdog is how often the agent reports to the watchdog in the time in which it must. At the half of it, as is usual,
	// a loop that has stood still at one look would have no second one.
	looksPerWatchdog = 3
	// statusInterval is how often the status is looked at where there is no watchdog.
	statusInterval = 30 * time.Second
	// maxStatus is as much as makes sense in the output of systemctl status; systemd takes 4 KiB.
	maxStatus = 1000
	// stopMargin is what closing takes at the most beyond --shutdown-timeout.
	stopMargin = 10 * time.Second
)

// notifier tells systemd how the agent is, by the protocol of sd_notify(3). It wakes for its looks alone.
type notifier struct {
	agent    *agent
	watchdog bool
	vigil    *vigil
	status   string // as it was told last
	silent   bool   // the watchdog is not told that the agent lives
	failed   bool   // it was logged that systemd cannot be told
}

// notify says that the agent is ready, and how it is from then on, until stop is called. Nothing runs if nobody asks
// ($NOTIFY_SOCKET).
func (a *agent) notify(ctx context.Context) (stop func()) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return func() {}
	}
	n, interval := newNotifier(a, time.Now())
	n.send(daemon.SdNotifyReady, "STATUS="+n.status)
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		n.run(ctx, interval, end)
	}()
	return func() {
		close(end)
		<-ended
	}
}

// newNotifier gives one that is to look every interval from now on, and the first status.
func newNotifier(a *agent, now time.Time) (n *notifier, interval time.Duration) {
	n, interval = &notifier{agent: a}, statusInterval
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		a.logger.Warn("the watchdog of systemd is not served", "error", err)
	} else if limit > 0 {
		n.watchdog, interval = true, limit/looksPerWatchdog
	}
	n.vigil = newVigil(a.followers, interval, now)
	n.status = n.words()
	return n, interval
}

func (n *notifier) run(ctx context.Context, interval time.Duration, end <-chan struct{}) {
	looks := time.NewTicker(interval)
	defer looks.Stop()
	stopping := ctx.Done()
	for {
		select {
		case <-end:
			return
		case <-stopping:
			stopping = nil
			patience := n.agent.cfg.ShutdownTimeout + stopMargin
			n.send(daemon.SdNotifyStopping, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", patience.Microseconds()))
		case now := <-looks.C:
			n.look(now)
		}
	}
}

// look tells what has changed, and the watchdog that the agent lives. It takes the very locks that /readyz takes, so one that nobody
// gives back silences it too. None of them is held while a disk or Loki is waited for: a restart would not help against what hangs
// there, and would lose the deleted backups that the agent holds open, of all paths.
func (n *notifier) look(now time.Time) {
	var news []string
	status := n.words()
	var path string
	var still time.Duration
	if n.watchdog {
		path, still = n.vigil.dead(now)
	}
	if path != "" {
		status = fmt.Sprintf("the loop of %s is dead; the watchdog will end the agent", path)
	}
	if status != n.status {
		n.status = status
		news = append(news, "STATUS="+status)
	}
	if path != "" && !n.silent {
		n.agent.logger.Error("bug: a loop stands still; the watchdog is not served any more", "path", path, "for", still.Round(time.Second))
	}
	n.silent = path != ""
	if n.watchdog && path == "" {
		news = append(news, daemon.SdNotifyWatchdog)
	}
	if len(news) > 0 {
		n.send(news...)
	}
}

// words say how the agent is: what /readyz says, or what it follows. What Loki has answered may be in them, so they are made one line
// of printable text: each line of a message is an order to systemd.
func (n *notifier) words() string {
	text := fmt.Sprintf("following %s", strings.Join(n.agent.cfg.AuditLogPath, ", "))
	if absent := slices.DeleteFunc(slices.Clone(n.agent.cfg.AuditLogPath), func(path string) bool { return missing(path) == 0 }); len(absent) > 0 {
		text += fmt.Sprintf("; waiting for %s, which does not exist", strings.Join(absent, ", "))
	}
	if err := n.agent.ready(); err != nil {
		text = oneLine(err)
	}
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	return strings.ToValidUTF8(text[:min(len(text), maxStatus)], "")
}

// send tells systemd all of it in one message. That it cannot be told is logged once: there is nothing that it would change.
func (n *notifier) send(lines ...string) {
	_, err := daemon.SdNotify(false, strings.Join(lines, "\n"))
	if err != nil && !n.failed {
		n.failed = true
		n.agent.logger.Warn("systemd cannot be told how the agent is", "error", err)
	}
}
