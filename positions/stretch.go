package positions

import "time"

// Stretch is a run of events that were too old for Loki. It is part of every position in it, and of the one after it until Loki
// has been told, so that a crash counts none of them twice and tells them in the same words, which Loki drops as a repeat.
// In JSON it has the names that Loki is told it under.
type Stretch struct {
	// Last is the time of the last event before it, First of the first event after it; zero if there was none, or as long as
	// that is not known. With First, the stretch is over, and perhaps told.
	Last  time.Time `json:"last_event,omitzero"`
	First time.Time `json:"first_event,omitzero"`
	// Oldest and Newest are the times of its events, as far as they were read. Backups that were not read count with the time
	// of their rotation.
	Oldest time.Time `json:"oldest_event,omitzero"`
	Newest time.Time `json:"newest_event,omitzero"`
	// Skipped, DeadLetters and Restamped are how many events became of what.
	Skipped     int64 `json:"skipped_events,omitempty"`
	DeadLetters int64 `json:"dead_letter_events,omitempty"`
	Restamped   int64 `json:"restamped_events,omitempty"`
	// Files and Bytes are backups that were not read, or not to their end; the bytes as they lay on disk.
	Files int   `json:"skipped_files,omitempty"`
	Bytes int64 `json:"skipped_bytes,omitempty"`
}

// Empty reports whether there is nothing to tell.
func (s *Stretch) Empty() bool { return s.Events() == 0 && s.Files == 0 }

// Events is how many events were read in it.
func (s *Stretch) Events() int64 { return s.Skipped + s.DeadLetters + s.Restamped }

func (s *Stretch) asRead() *Stretch {
	if s == nil {
		return nil
	}
	read := *s
	for _, t := range []*time.Time{&read.Last, &read.First, &read.Oldest, &read.Newest} {
		*t = t.UTC().Round(0)
	}
	return &read
}

func (s *Stretch) equal(o *Stretch) bool {
	if s == nil || o == nil {
		return s == o
	}
	return *s.asRead() == *o.asRead()
}

func (s *Stretch) times() []time.Time {
	if s == nil {
		return nil
	}
	return []time.Time{s.Last, s.First, s.Oldest, s.Newest}
}

func (s *Stretch) negative() bool {
	return s != nil && min(s.Skipped, s.DeadLetters, s.Restamped, int64(s.Files), s.Bytes) < 0
}

// Restamp is the times at which events are sent that Loki does not take at their own. They are kept before they are used, so
// that events which a crash repeats get the same ones.
type Restamp struct {
	// Old is for those that are too old, Future for those that are too far in the future; zero for none.
	Old    time.Time `json:"old,omitzero"`
	Future time.Time `json:"future,omitzero"`
}

func (r *Restamp) asRead() *Restamp {
	if r == nil {
		return nil
	}
	return &Restamp{Old: r.Old.UTC().Round(0), Future: r.Future.UTC().Round(0)}
}

func (r *Restamp) equal(o *Restamp) bool {
	if r == nil || o == nil {
		return r == o
	}
	return r.Old.Equal(o.Old) && r.Future.Equal(o.Future)
}

func (r *Restamp) times() []time.Time {
	if r == nil {
		return nil
	}
	return []time.Time{r.Old, r.Future}
}

// knows orders the positions that are committed one after another at the same place: each later one knows more.
func (p Position) knows() (n int) {
	if p.Gap != nil {
		n++
		if !p.Gap.First.IsZero() {
			n++
		}
	}
	if p.Old != nil && !p.Old.First.IsZero() {
		n++
	}
	if p.Restamp != nil {
		n++
	}
	return n
}
