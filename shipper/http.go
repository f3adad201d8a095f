package shipper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	promconfig "github.com/prometheus/common/config"
)

// tenantHeader is the header in which Loki looks for the tenant.
const tenantHeader = "X-Scope-OrgID"

// idleConnection is how long a connection is kept that no push needs: a start makes dozens of them, for streams that are pushed side
// by side, and the library would keep them for five minutes. Pushes follow each other within seconds.
const idleConnection = 15 * time.Second

// newHTTPClient makes the client that pushes.
func newHTTPClient(cfg *Config) (*http.Client, error) {
	if err := cfg.HTTP.Validate(); err != nil {
		return nil, fmt.Errorf("the HTTP client for Loki: %w", err)
	}
	if cfg.TenantID != "" && hasHeader(&cfg.HTTP, tenantHeader) {
		return nil, errors.New("the tenant is given twice: as --loki-tenant-id and under http_headers of --loki-http-config")
	}
	options := []promconfig.HTTPClientOption{promconfig.WithIdleConnTimeout(idleConnection)}
	if cfg.HTTP.OAuth2 != nil {
		options = append(options, promconfig.WithDialContextFunc(dialImpatiently(cfg.Timeout)))
	}
	client, err := promconfig.NewClientFromConfig(cfg.HTTP, "loki", options...)
	if err != nil {
		return nil, fmt.Errorf("the HTTP client for Loki: %w", err)
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client, nil
}

func hasHeader(cfg *promconfig.HTTPClientConfig, name string) bool {
	if cfg.HTTPHeaders == nil {
		return false
	}
	for given := range cfg.HTTPHeaders.Headers {
		if http.CanonicalHeaderKey(given) == http.CanonicalHeaderKey(name) {
			return true
		}
	}
	return false
}

// dialImpatiently connects so that nothing is waited for longer than patience. The library asks for an OAuth2 token without the
// time limit of the push that needs it, nor any other: a token server that takes connections and is silent would hold all pushes
// for good, without a word, and a stop as well.
func dialImpatiently(patience time.Duration) promconfig.DialContextFunc {
	dialer := net.Dialer{Timeout: patience}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &impatientConn{Conn: c, patience: patience}, nil
	}
}

// An impatientConn ends when it was silent for its patience. One that is idle is no loss: the next push makes another.
type impatientConn struct {
	net.Conn
	patience time.Duration
}

func (c *impatientConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.patience)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *impatientConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.patience)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
