package shipper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	promconfig "github.com/prometheus/common/config"
)

const pushPath = "/loki/api/v1/push"

// Config says where and how to push. What is zero takes the default.
type Config struct {
	// URL is the server, or the full URL of a push API. "/loki/api/v1/push" is appended unless the path ends in "/push":
	// so a prefix such as https://gateway/loki-proxy is kept, and other paths of a push API serve as they are. Required.
	URL string
	// TenantID is sent as X-Scope-OrgID if it is not empty.
	TenantID string
	// HTTP is TLS, authorization and proxies, by the library that knows them; it reads files again when they change.
	// Redirects are never followed, whatever it says: net/http would make a GET of the push.
	HTTP promconfig.HTTPClientConfig
	// Timeout of one attempt, from connecting to the end of the answer. Default 10 s.
	Timeout time.Duration
	// InFlight is how many batches of one queue may be sent and not yet acknowledged. Default 2, and if StreamRate is 0 up to
	// 7 more, of all queues together, while Loki takes long to answer.
	InFlight int
	// BackoffMin and BackoffMax bound the interval between attempts; each pause is spread by half of it either way.
	// Defaults 500 ms and 1 min.
	BackoffMin, BackoffMax time.Duration
	// StreamRate is how fast one stream may be pushed, in bytes of lines and structured metadata per second; 0: as fast as
	// it goes.
	StreamRate int
	// Rate is how fast all streams together may be pushed, counted in the same way; 0: as fast as Loki's limit for the tenant
	// allows, which is found out.
	Rate int
	// AcceptStatus are the codes from 200 to 299 that acknowledge a push, beside 204.
	AcceptStatus []int
	// EveryStreamAlone makes a push of its own of every stream of a batch. It is for one that pushes to streams to which another
	// process pushes too: it cannot know how far behind their newest entries its own are, and Loki tells the truth only
	// about a stream that is alone (see roll).
	EveryStreamAlone bool
	// UserAgent defaults to "auditferry".
	UserAgent string
	// DeadLetterFile takes the entries that Loki refuses for good, as JSON lines (see DeadLetter). Required.
	DeadLetterFile string
	// DeadLetterMaxSize bounds that file and its rotated ones together, in bytes. What is refused beyond it is not dropped
	// but tried again, and Client.State says so. Default 256 MiB.
	DeadLetterMaxSize int64
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// Registerer takes the metrics; nil registers none.
	Registerer prometheus.Registerer
}

// minStreamRate leaves room for a burst of some bytes.
const minStreamRate = 1 << 10

func (cfg *Config) setDefaults() {
	setDefault(&cfg.Timeout, 10*time.Second)
	setDefault(&cfg.InFlight, UsualInFlight)
	setDefault(&cfg.BackoffMin, 500*time.Millisecond)
	setDefault(&cfg.BackoffMax, time.Minute)
	setDefault(&cfg.UserAgent, "auditferry")
	setDefault(&cfg.DeadLetterMaxSize, 256<<20)
	setDefault(&cfg.Logger, slog.Default())
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// A Client pushes to one Loki. Its queues share connections, metrics, the dead-letter file, and what is known of Loki.
type Client struct {
	cfg     Config
	url     *url.URL
	http    *http.Client
	encoder *encoder
	answers answerTime
	extras  extras
	chunks  spares // of batches
	bodies  spares // of pushes
	letters *deadLetters
	pace    *pace
	// throttle and sizes are what is known of the limits that Loki, or a gateway before it, has for the tenant.
	throttle *throttle
	sizes    sizeLimit
	roll     *roll
	metrics  *metrics
	health   *health

	// Tests step time by hand.
	sleep func(context.Context, time.Duration) error
	now   func() time.Time
}

// New checks the configuration and makes a client. It does not connect. Its errors say which flag is wrong and what to do.
func New(cfg Config) (*Client, error) {
	mayLend := cfg.InFlight == 0 && cfg.StreamRate == 0
	cfg.setDefaults()
	target, err := PushURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	if cfg.InFlight < 0 {
		return nil, fmt.Errorf("%d pushes in flight: at least one is needed", cfg.InFlight)
	}
	if cfg.BackoffMin < 0 || cfg.BackoffMax < cfg.BackoffMin {
		return nil, fmt.Errorf("a back-off from %v to %v: the first must be positive and at most the second", cfg.BackoffMin, cfg.BackoffMax)
	}
	if cfg.StreamRate < 0 || 0 < cfg.StreamRate && cfg.StreamRate < minStreamRate {
		return nil, fmt.Errorf("a stream rate of %d bytes a second: it must be 0, for none, or at least %d", cfg.StreamRate, minStreamRate)
	}
	if cfg.Rate < 0 || 0 < cfg.Rate && cfg.Rate < minStreamRate {
		return nil, fmt.Errorf("a rate of %d bytes a second: it must be 0, for none, or at least %d", cfg.Rate, minStreamRate)
	}
	if i := slices.IndexFunc(cfg.AcceptStatus, func(status int) bool { return status < 200 || status > 299 }); i >= 0 {
		return nil, fmt.Errorf("status %d cannot acknowledge a push: only 200 to 299 can", cfg.AcceptStatus[i])
	}
	letters, err := openDeadLetters(cfg.DeadLetterFile, cfg.DeadLetterMaxSize)
	if err != nil {
		return nil, err
	}
	client, err := newHTTPClient(&cfg)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Registerer, letters.size)
	if err != nil {
		return nil, err
	}
	roll := newRoll()
	roll.doubtAll = cfg.EveryStreamAlone
	return &Client{
		cfg: cfg, url: target, http: client, encoder: newEncoder(), letters: letters,
		pace: newPace(cfg.StreamRate, cfg.InFlight), extras: extras{allowed: mayLend}, roll: roll, metrics: m,
		throttle: newThrottle(cfg.Rate, m.rateLimit), sizes: sizeLimit{log: cfg.Logger, gauge: m.batchLimit},
		health: newHealth(cfg.Logger, m.lokiUp, target.Redacted()),
		sleep:  sleep, now: time.Now,
	}, nil
}

// State is nil as long as pushes go through, and a *Trouble when they do not.
func (c *Client) State() error { return c.health.state() }

// Close lets go of idle connections. It is called once, after the queues are drained.
func (c *Client) Close() {
	c.encoder.close()
	c.http.CloseIdleConnections()
}

// PushURL gives the URL of the push API for what the user gave as --loki-url, or an error that says what is wrong with it.
func PushURL(given string) (*url.URL, error) {
	const advice = "give the server, such as http://loki:3100, or the full URL of its push API"
	if given == "" {
		return nil, errors.New("--loki-url is missing: " + advice)
	}
	u, err := url.Parse(given)
	if err != nil {
		var parse *url.Error // its text repeats the URL, which can hold a password
		if errors.As(err, &parse) {
			err = parse.Err
		}
		return nil, fmt.Errorf("--loki-url is not a URL: %w: %s", err, advice)
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("--loki-url %q does not begin with http:// or https://: %s", u.Redacted(), advice)
	}
	if u.Hostname() == "" {
		return nil, fmt.Errorf("--loki-url %q names no host: %s", u.Redacted(), advice)
	}
	u.Fragment = ""
	if !strings.HasSuffix(u.Path, "/push") {
		u = u.JoinPath(pushPath)
	}
	return u, nil
}

// post makes one attempt and says what it came to.
func (c *Client) post(ctx context.Context, packed []byte) answer {
	body := &requestBody{bytes: packed}
	defer body.close()
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url.String(), nil)
	if err != nil {
		return noAnswer(err)
	}
	body.attach(request)
	request.Header.Set("Content-Type", "application/x-protobuf")
	request.Header.Set("User-Agent", c.cfg.UserAgent)
	if c.cfg.TenantID != "" {
		request.Header.Set(tenantHeader, c.cfg.TenantID)
	}
	c.metrics.inFlight.Inc()
	defer c.metrics.inFlight.Dec()
	start := c.now()
	response, err := c.http.Do(request)
	if err != nil {
		a := noAnswer(err)
		c.metrics.attempt(a, c.now().Sub(start))
		return a
	}
	a := read(response, c.now(), c.cfg.AcceptStatus)
	_ = response.Body.Close() // the answer is known
	took := c.now().Sub(start)
	c.metrics.attempt(a, took)
	if a.meaning == stored {
		c.answers.note(took, len(packed))
	}
	return a
}

// sleep waits for d, or until ctx ends, and then returns its error.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
