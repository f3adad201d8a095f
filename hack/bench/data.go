package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

// data is an audit log made from real events, on disk.
type data struct {
	file          string
	lines, longer int // longer: than 1 MiB
	bytes         int64
}

// makeLog writes so many bytes, or a few more, of the named logs, over and over, as if they had been written one after the other up
// to now. Lines shorter than atLeast are left out.
func (b *bench) makeLog(size int64, atLeast int, names ...string) (made data, err error) {
	corpus, err := rig.FindCorpus()
	if err != nil {
		return made, err
	}
	if !corpus.Full() {
		fmt.Printf("the full corpus is not here: %s instead of %v\n", rig.SampleLog, names)
		names = []string{rig.SampleLog}
	}
	passes, err := corpus.Passes(size, atLeast, names...)
	if err != nil {
		return made, err
	}
	made.file = filepath.Join(b.dir, "audit.log")
	file, err := os.Create(made.file)
	if err != nil {
		return made, err
	}
	defer file.Close()
	out := bufio.NewWriterSize(file, 1<<20)
	for line, err := range corpus.Replay(time.Now(), slices.Repeat(names, passes)...) {
		if err != nil {
			return made, err
		}
		if len(line) < atLeast {
			continue
		}
		made.add(line)
		if _, err := out.Write(append(line, '\n')); err != nil {
			return made, err
		}
	}
	if err := out.Flush(); err != nil {
		return made, err
	}
	return made, file.Sync() // else the disk is busy with it while something is measured
}

func (d *data) add(line []byte) {
	d.lines++
	d.bytes += int64(len(line)) + 1
	if len(line) > 1<<20 {
		d.longer++
	}
}

// warm reads the file into the page cache: the agent drops behind it what it has read.
func (d data) warm() error {
	file, err := os.Open(d.file)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(struct{ io.Writer }{io.Discard}, file)
	return err
}

func (d data) String() string {
	return fmt.Sprintf("%d MB, %d lines, %d of them longer than 1 MiB", d.bytes/1e6, d.lines, d.longer)
}
