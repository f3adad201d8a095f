package tailer

import (
	"cmp"
	"time"
)

// newest is when the last one of these files was rotated, as far as names tell.
func newest(links []*link) (t time.Time) {
	for _, l := range links {
		if l.kind == timed && l.time.After(t) {
			t = l.time
		}
	}
	return t
}

// order compares two files that are to be read. Names tell, but a new file that is named before the newest one of those
// that were read was written after the clock stepped back: such files come last.
func (l *link) order(o *link, read time.Time) int {
	return cmp.Or(cmp.Compare(l.kind, o.kind), l.stepped(read)-o.stepped(read), l.compare(o.rank))
}

func (l *link) stepped(read time.Time) int {
	if l.kind == timed && l.time.Before(read) {
		return 1
	}
	return 0
}
