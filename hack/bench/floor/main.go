// Command floor does what no agent can avoid, and nothing else: it reads a file, splits it into lines, and pushes them as
// snappy-compressed protobuf of 1 MiB, one push after the other, all in one stream. It reads no JSON, keeps no position,
// retries nothing. It shares no code with the agent, which is measured against it (see ../README.md).
//
//	floor FILE PUSH-URL [follow]
//
// After the last push it waits for the end of its standard input, so that its memory can be looked at. With follow there is no
// last one: it looks for more once a second, and whether the file was rotated.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"time"
	"unsafe"

	"github.com/golang/snappy"
	"github.com/grafana/loki/pkg/push"
)

func main() {
	runtime.GOMAXPROCS(1)
	more := func() bool { return false }
	if len(os.Args) > 3 {
		second := time.NewTicker(time.Second)
		more = func() bool { <-second.C; return true }
	}
	if err := ship(os.Args[1], os.Args[2], more); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// ship pushes what is in the file, and for as long as more says so, what comes.
func ship(path, url string, more func() bool) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	var next *os.File // once file was rotated
	buf, held := make([]byte, 1<<20), 0
	for {
		n, err := file.Read(buf[held:])
		held += n
		whole := bytes.LastIndexByte(buf[:held], '\n') + 1
		if whole > 0 {
			if err := send(buf[:whole], url); err != nil {
				return err
			}
			held = copy(buf, buf[whole:held])
		}
		if held == len(buf) { // a line longer than the buffer
			buf = append(buf, make([]byte, len(buf))...)
		}
		switch {
		case errors.Is(err, io.EOF) && next != nil:
			_ = file.Close()
			file, next = next, nil
		case errors.Is(err, io.EOF) && !more():
			return file.Close()
		case errors.Is(err, io.EOF):
			next, err = rotated(path, file)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
}

// rotated opens the file that has taken the place of the one in hand, if one has. That is read to its end first.
func rotated(path string, file *os.File) (*os.File, error) {
	now, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) { // between two steps of the rotation
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if is, err := file.Stat(); err != nil || os.SameFile(is, now) {
		return nil, err
	}
	return os.Open(path)
}

var (
	entries       []push.Entry
	plain, packed []byte
)

func send(lines []byte, url string) error {
	now := time.Now()
	entries = entries[:0]
	for len(lines) > 0 {
		end := bytes.IndexByte(lines, '\n')
		entries = append(entries, push.Entry{Timestamp: now, Line: unsafe.String(unsafe.SliceData(lines), end)})
		lines = lines[end+1:]
	}
	request := push.PushRequest{Streams: []push.Stream{{Labels: `{job="floor"}`, Entries: entries}}}
	if size := request.Size(); size > len(plain) {
		plain, packed = make([]byte, size), make([]byte, snappy.MaxEncodedLen(size))
	}
	n, err := request.MarshalTo(plain)
	if err != nil {
		return err
	}
	response, err := http.Post(url, "application/x-protobuf", bytes.NewReader(snappy.Encode(packed, plain[:n])))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusNoContent {
		return fmt.Errorf("the sink answers %s", response.Status)
	}
	return nil
}
