// Command floor does what no agent can avoid, and nothing else: it reads a file, splits it into lines, and pushes them as
// snappy-compressed protobuf of 1 MiB, one push after the other, all in one stream. It reads no JSON, keeps no position,
// retries nothing. It shares no code with the agent, which is measured against it (see ../README.md).
//
//	floor FILE PUSH-URL
//
// After the last push it waits for the end of its standard input, so that its memory can be looked at.
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
	if err := ship(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func ship(path, url string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
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
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
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
