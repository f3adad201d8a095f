package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"time"
)

const (
	// sandboxInterval is how often the agent looks if the sandbox is what keeps it from going on.
	sandboxInterval = 10 * time.Second
	// endInterval is how often it looks, once it is to end, whether that loses nothing.
	endInterval = time.Second
	// quietPatience is how long the end waits for a log that was moved away with its directory, and of which all there is is
	// acknowledged: who writes it may write on to the old file until it is rotated. Longer, it is taken for a log that nobody writes.
	quietPatience = 5 * time.Minute
)

// leave ends a path whose directory was replaced by one that the sandbox does not allow. All that was read of the old one is
// acknowledged before, for as long as that takes: it may be there no more. The next start goes on in the new one. Until the agent ends,
// for which watchSandbox waits until the others lose nothing by it, the path is parked.
func (f *follower) leave(ctx context.Context) error {
	if err := f.settle(ctx); err != nil {
		return err
	}
	if err := f.commitLeaving(); err != nil {
		return err
	}
	f.left.Store(true)
	select {
	case f.parked <- struct{}{}:
	default:
	}
	defer f.pulse.await()()
	<-ctx.Done()
	return nil
}

// commitLeaving keeps where to go on in the other directory. All that was read is acknowledged.
func (f *follower) commitLeaving() error {
	at := f.leaving.At
	f.end.FirstLine, f.end.Offset, f.end.Name, f.end.Inode, f.end.Others = at.FirstLine, at.Offset, at.Name, at.Inode, at.Others
	if err := f.commitEnd(); err != nil {
		return fmt.Errorf("keeping where to go on in %s: %w", f.leaving.Dir, err)
	}
	return nil
}

// watchSandbox returns an error when the agent is to end because what it needs was replaced, and ctx does not end before.
func (a *agent) watchSandbox(ctx context.Context) error {
	if a.sandbox == nil {
		return nil
	}
	look := time.NewTicker(sandboxInterval)
	defer look.Stop()
	var since time.Time // when it was to end
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.parked:
		case <-look.C:
		}
		stuck, why := a.cause()
		if why == nil {
			since = time.Time{}
			a.sandbox.await(nil)
			look.Reset(sandboxInterval)
			continue
		}
		if since.IsZero() {
			since = time.Now()
		}
		// A file that was deleted just before may not be known as such yet.
		if missing := endInterval - time.Since(since); missing > 0 {
			look.Reset(missing)
			continue
		}
		held, hopeless := a.held(stuck, time.Since(since) < quietPatience)
		if len(held) == 0 || hopeless {
			return why
		}
		waits := fmt.Errorf("waiting for %s, since the agent is to be started again and would lose what it holds open: %w", strings.Join(held, ", "), why)
		if a.sandbox.await(waits) {
			a.logger.Warn("the agent is to be started again, which waits until it holds no unread file that is deleted", "error", waits)
		}
		look.Reset(endInterval)
	}
}

// cause gives why the agent is to end, nil if it is not, and to which destinations nothing can be shipped for that reason.
func (a *agent) cause() (stuck map[string]bool, why error) {
	stuck = make(map[string]bool)
	refused := refusal(a.store.Trouble()) // which keeps nothing from being shipped
	all := refusal(a.admissions.Trouble())
	for _, d := range a.destinations {
		stuck[d.address] = all || refusal(d.client.State())
		refused = refused || stuck[d.address]
	}
	if refused {
		if why := a.sandbox.replaced(); why != nil {
			return stuck, why
		}
	}
	for _, f := range a.followers {
		if f.left.Load() {
			return nil, fmt.Errorf("%s was replaced by another directory %s", f.leaving.Dir, startAgain)
		}
	}
	return nil, nil
}

// refusal reports whether an error looks as if a file could not be opened. Names cannot be looked up without /etc/resolv.conf; Go's
// resolver does not say why.
func refusal(err error) bool {
	var lookup *net.DNSError
	return errors.Is(err, fs.ErrPermission) || errors.As(err, &lookup)
}

// held names the followers that would lose something if the agent ended now; with quiet, those also of which all is acknowledged
// and that may be written on to. It is hopeless to wait if one of them cannot ship before the agent is started again: it can only
// lose more, as others may that are stuck like it.
func (a *agent) held(stuck map[string]bool, quiet bool) (names []string, hopeless bool) {
	for _, f := range a.followers {
		acked, _ := a.store.Position(f.key)
		if f.left.Load() || !f.tail.Held(acked) || f.metrics.lag() == 0 && !quiet {
			continue
		}
		names = append(names, f.path+" to "+f.destination)
		hopeless = hopeless || stuck[f.destination]
	}
	return names, hopeless
}
