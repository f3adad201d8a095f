package tailer

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// entry is one file of the chain as the directory shows it.
type entry struct {
	rank
	stem string
	gz   bool // only the compressed form is there
	info fs.FileInfo
}

func (e *entry) name() string {
	if e.gz {
		return e.stem + ".gz"
	}
	return e.stem
}

func (e *entry) inode() uint64 { return inode(e.info) }

// rotated is when the file stopped growing, as far as it can be told: zero for the active file.
func (e *entry) rotated() time.Time {
	if e.copied() { // the name does not tell, or not to the hour
		return e.info.ModTime()
	}
	return e.time
}

func inode(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

// listAttempts bounds how often a directory that keeps changing is listed again; the next look comes soon anyway.
const listAttempts = 10

// list gives the chain of the path, oldest first. While lumberjack compresses, a backup stands there twice, plain and
// as a partial .gz: the plain one is given. A listing during which the directory changed may miss a file that was
// renamed meanwhile, so it is done again; the modification time alone does not tell, being as coarse as the kernel's
// tick. A missing directory is an empty chain, changed at the zero time.
func (n namer) list(dir string) (chain []entry, changed time.Time, err error) {
	for range listAttempts {
		var before, after fs.FileInfo
		if before, err = os.Stat(dir); err != nil {
			break
		}
		var names, still []string
		if names, err = namesIn(dir); err != nil {
			break
		}
		chain = n.stat(dir, names)
		if still, err = namesIn(dir); err != nil {
			break
		}
		if after, err = os.Stat(dir); err != nil {
			break
		}
		changed = after.ModTime()
		if before.ModTime().Equal(changed) && slices.Equal(names, still) {
			break
		}
	}
	if os.IsNotExist(err) {
		return nil, time.Time{}, nil
	}
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("listing the audit log directory: %w", err)
	}
	return chain, changed, nil
}

func namesIn(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	_ = d.Close()
	return names, err
}

// stat gives those of the names that are files of the path, in order.
func (n namer) stat(dir string, names []string) []entry {
	byStem := make(map[string]entry, len(names))
	for _, name := range names {
		stem, gz, r, ok := n.parse(name)
		if !ok {
			continue
		}
		if have, found := byStem[stem]; found && !have.gz {
			continue
		}
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || !info.Mode().IsRegular() {
			continue // gone meanwhile, or not a log
		}
		byStem[stem] = entry{rank: r, stem: stem, gz: gz, info: info}
	}
	chain := make([]entry, 0, len(byStem))
	for _, e := range byStem {
		chain = append(chain, e)
	}
	slices.SortFunc(chain, func(a, b entry) int { return a.compare(b.rank) })
	return chain
}
