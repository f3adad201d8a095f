//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	usages = append(usages, usage{"state on a full disk, checked", func(t *testing.T, w *workplace) []string {
		w.fullDisk(t, filepath.Join(w.dir, "state"))
		return append(w.good(), "--check-config")
	}, failure, []string{"--positions-file", "no space left on device"}})
}

// fullDisk mounts a disk on dir that has no room left, until the test ends.
func (w *workplace) fullDisk(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount a disk")
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0777,size=4096"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "full"), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
}
