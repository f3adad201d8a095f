package tailer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/auditferry/auditferry/positions"
)

// Config says what to follow and how.
type Config struct {
	// Path is the --audit-log-path of kube-apiserver. It need not exist yet.
	Path string
	// Start says where to begin if there is no position.
	Start Start
	// Oldest leaves out the backups at the beginning, or from the position on, that hold nothing newer, as far as names tell; they
	// are not read, see Old. Zero: all are read.
	Oldest time.Time
	// MaxLine is the longest line, in bytes, that is handed over whole.
	MaxLine int
	// Poll is how often to look when no notification comes.
	Poll time.Duration
	// MaxGone bounds the bytes of deleted backups that are held open until they are read.
	MaxGone int64
	Logger  *slog.Logger
	// Registerer takes the metrics; nil for none.
	Registerer prometheus.Registerer
}

// Line is one line of the log. It is valid until the next call of Next.
type Line struct {
	// Bytes is the line without its newline.
	Bytes []byte
	// End is the position after the line. Its EventTime is left to the caller, who reads the line.
	End positions.Position
	// Fragment says that the line has no newline and never will: its file has stopped growing.
	Fragment bool
	// Cut is how many bytes at the end of a line longer than MaxLine are missing in Bytes. NUL bytes at the beginning of
	// such a line, the hole that copytruncate leaves, are left out before that.
	Cut int64
	// Gap is what is missing before the line, nil if nothing is known to be. Its times are left to the caller.
	Gap *positions.Gap
	// Again says that the line, and those after it, may have been handed over before, at other positions: the file was truncated
	// or rewritten, and is read from its beginning, or it may be a copy. It is said as well of the first line after such a copy.
	Again bool
}

// Tailer is one audit log path as an endless sequence of lines. Next and Hole are for one goroutine;
// Unread, Headroom, Trouble, Turns, Rest, Confine and Held are for any.
type Tailer struct {
	cfg      Config
	chain    chain
	observer *observer

	lines    lineBuffer
	file     *file              // the one in hand
	at       positions.Position // after the last line handed over
	final    bool               // the file in hand has stopped growing
	first    bool               // the next line is the first of its file
	loss     *positions.Gap     // what is missing before the next line
	again    bool               // the next line may have been handed over before
	begun    bool               // a file was taken up
	begins   bool               // the last line handed over was the first of its file
	after    time.Time          // when the file before was rotated, if known
	until    time.Time          // when this one was, if it was when it was begun
	stepped  bool               // the clock stepped back while the backups were written
	consumed atomic.Int64       // bytes of the file in hand that were handed over
	turns    atomic.Int64       // of Next
	handed   Line               // over last

	wake chan struct{}
	stop context.CancelFunc
	done sync.WaitGroup
}

// New finds the position among the files on disk, or where to start if from is nil, and begins to watch the directory.
// An error says that the files cannot be read; a path that does not exist yet is none.
func New(cfg Config, from *positions.Position) (*Tailer, error) {
	t, err := open(cfg, from)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.stop = cancel
	t.done.Go(func() { t.watch(ctx) })
	return t, nil
}

// open does all of New but the watching, which tests step by hand.
func open(cfg Config, from *positions.Position) (*Tailer, error) {
	cfg.Logger = cfg.Logger.With("path", cfg.Path)
	t := &Tailer{
		cfg:      cfg,
		observer: newObserver(cfg.Path, cfg.Logger, cfg.Registerer),
		lines:    lineBuffer{max: cfg.MaxLine},
		wake:     make(chan struct{}, 1),
		stop:     func() {},
	}
	t.chain = chain{
		dir: filepath.Dir(cfg.Path), names: newNamer(cfg.Path), observer: t.observer,
		maxGone: cfg.MaxGone, maxOpen: maxOpen, oldest: cfg.Oldest,
	}
	at, gap, err := t.chain.begin(from, cfg.Start)
	if err != nil {
		t.Close()
		return nil, err
	}
	if gap {
		t.observer.gone(*from)
		t.loss = &positions.Gap{Reason: reasonPositionFile}
	}
	t.at = at
	t.again = from != nil && from.Identified() && at.FirstLine == from.FirstLine && at.Offset < from.Offset
	return t, nil
}

// Start is the position at which reading began. Its caller commits it when there was none, so that a restart before the
// first acknowledgement begins at the same place.
func (t *Tailer) Start() positions.Position { return t.at }

// Old is what Config.Oldest has left out before Start.
func (t *Tailer) Old() Old { return t.chain.old }

// Close stops watching and lets go of the files.
func (t *Tailer) Close() {
	t.stop()
	t.done.Wait()
	t.chain.close()
	t.observer.unregister()
}

// Unread is the number of bytes on disk that Next has not handed over yet. A .gz counts with its unpacked size where
// it is open, with its packed size where too many are.
func (t *Tailer) Unread() int64 { return max(0, t.chain.unread()-t.consumed.Load()) }

// Trouble is what keeps the path from being read at the moment, nil if nothing does. A path that does not exist yet is
// no trouble.
func (t *Tailer) Trouble() error { return t.observer.trouble() }

// Turns rises while Next waits for a line, or reads on: at the latest every Rest, but for a file system that hangs.
func (t *Tailer) Turns() int64 { return t.turns.Load() }

// Rest is the longest time between two looks at the directory, each of which wakes Next.
func (t *Tailer) Rest() time.Duration { return trusted * t.cfg.Poll }

// Next gives the next line, and waits for one until ctx ends: the error is then that of ctx. It looks at ctx only when
// it would have to wait. What cannot be read for the moment is tried again at every wake, and told by log and metric. Any other
// error is a ReplacedError. With an error there is no line.
func (t *Tailer) Next(ctx context.Context) (*Line, error) {
	shut := false
	for {
		if l, ok := t.lines.next(t.first); ok {
			return t.line(l, 1), nil
		}
		t.turns.Add(1)
		more, err := t.read()
		if !damagedPack(err) || !t.over(err) { // a damaged backup is told when it is left
			t.observer.reading(err)
		}
		if more {
			continue
		}
		if t.over(err) {
			// What was written between the last read and the rotation is read first: a second end is the end.
			if !t.final {
				t.final = true
				continue
			}
			if line, ok := t.leave(err); ok {
				return line, nil
			}
			continue
		}
		if err == nil && t.file != nil && t.lines.empty() && t.chain.turnBack(t.at.Offset) {
			t.file, t.again = nil, true // it may be a copy of what was read
			continue
		}
		if err == nil && t.chain.shut(t.cfg.Path) {
			if !shut { // a second end is the end, as above
				shut = true
				continue
			}
			if line, ok := t.unfinished(); ok {
				return line, nil
			}
			return nil, t.replaced()
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-t.wake:
		}
	}
}

// read fills the line buffer from the file in hand. more: there is something to look at again.
func (t *Tailer) read() (more bool, err error) {
	now, ok := t.chain.inHand()
	f := now.file
	if !ok || f == nil {
		return false, nil
	}
	name := now.stem
	if f != t.file {
		t.begin(&now)
	}
	t.loss = and(t.loss, t.chain.missed())
	t.at.Name, t.at.Inode = name, now.inode()
	if len(now.cuts) > 0 {
		return t.restart()
	}
	n, err := t.lines.fill(f.read)
	if n > 0 || err == nil {
		return true, nil
	}
	if !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("reading %s: %w", name, err)
	}
	if !f.gz && f.stored() < f.offset {
		return t.restart()
	}
	return false, nil
}

// begin takes up a file, where it was put away if it was.
func (t *Tailer) begin(l *link) {
	f := l.file
	if l.again || f.offset != l.read {
		if between, err := f.seek(l.read); err != nil || !between {
			f.rewind() // in doubt, twice
			t.again = true
		}
	}
	if t.begun && f.offset > 0 { // it was put aside: what comes next is not what comes after the lines that were handed over last
		t.again = true
	}
	t.begun = true
	t.file, t.final = f, false
	t.lines.reset()
	t.at.FirstLine = l.id
	if t.first = f.offset == 0; t.first {
		t.at.FirstLine = positions.Hash{}
	}
	t.after, t.stepped = l.after, t.stepped && l.kind != active
	t.at.Others = t.chain.begun()
	t.at.Offset = f.offset
	t.consumed.Store(f.offset)
}

// restart begins the file in hand anew, which was truncated in place.
func (t *Tailer) restart() (more bool, err error) {
	lost, err := t.chain.truncated(t.at.Offset)
	if err != nil {
		return false, fmt.Errorf("going on after a truncation: %w", err)
	}
	t.loss = and(t.loss, lost)
	t.file, t.again = nil, true
	return true, nil
}

// over reports whether the file in hand, read as far as it goes, will not grow any more.
func (t *Tailer) over(err error) bool {
	return t.file != nil && (err == nil || damagedPack(err)) && t.chain.superseded()
}

// leave goes on to the next file. What the old one has after its last newline is handed over as a fragment.
func (t *Tailer) leave(err error) (line *Line, ok bool) {
	// The other writer of a file that was turned back to may be in the middle of a line.
	if now, _ := t.chain.inHand(); !now.again || now.torn {
		line, ok = t.unfinished()
	}
	read := t.at.Offset
	if err != nil {
		t.observer.damaged(t.at.Name, err)
		t.loss = and(t.loss, &positions.Gap{Reason: reasonDamaged, Files: 1})
		read = max(read, t.file.size()) // nothing more is to be had of it
	}
	t.observer.rotated()
	t.chain.next(read, time.Now())
	t.file = nil
	t.consumed.Store(0)
	return line, ok
}

// unfinished hands over what the file in hand has after its last newline, if it has something.
func (t *Tailer) unfinished() (line *Line, ok bool) {
	l, ok := t.lines.rest(t.first)
	if ok {
		line = t.line(l, 0)
		line.Fragment = true
	}
	return line, ok
}

// line moves the position over a line and hands it out. end is the length of the newline.
func (t *Tailer) line(l rawLine, end int64) *Line {
	line := &t.handed
	line.Bytes, line.Fragment, line.Cut, line.Gap, line.Again = l.bytes, false, l.cut, t.loss, t.again
	t.loss, t.again = nil, false
	if t.begins = t.first; t.begins {
		t.first = false
		t.at.FirstLine = l.id
		t.until = t.chain.identified(l.id)
	}
	n := l.hole + int64(len(l.bytes)) + l.cut + end
	t.at.Offset += n
	t.at.LSN += n
	t.consumed.Store(t.at.Offset)
	line.End = t.at
	return line
}
