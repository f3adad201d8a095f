package rig

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// LSN gives how far an audit log was acknowledged, in unpacked bytes since it was first followed, by the text of a positions
// file; 0 if that does not know the log. Not whole: it is cut, or the third line is not the checksum of the others.
func LSN(text []byte, auditLog string) (lsn int64, whole bool) {
	parts := bytes.SplitAfterN(text, []byte{'\n'}, 4)
	if len(parts) < 4 {
		return 0, false
	}
	sum := sha256.Sum256(bytes.Join([][]byte{parts[0], parts[1], parts[3]}, nil))
	if !bytes.Contains(parts[2], fmt.Appendf(nil, "%x", sum)) {
		return 0, false
	}
	var file struct {
		Paths map[string]struct{ LSN int64 }
	}
	if json.Unmarshal(text, &file) != nil {
		return 0, false
	}
	return file.Paths[auditLog].LSN, true
}

// PositionOnDisk gives the lsn of the audit log in the positions files, the highest one, 0 if there is none; and how many of
// the files are there and not whole.
func (a *Agent) PositionOnDisk() (lsn int64, torn int, err error) {
	for _, name := range append(a.LatestFiles(), a.PositionsFile()) {
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, 0, fmt.Errorf("reading the positions: %w", err)
		}
		found, whole := LSN(text, a.AuditLog)
		if !whole {
			torn++
		}
		lsn = max(lsn, found)
	}
	return lsn, torn, nil
}
