package shipper

import (
	"io"
	"net/http"
	"sync"
)

// A requestBody is the body of one attempt. net/http may go on reading a body after the attempt has ended (a time-out, an
// answer before the whole request was sent), and the bytes are used again for the next push: so nothing is read any more
// once close has returned, and what still reads gets an error.
type requestBody struct {
	mu    sync.Mutex
	bytes []byte // nil once closed
}

// attach makes b the body of r.
func (b *requestBody) attach(r *http.Request) {
	r.ContentLength = int64(len(b.bytes))
	r.Body = &bodyReader{body: b}
	r.GetBody = func() (io.ReadCloser, error) { return &bodyReader{body: b}, nil }
}

func (b *requestBody) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes = nil
}

// A bodyReader reads a requestBody from its beginning; net/http makes a second one if it sends the request again.
type bodyReader struct {
	body   *requestBody
	offset int
}

func (r *bodyReader) Read(p []byte) (int, error) {
	r.body.mu.Lock()
	defer r.body.mu.Unlock()
	if r.body.bytes == nil {
		return 0, http.ErrBodyReadAfterClose
	}
	if r.offset == len(r.body.bytes) {
		return 0, io.EOF
	}
	n := copy(p, r.body.bytes[r.offset:])
	r.offset += n
	return n, nil
}

func (r *bodyReader) Close() error { return nil }
