package shipper

import (
	"sync/atomic"
	"time"
)

const (
	// UsualInFlight is how many batches of a path may be under way where Config.InFlight does not say.
	UsualInFlight = 2
	// maxExtras is how many more may be, of all queues of a client together, where Config.InFlight and Config.StreamRate are 0.
	maxExtras = 7
	// maxHeavy is how many batches of a queue may take memory for all of their entries (see letGo) before nothing more is lent.
	maxHeavy = 4
	// slowAnswer is what makes a Loki slow: with two batches of 1 MiB under way, it then takes no more than 40 MiB a second.
	slowAnswer = 50 * time.Millisecond
	// largePush is how many bytes a body has whose quick answer shows that Loki is not slow: a batch of 1 MiB makes some 200 KiB.
	largePush = 64 << 10
)

// answerTime is how long Loki takes to acknowledge a push, in nanoseconds: a mean in which older answers weigh less and less, and
// which a quicker one to a large push sets at once. For an agent whose processor time is used up sees answers late, by up to a tenth
// of a second, though not all of them; and more batches under way would cost it more time yet.
type answerTime struct{ mean atomic.Int64 }

// note counts an answer to a push of so many bytes. Of two at the same moment one may be lost, which matters little.
func (a *answerTime) note(took time.Duration, bytes int) {
	mean := a.mean.Load()
	if mean == 0 || int64(took) < mean && bytes >= largePush {
		mean = int64(took)
	}
	a.mean.Store(mean + (int64(took)-mean)/8)
}

func (a *answerTime) slow() bool { return a.mean.Load() >= int64(slowAnswer) }

// extras lends room for batches beyond Config.InFlight while Loki answers slowly. More batches under way take more memory, and
// a crash repeats more of them: so there are more only where they are of use. They are of none where streams are paced, which
// is slower than two batches at a time.
type extras struct {
	allowed bool
	taken   atomic.Int64
}

// take makes s one of the extras, if there may be one more.
func (x *extras) take(s *sent) bool {
	if !x.allowed {
		return false
	}
	if x.taken.Add(1) > maxExtras {
		x.taken.Add(-1)
		return false
	}
	s.extra = true
	return true
}

// release gives the room of s back, if it was one of the extras.
func (x *extras) release(s *sent) {
	if s.extra {
		x.taken.Add(-1)
	}
}
