package tailer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/fsnotify/fsnotify"
)

// quiet is how long notifications are left alone after a look. The kernel folds equal ones that nobody fetches, so a
// busy apiserver costs some looks a second, not one an event.
const quiet = 25 * time.Millisecond

// watch looks at the directory at every notification and at every poll, and wakes the reader after each look. A
// notification is only a hint: a lost or refused watch costs latency, never data.
func (t *Tailer) watch(ctx context.Context) {
	w := watcher{dir: t.chain.dir}
	defer w.close()
	poll := time.NewTicker(t.cfg.Poll)
	defer poll.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	t.observer.watching(w.renew())
	t.look(time.Now())              // what came between New's look and the watch
	var hints <-chan fsnotify.Event // nil while pausing
	pausing := true
	for {
		select {
		case <-ctx.Done():
			return
		case <-hints:
			hints, pausing = nil, true
			pause.Reset(quiet)
		case <-pause.C:
			hints, pausing = w.hints(), false
			continue
		case <-poll.C:
			t.observer.watching(w.renew())
			if !pausing {
				hints = w.hints()
			}
		}
		t.look(time.Now())
	}
}

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
		w.notify, w.watched = nil, nil
	}
}
