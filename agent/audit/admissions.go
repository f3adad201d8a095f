package audit

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// What an Admission is of: resourceKind, or streamKind and the fields that make the streams.
const (
	resourceKind = "resource"
	streamKind   = "stream of "
)

// Admission says that a resource, or a stream, is one from a position of a path on. A stream is in it as the values of its
// labels that depend on the event, a resource as group, resource and subresource.
type Admission struct {
	Path string
	// From is the position of the first event for which it holds, see Describer.Entries. ByTime: it holds for those that are not
	// before Since, wherever they stand.
	From  int64
	Since time.Time // of the first event for which it holds; only of a resource
	Kind  string
	Words []string
}

// ByTime takes the place of a position where lines may be read again that got their labels at other positions. Times tell as well
// what had been admitted, see admittedResource.bound.
const ByTime = -1

// disorder is by how much the times of events can differ that are written side by side.
const disorder = time.Minute

// admittedResource is from where on a resource is admitted, as in Admission.
type admittedResource struct {
	from  int64
	since time.Time
	shown bool // by an event that was described since it holds by time
}

// bound gives the time from which on events make it admitted that do not show themselves that the server has it, where that goes
// by time: all after the first event that shows it, whatever their times, and until that comes, those of a minute are held to be
// before it. first is the time of the first event that was read of the file. If it is later, the one that shows it is taken to be
// in what was read before, and all from its time on do; that is wrong for what is written out of order at the beginning of the
// file, or of another writer's.
func (r *admittedResource) bound(first time.Time) time.Time {
	switch {
	case r.shown:
		return time.Time{}
	case r.since.Before(first):
		return r.since
	}
	return r.since.Add(disorder)
}

// The levels of folding: what becomes Other of the labels that depend on the event.
const (
	asItIs      = iota
	withoutUser // all but the verb and the resource
	verbOnly    // all but the verb
	levels
)

const (
	// MinStreams is how many streams a path needs, so that there is always one for an event: 15 without a thing, one for
	// each verb, and two that are not counted, of malformed lines and of gaps.
	MinStreams  = 64
	ownStreams  = 2
	reservedFor = 32 // streams without a thing, and our own, for each path
)

// Admissions are the resources and streams that an agent has admitted, with all its paths. They only grow. Who admits
// something and who counts what there is does so one at a time, so each Admission that had an effect on another is taken
// before it, or with it.
type Admissions struct {
	kind         string      // of the streams
	words        []fieldID   // of which they are made
	limits       [levels]int // a stream of a level is admitted while there are fewer
	maxResources int

	streams, resources atomic.Int64 // that there are; changed under mu
	newStreams         atomic.Int64 // of them, since the agent runs
	newResources       atomic.Int64

	mu    sync.Mutex
	paths map[string]*admitted
	made  []Admission // since the last Take
}

// admitted is what is admitted of one path. After Restore, only its Describer uses it.
type admitted struct {
	resources map[string]admittedResource // by resourceKey
	streams   map[string]*stream          // by the words, see appendWord
}

// NewAdmissions gives an empty set for paths that all have labels by the same cfg. The error says that maxStreams is too few.
func NewAdmissions(cfg Config, maxStreams int, paths ...string) (*Admissions, error) {
	if maxStreams < MinStreams*len(paths) {
		return nil, fmt.Errorf("%d streams are too few: it takes at least %d for each audit log, of which there are %d",
			maxStreams, MinStreams, len(paths))
	}
	f, err := cfg.fields()
	if err != nil {
		return nil, err
	}
	a := &Admissions{kind: f.kind(), maxResources: maxStreams, paths: make(map[string]*admitted)}
	for _, l := range f.labels {
		a.words = append(a.words, l.id)
	}
	things := maxStreams - reservedFor*len(paths)
	a.limits = [levels]int{min(maxStreams*9/10, things), things, maxStreams - ownStreams*len(paths)}
	for _, path := range paths {
		a.paths[path] = &admitted{resources: make(map[string]admittedResource), streams: make(map[string]*stream)}
	}
	return a, nil
}

// Restore takes over what was admitted before, in that order, and gives what is to be kept of it: not what came twice, what
// other fields make, or what there is no room for any more because the configuration is another. What is of paths that the
// agent does not follow is kept and not counted. It is to be called once, before there is a Describer.
func (a *Admissions) Restore(before []Admission) (kept []Admission) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, one := range before {
		of := a.paths[one.Path]
		if of == nil || a.restore(of, &one) {
			kept = append(kept, one)
		}
	}
	return kept
}

func (a *Admissions) restore(of *admitted, one *Admission) bool {
	key := string(appendWords(nil, one.Words))
	switch {
	case one.Kind == resourceKind && len(one.Words) == 3:
		key = string(appendResourceKey(nil, &Event{APIGroup: []byte(one.Words[0]), Resource: []byte(one.Words[1]), Subresource: []byte(one.Words[2])}))
		if _, twice := of.resources[key]; twice || int(a.resources.Load()) >= a.maxResources {
			return false
		}
		of.resources[key] = admittedResource{from: one.From, since: one.Since}
		a.resources.Add(1)
		return true
	case one.Kind == a.kind && len(one.Words) == len(a.words):
		if of.streams[key] != nil || int(a.streams.Load()) >= a.limits[a.level(one.Words)] {
			return false
		}
		of.streams[key] = &stream{words: one.Words, from: one.From}
		a.streams.Add(1)
		return true
	}
	return false
}

// level gives the highest level of folding to which a stream can belong.
func (a *Admissions) level(words []string) int {
	level := verbOnly
	for i, id := range a.words {
		switch {
		case id == fieldVerb || words[i] == Other:
		case id == fieldResource:
			level = min(level, withoutUser)
		default:
			level = asItIs
		}
	}
	return level
}

// Take gives what was admitted since it was last called. It must be durable before anything is sent that was described until
// then, by any Describer: otherwise what is described again after a crash can get other labels.
func (a *Admissions) Take() []Admission {
	a.mu.Lock()
	defer a.mu.Unlock()
	made := a.made
	a.made = nil
	return made
}

// Streams gives how many streams are admitted, and how many of them since the agent runs.
func (a *Admissions) Streams() (all, made int) {
	return int(a.streams.Load()), int(a.newStreams.Load())
}

// Resources gives how many resources are admitted that are not built in, and how many of them since the agent runs.
func (a *Admissions) Resources() (all, made int) {
	return int(a.resources.Load()), int(a.newResources.Load())
}

// stream admits a stream of a level, if there is room. For the last level there always is.
func (a *Admissions) stream(level int, one Admission) bool {
	one.Kind = a.kind
	return a.admit(&a.streams, &a.newStreams, a.limits[level], level == levels-1, one)
}

// full says that stream would admit none of that level, from now on.
func (a *Admissions) full(level int) bool {
	return level < levels-1 && int(a.streams.Load()) >= a.limits[level]
}

// resource admits a resource, if there is room.
func (a *Admissions) resource(one Admission) bool {
	one.Kind = resourceKind
	return a.admit(&a.resources, &a.newResources, a.maxResources, false, one)
}

func (a *Admissions) admit(count, made *atomic.Int64, limit int, always bool, one Admission) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !always && int(count.Load()) >= limit {
		return false
	}
	count.Add(1)
	made.Add(1)
	a.made = append(a.made, one)
	return true
}

// earlier notes that what is admitted holds from an earlier position on.
func (a *Admissions) earlier(one Admission) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.made = append(a.made, one)
}

// again has the resources of a path hold by time.
func (a *Admissions) again(path string) {
	of := a.paths[path]
	for key, r := range of.resources {
		if r.since.IsZero() {
			continue
		}
		known := r.from == ByTime
		r.from, r.shown = ByTime, false
		of.resources[key] = r
		if known {
			continue
		}
		a.earlier(Admission{Path: path, From: r.from, Since: r.since, Kind: resourceKind, Words: splitResourceKey(key)})
	}
}

// appendWord appends a word of at most 65,535 bytes without ambiguity.
func appendWord[T string | []byte](dst []byte, word T) []byte {
	dst = append(dst, byte(len(word)>>8), byte(len(word)))
	return append(dst, word...)
}

func appendWords(dst []byte, words []string) []byte {
	for _, word := range words {
		dst = appendWord(dst, word)
	}
	return dst
}

// splitWords undoes appendWords.
func splitWords(key []byte) (words []string) {
	for len(key) > 0 {
		size := 2 + int(binary.BigEndian.Uint16(key))
		words = append(words, string(key[2:size]))
		key = key[size:]
	}
	return slices.Clip(words)
}
