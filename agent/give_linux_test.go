package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The user whose directory it is puts a file of root's, by a link, in the place of one of the agent's, and takes it away, again and
// again while all is given to that user.
func TestAFileThatIsPutInTheWayIsNotGivenAway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const nobody = 65534
	dir, err := os.MkdirTemp("", "prepare")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(at("roots"), nil, 0o600), os.Chmod(at("roots"), 0o666), // else the kernel refuses links
		os.Mkdir(at("state"), 0o755), os.Chown(at("state"), nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	over, linked := make(chan struct{}), 0
	var swapping sync.WaitGroup
	swapping.Go(func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its user
		if err := unix.Setfsuid(nobody); err != nil {
			t.Error(err)
			return
		}
		for {
			select {
			case <-over:
				return
			default:
			}
			// Each may be refused, while the directory is root's.
			if os.Link(at("roots"), at("state/positions.json")) == nil {
				linked++
			}
			_ = os.Remove(at("state/positions.json"))
		}
	})
	cfg := &Config{stateConfig: stateConfig{PositionsFile: at("state/positions.json")}, prepare: prepareConfig{Owner: owner{nobody, nobody}}}
	for range 3000 {
		if err := prepare(cfg, io.Discard); err != nil {
			t.Error(err)
			break
		}
	}
	close(over)
	swapping.Wait()
	info, err := os.Stat(at("roots"))
	if err != nil {
		t.Fatal(err)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid != 0 || linked == 0 {
		t.Errorf("the file of root's belongs to %d; %d links were made", uid, linked)
	}
	if info, err := os.Stat(at("state")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the directory has become %v (%v)", info, err)
	}
}
