package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/auditferry/auditferry/positions"
)

// Memory is given back while the agent starts, and then as long as it ships something: an idle one does not wake for it.
func TestWhenMemoryIsGivenBack(t *testing.T) {
	file := filepath.Join(t.TempDir(), "positions.json")
	synctest.Test(t, func(t *testing.T) {
		store, err := positions.Open(positions.Config{File: file, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = store.Close() }() // what it would make durable is nothing
		var given []time.Duration
		begun := time.Now()
		a := &agent{store: store, moved: make(chan struct{}, 1), giveBack: func() { given = append(given, time.Since(begun)) }}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { a.syncUntil(ctx) })
		expect := func(after time.Duration, want int, last time.Duration) {
			t.Helper()
			time.Sleep(after - time.Since(begun))
			synctest.Wait()
			if len(given) != want || given[want-1] != last {
				t.Errorf("after %v: given back at %v, want %d times, at last at %v", after, given, want, last)
			}
		}
		start := firstGivings * giveBackAtFirst
		expect(time.Hour, firstGivings, start)
		a.moved <- struct{}{}
		expect(time.Hour+time.Second, firstGivings, start)
		a.moved <- struct{}{} // of the same giving
		expect(2*time.Hour, firstGivings+1, time.Hour+giveBackLater)
		cancel()
		all.Wait()
	})
}
