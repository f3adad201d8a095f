package audit

import (
	"bytes"
	"encoding/binary"
)

// Clients are few and ask again and again: most objects of user and annotations stand in many lines, byte for byte. Those
// that were read not long ago are remembered as they were written. Where one of them stands again it needs no reading: a
// comparison of bytes, at memory speed, says that it is valid JSON that ends here, and what it holds. It cannot say more
// or less than reading would, so what is remembered changes the time that a line takes, and nothing else.

const (
	memoSlots  = 128
	maxMemo    = 1024 // how long an object may be that is remembered, in bytes
	memoSample = 40   // how many bytes choose a slot
)

// memo remembers objects of one member of the event, all of which lie equally deep.
type memo [memoSlots]remembered

// remembered is an object that was read; none if the text is empty.
type remembered struct {
	text     []byte
	from, to int // where in the text the string that was wanted stands, ASCII without escapes
}

// slot gives the place of an object. Any place would be right: a sample of bytes that tell the usual ones apart keeps
// them out of each other's way.
func (m *memo) slot(sample []byte) *remembered {
	s := sample[:memoSample]
	sum := binary.LittleEndian.Uint64(s)*0x9e3779b97f4a7c15 +
		binary.LittleEndian.Uint64(s[8:])*0xbf58476d1ce4e5b9 +
		binary.LittleEndian.Uint64(s[16:])*0x94d049bb133111eb +
		binary.LittleEndian.Uint64(s[24:])*0xd6e8feb86659fd93 +
		binary.LittleEndian.Uint64(s[32:])*0xff51afd7ed558ccd
	return &m[sum>>57] // the high bits depend on all bytes
}

// remembered gives the string that the object at hand has under a key, as member does, by way of a slot.
func (d *Describer) remembered(slot *remembered, want string) []byte {
	s := &d.scan
	start := s.at
	if len(slot.text) > 0 && bytes.HasPrefix(s.line[start:], slot.text) {
		s.at += len(slot.text)
		return s.line[start+slot.from : start+slot.to]
	}
	found := d.member(want)
	// Without escapes the string is part of the line, and its capacity says where.
	if size := s.at - start; found != nil && !s.bad && d.event.plain && size <= maxMemo {
		slot.text = append(slot.text[:0], s.line[start:s.at]...)
		slot.from = cap(s.line) - cap(found) - start
		slot.to = slot.from + len(found)
	}
	return found
}
