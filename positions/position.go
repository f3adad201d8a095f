package positions

import (
	"encoding/hex"
	"fmt"
	"time"
)

// Hash is the identity of an audit log file: the SHA-256 of its first line, newline included. The path will not do
// (rotation moves the file), nor the inode (reused within seconds, changed by gzip), nor a head of fixed length
// (clients can make those equal): DESIGN section 4.
type Hash [32]byte

// MarshalText gives the hash as 64 hexadecimal digits.
func (h Hash) MarshalText() ([]byte, error) {
	return hex.AppendEncode(nil, h[:]), nil
}

// UnmarshalText reads what MarshalText wrote; anything else is an error.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(h)) {
		return fmt.Errorf("hash of a first line: %d characters, want %d", len(text), hex.EncodedLen(len(h)))
	}
	if _, err := hex.Decode(h[:], text); err != nil {
		return fmt.Errorf("hash of a first line: %w", err)
	}
	return nil
}

// Position is how far one audit log path has been acknowledged by Loki: a point between two lines. The zero FirstLine
// means that nothing was acknowledged yet: the path is read from its oldest backup.
type Position struct {
	// FirstLine tells which file Offset counts in.
	FirstLine Hash `json:"first_line"`
	// Offset is in unpacked bytes, so it holds for the plain file and for its .gz alike.
	Offset int64 `json:"offset"`
	// LSN counts the unpacked bytes of this path since the agent first followed it. It only grows, so it orders any
	// two positions of a path.
	LSN int64 `json:"lsn"`
	// Name is the base name of the file when the position was taken: a tie-breaker and a hint for people.
	Name string `json:"name"`
	// Inode is that of the file when the position was taken: a tie-breaker only.
	Inode uint64 `json:"inode"`
	// EventTime is the timestamp of the last event before the position: a line that has none of its own takes it.
	EventTime time.Time `json:"event_time"`
}

// Identified reports whether the position names a file, that is, whether anything was acknowledged before it.
func (p Position) Identified() bool { return p.FirstLine != Hash{} }
