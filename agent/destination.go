package main

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/auditferry/auditferry/positions"
	"github.com/auditferry/auditferry/shipper"
)

// destination is one Loki, to which every path is carried. With others it shares the process and the store of positions, which
// waits for nobody, and no more: each path has a follower for each destination, so one that is stuck does not hold another back.
type destination struct {
	target
	store      *positions.Store
	client     *shipper.Client
	from       map[string]*positions.Position // by path: where it goes on, nil for where --start-at says
	admitted   *admissions
	folded     folded
	logger     *slog.Logger          // tells of which destination it speaks, where there are several
	registerer prometheus.Registerer // the same for metrics
}

func (a *agent) newDestination(t target) (*destination, error) {
	d := &destination{target: t, store: a.store, logger: a.logger, registerer: a.registry}
	if t.name != "" {
		d.logger = a.logger.With("loki", t.redacted())
		d.registerer = prometheus.WrapRegistererWith(prometheus.Labels{"loki": t.name}, a.registry)
	}
	d.from = make(map[string]*positions.Position, len(a.cfg.AuditLogPath))
	for _, path := range a.cfg.AuditLogPath {
		var err error
		if d.from[path], err = d.position(path); err != nil {
			return nil, err
		}
	}
	var err error
	d.client, err = newClient(a.cfg, &t, d.logger, d.registerer)
	return d, err
}

// arrow joins a path and a destination. No path has what follows it in a key: a clean one has no two slashes in a row.
const arrow = " -> "

// key is the name under which the position of a path is kept, and whatever else is kept of it, for this destination.
//
// The name is the path alone where that serves, so that positions survive what was there before several destinations: agents
// that know one, and a Loki that moves to another URL. Else it is the path and the address. A destination must not go on from
// what another has acknowledged: it would miss what is before that. So of the path alone the position says whose it is
// (positions.Position.Destination). In the table, "own" is the position under path and address:
//
//	--loki-url  own  of the path alone                          it goes on
//	one         yes  any                                        from its own
//	one         no   anybody's                                  from that, and moves it
//	one         no   none                                       as --start-at says, under the path alone
//	several     yes  any                                        from its own
//	several     no   this destination's                         from a copy of that, its own from now on
//	several     no   another destination's                      as --start-at says
//	several     no   an older agent's, which did not say,       the first: from a copy of that, which is noted there;
//	                 and no destination has its own             the others: as --start-at says
//	several     no   such a one, and some have their own        as --start-at says
//	several     no   none                                       as --start-at says
func (d *destination) key(path string) string {
	own := path + arrow + d.address
	if d.name != "" {
		return own
	}
	if _, ok := d.store.Position(own); ok {
		return own
	}
	return path
}

// position is where a path goes on, nil if --start-at says where. See key.
func (d *destination) position(path string) (*positions.Position, error) {
	key := d.key(path)
	if p, ok := d.store.Position(key); ok {
		if p.Destination != "" && p.Destination != d.address {
			d.logger.Info("going on from what another --loki-url has acknowledged", "path", path, "before", p.Destination)
		}
		return &p, nil
	}
	if key == path {
		return nil, nil
	}
	p, err := d.inherit(path)
	if err == nil && p == nil {
		d.logger.Info("there is no position for this destination yet: beginning where --start-at says", "path", path)
	}
	return p, err
}

// inherit makes the position of the path alone this destination's own, if it is. It is kept at once: the other may move on for
// another Loki. Destinations are asked in the order of --loki-url, so what is nobody's is the first one's.
func (d *destination) inherit(path string) (*positions.Position, error) {
	p, ok := d.store.Position(path)
	if ok && p.Destination == "" && !d.anyOwn(path) {
		d.logger.Warn("the position does not say of which Loki it is: the first --loki-url goes on from there", "path", path)
		p.Destination = d.address
		if err := d.keep(path, p); err != nil { // so that nobody else takes it, should the order change
			return nil, err
		}
	}
	if !ok || p.Destination != d.address {
		return nil, nil
	}
	return &p, d.keep(d.key(path), p)
}

// anyOwn reports whether any destination, given now or before, has a position of a path for itself.
func (d *destination) anyOwn(path string) bool {
	return slices.ContainsFunc(d.store.Paths(), func(key string) bool { return strings.HasPrefix(key, path+arrow) })
}

// keep commits a position at the start. That it could not be written is logged by the store, and tried again.
func (d *destination) keep(key string, p positions.Position) error {
	if err := d.store.Commit(key, p); errors.Is(err, positions.ErrRefused) {
		return fmt.Errorf("keeping the first position: %w", err)
	}
	return nil
}
