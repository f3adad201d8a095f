package rig

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"
)

// WriterConfig says how a Writer writes. Path is that of the active file; the others are lumberjack's, as kube-apiserver sets
// them from --audit-log-maxsize (megabytes), --audit-log-maxbackup (0 keeps all) and --audit-log-compress.
type WriterConfig struct {
	Path       string
	MaxSize    int
	MaxBackups int
	Compress   bool
	PerSecond  float64 // lines a second; 0 is as fast as the disk takes them
}

// Writer writes an audit log as kube-apiserver does: through lumberjack, one Write for each line with its newline. One
// goroutine writes; Lines may be asked from any.
type Writer struct {
	cfg   WriterConfig
	log   *lumberjack.Logger
	buf   []byte
	start time.Time
	lines atomic.Int64
}

// NewWriter gives a writer; the file is opened at the first line.
func NewWriter(cfg WriterConfig) *Writer {
	return &Writer{cfg: cfg, log: &lumberjack.Logger{
		Filename:   cfg.Path,
		MaxSize:    cfg.MaxSize,
		MaxBackups: cfg.MaxBackups,
		Compress:   cfg.Compress,
	}}
}

// Write writes one line, given without its newline, once its turn has come at the configured pace.
func (w *Writer) Write(ctx context.Context, line []byte) error {
	if err := w.keepPace(ctx); err != nil {
		return err
	}
	w.buf = append(append(w.buf[:0], line...), '\n')
	if _, err := w.log.Write(w.buf); err != nil {
		return fmt.Errorf("writing the audit log: %w", err)
	}
	w.lines.Add(1)
	return nil
}

// keepPace waits until the next line is due. Lines that are late are written at once, so the mean is kept.
func (w *Writer) keepPace(ctx context.Context) error {
	if w.start.IsZero() {
		w.start = time.Now()
	}
	if w.cfg.PerSecond <= 0 {
		return ctx.Err()
	}
	due := w.start.Add(time.Duration(float64(w.lines.Load()) / w.cfg.PerSecond * float64(time.Second)))
	wait := time.Until(due)
	if wait <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// WriteLive writes the events of a corpus file over and over, as if they happened now, for as long as during.
func (w *Writer) WriteLive(ctx context.Context, corpus Corpus, name string, during time.Duration) error {
	var moved []byte
	for end := time.Now().Add(during); ; {
		for line, err := range corpus.Lines(name) {
			if err != nil {
				return err
			}
			if time.Now().After(end) {
				return nil
			}
			at, err := StageTime(line)
			if err != nil {
				return err
			}
			if moved, err = Shift(time.Since(at)).Append(moved[:0], line); err != nil {
				return err
			}
			if err := w.Write(ctx, moved); err != nil {
				return err
			}
		}
	}
}

// Rotate rotates the file, however small it is.
func (w *Writer) Rotate() error {
	if err := w.log.Rotate(); err != nil {
		return fmt.Errorf("rotating the audit log: %w", err)
	}
	return nil
}

// Lines gives how many lines have been written.
func (w *Writer) Lines() int { return int(w.lines.Load()) }

// Close closes the active file. Lumberjack's own goroutine, which compresses, lives on: it has no way to end it. See Compressed.
func (w *Writer) Close() error {
	if err := w.log.Close(); err != nil {
		return fmt.Errorf("closing the audit log: %w", err)
	}
	return nil
}

// Compressed waits until all backups are, for who removes the directory after Close: lumberjack's goroutine would make files in it.
func (w *Writer) Compressed(ctx context.Context) error {
	ext := filepath.Ext(w.cfg.Path)
	if err := Poll(ctx, func() (bool, error) {
		plain, err := filepath.Glob(strings.TrimSuffix(w.cfg.Path, ext) + "-*" + ext)
		return len(plain) == 0, err
	}); err != nil {
		return fmt.Errorf("waiting for the backups of %s to be compressed: %w", w.cfg.Path, err)
	}
	return nil
}
