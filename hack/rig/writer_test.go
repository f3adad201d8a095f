package rig

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// What the writer wrote is what the directory's files hold, in the order of their names, with the active one last.
func TestWriterRotatesAndKeepsAll(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	w := NewWriter(WriterConfig{Path: path, MaxSize: 1, Compress: true})
	var want []lineHash
	for line, err := range testCorpus(t).Replay(time.Now(), SampleLog, SampleLog, SampleLog) {
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(t.Context(), line); err != nil {
			t.Fatal(err)
		}
		want = append(want, hashLine(line))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Compressed(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.Lines() != len(want) {
		t.Errorf("%d lines counted, %d written", w.Lines(), len(want))
	}
	files, err := AuditFiles(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 3 || files[2] != path || !strings.HasSuffix(files[0], ".log.gz") {
		t.Fatalf("files %q, want two compressed backups and the active file", files)
	}
	var got []lineHash
	for _, file := range files {
		for line, err := range FileLines(file) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, hashLine(line))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d lines in the files, %d written: they differ", len(got), len(want))
	}
}

func TestWriterKeepsThePace(t *testing.T) {
	w := NewWriter(WriterConfig{Path: filepath.Join(t.TempDir(), "audit.log"), MaxSize: 1, PerSecond: 1000})
	start := time.Now()
	for range 101 {
		if err := w.Write(t.Context(), []byte("line")); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took < 100*time.Millisecond {
		t.Errorf("101 lines at 1000 a second took %s", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Write(ctx, []byte("line")); err == nil {
		t.Error("written although the context had ended")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}
