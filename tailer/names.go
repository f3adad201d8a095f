package tailer

import (
	"cmp"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// backupTime is how lumberjack writes the time of a rotation, in UTC, into the name of a backup.
const backupTime = "2006-01-02T15-04-05.000"

// logrotateDates are how logrotate's dateext writes the day, the hour or the second of a rotation behind the name.
var logrotateDates = []string{"20060102", "2006010215", "20060102-150405"}

// rank places a file in the chain of its path: numbered backups first (logrotate's, the highest number is the oldest),
// then those with a date (logrotate's dateext), then those with a time (lumberjack's), then the active file. The kinds of
// backup do not occur together in practice; where they do, nothing tells their order.
type rank struct {
	kind   int
	number int
	time   time.Time
}

const (
	numbered = iota
	dated
	timed
	active
)

func (r rank) compare(o rank) int {
	return cmp.Or(cmp.Compare(r.kind, o.kind), cmp.Compare(o.number, r.number), r.time.Compare(o.time))
}

// namer recognises the names of the files of one audit log path.
type namer struct {
	base   string // of the path: audit.log
	prefix string // of a lumberjack backup: audit-
	ext    string // .log
}

// once reports whether a name of this kind is given to one file only.
func (r rank) once() bool { return r.kind == timed || r.kind == dated }

// copied reports whether a file of this name may be one that logrotate has copied (copytruncate).
func (r rank) copied() bool { return r.kind == numbered || r.kind == dated }

func newNamer(path string) namer {
	base := filepath.Base(path)
	ext := filepath.Ext(base)
	return namer{base: base, prefix: strings.TrimSuffix(base, ext) + "-", ext: ext}
}

// parse gives the stem of a file name (without .gz, so that a backup keeps it when it is compressed), whether it ends
// in .gz, and its rank. Not ok: the file is none of this path's (OpenShift keeps termination.log beside audit.log).
func (n namer) parse(name string) (stem string, gz bool, r rank, ok bool) {
	if name == n.base {
		return name, false, rank{kind: active}, true
	}
	stem, gz = strings.CutSuffix(name, ".gz")
	if number, found := strings.CutPrefix(stem, n.base+"."); found {
		i, err := strconv.Atoi(number)
		return stem, gz, rank{kind: numbered, number: i}, err == nil && i >= 0
	}
	if date, found := strings.CutPrefix(stem, n.base+"-"); found {
		for _, layout := range logrotateDates {
			if t, err := time.Parse(layout, date); err == nil {
				return stem, gz, rank{kind: dated, time: t}, true
			}
		}
	}
	stamp, found := strings.CutPrefix(stem, n.prefix)
	if !found {
		return "", false, rank{}, false
	}
	stamp, found = strings.CutSuffix(stamp, n.ext)
	if !found {
		return "", false, rank{}, false
	}
	t, err := time.Parse(backupTime, stamp)
	return stem, gz, rank{kind: timed, time: t}, err == nil
}
