package tailer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/fsnotify/fsnotify"
)

// How long notifications are left alone after a look that one has brought about. The kernel folds equal ones that nobody
// fetches, so a busy apiserver costs some looks a second, not one an event. Backups can live for a fraction of a second,
// and rotations come in bursts: so it is shorter for as long as the last change of the directory is recent.
const (
	quiet       = 150 * time.Millisecond
	quietLively = 25 * time.Millisecond
	lively      = time.Second
)

// trusted is how many times longer a poll waits while notifications are known to come: an idle cluster costs a wake a second.
const trusted = 4

// watch looks at the directory at every notification, and when there was none for the time of a poll, and wakes the reader
// after each look. A notification is only a hint: a lost or refused watch costs latency, never data.
func (t *Tailer) watch(ctx context.Context) {
	w := watcher{dir: t.chain.dir}
	defer w.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var renewed time.Time
	hint, ok := hint{}, true
	for ok {
		now := time.Now()
		if !hint.came || hint.self || now.Sub(renewed) >= t.cfg.Poll {
			t.observer.watching(w.renew()) // before the look: what comes between the two must not go unseen
			renewed = now
		}
		t.look(now)
		rest := t.cfg.Poll
		if w.proven {
			rest *= trusted
		}
		if hint.came {
			pause := min(rest, t.chain.quiet(now))
			if _, ok = w.wait(ctx, timer, pause, nil); !ok {
				return
			}
			rest -= pause
		}
		hint, ok = w.wait(ctx, timer, rest, w.hints())
	}
}

// A hint is a notification, if one came; self says that it is about the directory itself.
type hint struct{ came, self bool }

// wait waits for a notification, at most for so long; not ok once ctx has ended.
func (w *watcher) wait(ctx context.Context, timer *time.Timer, most time.Duration, hints <-chan fsnotify.Event) (_ hint, ok bool) {
	timer.Reset(most)
	select {
	case <-ctx.Done():
		return hint{}, false
	case e := <-hints:
		w.proven = true
		return hint{came: true, self: e.Name == w.dir}, true
	case <-timer.C:
		return hint{}, true
	}
}

// Look looks at the directory at once, beside the looks that notifications and time bring about. It is for any goroutine.
func (t *Tailer) Look() { t.look(time.Now()) }

// look scans the directory and wakes the reader.
func (t *Tailer) look(now time.Time) {
	t.observer.scanning(t.chain.scan(now))
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// watcher holds the notifications of one directory, which may be missing, vanish and come back.
type watcher struct {
	dir     string
	notify  *fsnotify.Watcher
	watched os.FileInfo
	proven  bool // a notification came since it is watched
}

// hints is where notifications come from; it blocks for ever while there are none.
func (w *watcher) hints() <-chan fsnotify.Event {
	if w.notify == nil {
		return nil
	}
	return w.notify.Events
}

// renew sees to it that the directory that is there now is watched.
func (w *watcher) renew() error {
	info, err := os.Stat(w.dir)
	if err != nil {
		w.close()
		return err
	}
	// The kernel drops the watch with the directory, and may give its inode to the next one.
	if w.notify != nil && os.SameFile(info, w.watched) && len(w.notify.WatchList()) > 0 {
		select {
		case err := <-w.notify.Errors:
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				return nil // lost hints: this poll looks anyway
			}
			w.close()
			return fmt.Errorf("watching %s: %w", w.dir, err)
		default:
			return nil
		}
	}
	w.close()
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching %s: %w", w.dir, err)
	}
	if err := notify.Add(w.dir); err != nil {
		_ = notify.Close()
		return fmt.Errorf("watching %s: %w", w.dir, err)
	}
	w.notify, w.watched = notify, info
	return nil
}

func (w *watcher) close() {
	if w.notify != nil {
		_ = w.notify.Close()
		w.notify, w.watched, w.proven = nil, nil, false
	}
}
