package shipper

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	// troubleAfter attempts in a row that fail for the time being are trouble; fewer are a hiccup that nobody needs to know.
	troubleAfter = 3
	// halveAfter answers 429 in a row, a push is halved: it may be larger than the burst that the limit allows, and then no
	// pause is long enough. The answer does not say what the burst is.
	halveAfter = 3
)

// A span is entries lo to hi of a grouped batch.
type span struct{ lo, hi int }

func (s span) len() int { return s.hi - s.lo }

// A delivery takes one batch to where each of its entries is stored or lies in the dead-letter file. What is refused or
// too large is halved and pushed again until the refused entries are alone: Loki drops what it has already as repeats.
type delivery struct {
	client   *Client
	batch    *Batch
	body     []byte // of the push at hand
	pauses   *backoff.ExponentialBackOff
	failures int // attempts in a row
	refused  refusedEntries
	bug      bool // 422 was logged
}

// refusedEntries are the dead letters of a batch.
type refusedEntries struct {
	count  int
	reason string // of the last one
	mixed  bool   // not all for the same reason
	words  string // Loki's, for the last one
}

// add brings in those of a part.
func (r *refusedEntries) add(o refusedEntries) {
	if o.count == 0 {
		return
	}
	r.mixed = r.mixed || o.mixed || r.count > 0 && r.reason != o.reason
	r.count += o.count
	r.reason, r.words = o.reason, o.words
}

func newDelivery(c *Client, b *Batch) *delivery {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval = c.cfg.BackoffMin
	pauses.MaxInterval = c.cfg.BackoffMax
	pauses.Multiplier = 2
	return &delivery{client: c, batch: b, pauses: pauses}
}

// aloneAtATime is how many streams of a batch that are in doubt are pushed side by side: a start meets hundreds.
const aloneAtATime = 16

// run ends when all is settled, or with the error of ctx.
func (d *delivery) run(ctx context.Context) error {
	defer d.client.health.abandon(d) // of no effect after a success
	d.body = d.batch.body
	defer func() { d.batch.body = d.body }()
	together, alone := d.client.roll.plan(d.batch, d.client.pace.burst, d.client.now())
	if err := d.deliver(ctx, together); err != nil {
		return err
	}
	return d.sideBySide(ctx, alone)
}

// sideBySide delivers streams, each of them one span after the other.
func (d *delivery) sideBySide(ctx context.Context, streams [][]span) error {
	parts := make([]*delivery, min(aloneAtATime, len(streams)))
	errs := make([]error, len(parts))
	var next atomic.Int64
	var all sync.WaitGroup
	for i := range parts {
		part := newDelivery(d.client, d.batch)
		parts[i] = part
		all.Go(func() {
			defer d.client.health.abandon(part)
			for errs[i] == nil {
				n := int(next.Add(1))
				if n > len(streams) {
					return
				}
				errs[i] = part.deliver(ctx, streams[n-1])
			}
		})
	}
	all.Wait()
	for _, part := range parts {
		d.refused.add(part.refused)
	}
	return errors.Join(errs...)
}

// deliver settles spans one after the other, each in as many parts as it takes.
func (d *delivery) deliver(ctx context.Context, spans []span) error {
	todo := slices.Clone(spans)
	slices.Reverse(todo) // a stack
	for len(todo) > 0 {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if s.len() == 0 {
			continue
		}
		rest, err := d.push(ctx, s)
		if err != nil {
			return err
		}
		slices.Reverse(rest)
		todo = append(todo, rest...)
	}
	return nil
}

// halves cuts in the middle.
func (s span) halves() []span {
	middle := s.lo + s.len()/2
	return []span{{s.lo, middle}, {middle, s.hi}}
}

// push tries s until it is settled, or gives the parts in which it is to be pushed instead.
func (d *delivery) push(ctx context.Context, s span) (rest []span, err error) {
	var encodingErr error
	d.body, encodingErr = d.client.encoder.encode(d.body[:0], d.batch, s.lo, s.hi)
	for limits := 0; ; {
		a := answer{meaning: refused}
		if encodingErr != nil {
			a.words = encodingErr.Error()
		} else {
			if err := d.keepPace(ctx, s); err != nil {
				return nil, err
			}
			if !d.client.roll.admit(d.batch, s, d.client.now()) {
				return d.batch.split(s), nil
			}
			a = d.client.post(ctx, d.body)
		}
		if ctx.Err() != nil && a.meaning != stored {
			return nil, ctx.Err()
		}
		switch a.meaning {
		case stored:
			d.client.roll.stored(d.batch, s, d.client.now())
			d.client.metrics.acknowledged(d.batch, s, len(d.body))
			d.progress()
			return nil, nil
		case refused, tooLarge:
			d.noteBug(a)
			if s.len() > 1 {
				d.progress()
				return d.smaller(s, a), nil
			}
			err := d.bury(s.lo, a)
			if err == nil {
				d.progress()
				return nil, nil
			}
			d.client.health.begin(d, "dead_letter", err.Error()+"; Loki refuses an entry: "+a.words)
		default:
			d.fail(a)
		}
		if a.meaning == limited {
			limits++
		} else {
			limits = 0
		}
		if err := d.pause(ctx, a); err != nil {
			return nil, err
		}
		if limits >= halveAfter && s.len() > 1 {
			return d.smaller(s, a), nil
		}
	}
}

// smaller cuts a push that was refused: by streams if it has several, because only then the answers to the parts are the
// truth, else in halves. What is too large for anybody to look into is halved in any case.
func (d *delivery) smaller(s span, a answer) []span {
	if a.meaning == tooLarge || d.batch.single(s) {
		return s.halves()
	}
	d.client.roll.refused(d.batch, s)
	return d.batch.split(s)
}

// keepPace waits until no stream of s would be too fast. What is tried again counts again: Loki may have stored it.
func (d *delivery) keepPace(ctx context.Context, s span) error {
	wait := d.client.pace.reserve(d.batch, s, d.client.now())
	if wait == 0 {
		return nil
	}
	d.client.metrics.paced.Add(wait.Seconds())
	return d.client.sleep(ctx, wait)
}

// progress notes that Loki has decided about entries, one way or the other.
func (d *delivery) progress() {
	d.failures = 0
	d.pauses.Reset()
	d.client.health.end(d)
}

// fail notes an attempt that is to be made again, and says so once that is worth saying.
func (d *delivery) fail(a answer) {
	d.failures++
	reason := "unavailable"
	switch a.meaning {
	case limited:
		reason = "rate_limited"
	case notStored:
		reason = "not_stored"
	case misconfigured:
		reason = "http_" + a.code()
	}
	transient := a.meaning == limited || a.meaning == unavailable
	if !transient || d.failures >= troubleAfter {
		d.client.health.begin(d, reason, a.words)
	}
}

// pause waits before the next attempt: longer and longer while Loki is away or limits, the longest pause at once where only
// a person can help, and never shorter than Loki demands.
func (d *delivery) pause(ctx context.Context, a answer) error {
	wait := d.pauses
	switch a.meaning {
	case misconfigured, refused, tooLarge:
		wait = &backoff.ExponentialBackOff{InitialInterval: d.client.cfg.BackoffMax, MaxInterval: d.client.cfg.BackoffMax,
			Multiplier: 1, RandomizationFactor: backoff.DefaultRandomizationFactor}
	}
	d.client.metrics.retries.Inc()
	return d.client.sleep(ctx, max(wait.NextBackOff(), a.after))
}

// bury writes entry i to the dead-letter file and counts it.
func (d *delivery) bury(i int, a answer) error {
	c := d.client
	labels := ""
	for _, s := range d.batch.streams {
		if s.first <= i && i < s.first+s.count {
			labels = s.labels
			break
		}
	}
	letter := newDeadLetter(c.now(), labels, d.batch.grouped[i], a)
	err := c.letters.write(letter)
	if err != nil {
		return err
	}
	c.metrics.dropped.WithLabelValues(letter.Reason).Inc()
	d.refused.add(refusedEntries{count: 1, reason: letter.Reason, words: a.words})
	return nil
}

// noteBug logs an answer that only a bug of ours can bring about, once for a batch.
func (d *delivery) noteBug(a answer) {
	if a.status != 422 || d.bug {
		return
	}
	d.bug = true
	d.client.cfg.Logger.Error("Loki cannot make sense of a push; please report this bug", "answer", a.words,
		"entries", d.batch.Len(), "time", d.client.now().UTC().Format(time.RFC3339))
}
