package main

import (
	"testing"
	"time"
)

func TestADeadLoopIsToldFromOneThatWaits(t *testing.T) {
	const interval = 10 * time.Second
	type look struct {
		turns   int64
		excused bool
		hanging string // a system call, "" for none
		dead    bool
	}
	for _, tt := range []struct {
		name  string
		looks []look
	}{
		{"it turns over", []look{{turns: 1}, {turns: 2}, {turns: 3}}},
		{"it stands still", []look{{turns: 1}, {turns: 1, dead: true}, {turns: 1, dead: true}}},
		{"it stands still from the start", []look{{turns: 0}, {turns: 0, dead: true}}},
		{"it goes on after all", []look{{turns: 1}, {turns: 1, dead: true}, {turns: 2}, {turns: 2, dead: true}}},
		{"it waits for Loki", []look{{turns: 1, excused: true}, {turns: 1, excused: true}, {turns: 1, excused: true}}},
		{"it has waited for Loki until a moment ago", []look{{turns: 1, excused: true}, {turns: 2}, {turns: 3}}},
		{"it stands still after it has waited", []look{{turns: 1, excused: true}, {turns: 2}, {turns: 2, dead: true}}},
		{"a file system hangs", []look{{turns: 1}, {turns: 1, hanging: "read"}, {turns: 1, hanging: "read"}, {turns: 1, hanging: "read"}}},
		{"a file system does not hang any more, the loop stands still", []look{{turns: 1}, {turns: 1, hanging: "read"}, {turns: 1, dead: true}}},
		{"a call that was under way by chance", []look{{turns: 1}, {turns: 1, hanging: "read"}, {turns: 2}, {turns: 2, hanging: "read"}, {turns: 2, dead: true}}},
		{"another system call at each look", []look{{turns: 1}, {turns: 1, hanging: "read"}, {turns: 1, hanging: "write", dead: true}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now := time.Now()
			var current look
			v := &vigil{
				loops: []watchedLoop{
					{path: "other", alive: func() (int64, bool) { return 0, true }, patience: interval, turns: -1, moved: now},
					{path: "a", alive: func() (int64, bool) { return current.turns, current.excused }, patience: interval, turns: -1, moved: now},
				},
				hanging: func() map[string]bool {
					calls := map[string]bool{}
					if current.hanging != "" {
						calls[current.hanging] = true
					}
					return calls
				},
			}
			for i, l := range tt.looks {
				current = l
				now = now.Add(interval)
				want, wantFor := "", time.Duration(0)
				if l.dead {
					want, wantFor = "a", interval
				}
				if path, still := v.dead(now); path != want || still < wantFor {
					t.Errorf("look %d: %q is dead for %s, want %q", i, path, still, want)
				}
			}
		})
	}
}
