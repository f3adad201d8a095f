package shipper

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	// troubleAfter attempts in a row that fail for the time being are trouble; fewer are a hiccup that nobody needs to know.
	troubleAfter = 3
	// limitTroubleAfter is troubleAfter for the limit of the tenant, whose pace takes some tries to find.
	limitTroubleAfter = 6
	// halveAfter answers 429 in a row, a push is halved: it may be larger than the burst that the limit allows, and then no
	// pause is long enough. The answer does not say what the burst is.
	halveAfter = 3
)

// A span is entries lo to hi of a grouped batch.
type span struct{ lo, hi int }

func (s span) len() int { return s.hi - s.lo }

// keptBody is how much memory for the bytes of a push is kept for the next one; what an unusual one needed beyond is let go.
const keptBody = 1 << 20

// A delivery takes one batch to where each of its entries is stored or lies in the dead-letter file. What is refused or
// too large is halved and pushed again until the refused entries are alone: Loki drops what it has already as repeats.
type delivery struct {
	client   *Client
	batch    *Batch
	body     []byte // of the push at hand
	pauses   *backoff.ExponentialBackOff
	failures int // attempts in a row
	refused  refusedEntries
	lanes    *atomic.Int64 // of the queue, beyond the first ones
	paced    bool          // a push had to wait for the pace of a stream
	bug      bool          // 422 was logged
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

// run ends when all is settled, or with the error of ctx.
func (d *delivery) run(ctx context.Context) error {
	defer d.client.health.abandon(d) // of no effect after a success
	d.body = d.client.bodies.take()
	defer d.giveBody()
	if err := d.pushAll(ctx); err != nil {
		return err
	}
	return d.buryAll(ctx)
}

// giveBody leaves the memory for the bytes of a push to the next batch.
func (d *delivery) giveBody() {
	if cap(d.body) > 0 && cap(d.body) <= max(keptBody, 2*len(d.body)) {
		d.client.bodies.give(d.body)
	}
	d.body = nil
}

// pushAll pushes all entries, those streams alone that are in doubt.
func (d *delivery) pushAll(ctx context.Context) error {
	together, alone := d.client.roll.plan(d.batch, d.client.pace.burst, d.client.now())
	lanes := d.begin(ctx, alone)
	err := d.deliver(ctx, together)
	return errors.Join(err, lanes.wait())
}

// buryAll writes the entries to the dead-letter file that are not to be pushed.
func (d *delivery) buryAll(ctx context.Context) error {
	for i := range d.batch.buried {
		b := &d.batch.buried[i]
		a := answer{meaning: refused, known: b.reason, words: b.words}
		for {
			err := d.bury(b.entry, a)
			if err == nil {
				d.progress()
				break
			}
			d.client.health.begin(d, "dead_letter", err.Error()+"; Loki would refuse an entry: "+a.words, err)
			if err := d.pause(ctx, a); err != nil {
				return err
			}
		}
	}
	return nil
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
		if err == nil && len(rest) > 0 {
			err = d.restoreAnyhow(ctx)
		}
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
			d.letGo(s)
			began := d.client.now()
			a = d.client.post(ctx, d.body)
			d.learn(s, a, began)
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
			err := d.buryLast(s, a)
			if err == nil {
				d.progress()
				return nil, nil
			}
			d.client.health.begin(d, "dead_letter", err.Error()+"; Loki refuses an entry: "+a.words, err)
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

// keepPace waits until no stream of s would be too fast, and then until all pushes together would not be. What is tried again
// counts again: Loki may have stored it.
func (d *delivery) keepPace(ctx context.Context, s span) error {
	c := d.client
	if err := d.wait(ctx, c.pace.reserve(d.batch, s, c.now())); err != nil {
		return err
	}
	return d.wait(ctx, c.throttle.reserve(d.batch.size(s), c.now()))
}

// wait waits for the sake of a pace.
func (d *delivery) wait(ctx context.Context, wait time.Duration) error {
	if wait == 0 {
		return nil
	}
	d.paced = true
	d.client.metrics.paced.Add(wait.Seconds())
	return d.client.sleep(ctx, wait)
}

// learn takes from an answer how fast, and how much at a time, Loki takes pushes.
func (d *delivery) learn(s span, a answer, began time.Time) {
	c := d.client
	switch a.meaning {
	case stored:
		c.throttle.stored(d.batch.size(s), c.now())
	case limited:
		c.metrics.limited.WithLabelValues(a.scope).Inc()
		if a.scope == scopeTenant {
			c.throttle.limited(began, c.now())
		}
	case tooLarge:
		c.sizes.refused(d.batch, s)
	}
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
	patience := 1
	switch {
	case a.scope == scopeTenant:
		patience = limitTroubleAfter
	case a.meaning == limited || a.meaning == unavailable:
		patience = troubleAfter
	}
	if d.failures >= patience {
		d.client.health.begin(d, reason, a.words, a.err)
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

// buryLast buries the one entry that is left of a push.
func (d *delivery) buryLast(s span, a answer) error {
	if err := d.restore(); err != nil {
		return err
	}
	e, err := d.batch.entry(s.lo)
	if err != nil {
		return err
	}
	return d.bury(e, a)
}

// bury writes an entry to the dead-letter file and counts it.
func (d *delivery) bury(e Entry, a answer) error {
	c := d.client
	letter := newDeadLetter(c.now(), e, a)
	if err := c.letters.write(letter); err != nil {
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
