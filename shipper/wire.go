package shipper

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// A push is the message PushRequest of Loki's pkg/push/push.proto. It is written by hand, and an entry at once when it is
// added to a batch: as the structs of that package it would have to be copied, measured and walked over once more, which
// was a fifth of all that the agent did. Tests compare every byte with what that package makes of the same.
//
// The tags are of fields whose value has a length; those of a time are of numbers.
const (
	tagStreams = 1<<3 | 2 // PushRequest.streams

	tagLabels  = 1<<3 | 2 // StreamAdapter.labels
	tagEntries = 2<<3 | 2 // StreamAdapter.entries

	tagTimestamp = 1<<3 | 2 // EntryAdapter.timestamp
	tagLine      = 2<<3 | 2 // EntryAdapter.line
	tagMetadata  = 3<<3 | 2 // EntryAdapter.structuredMetadata

	tagName  = 1<<3 | 2 // LabelPairAdapter.name
	tagValue = 2<<3 | 2 // LabelPairAdapter.value

	tagSeconds = 1 << 3 // google.protobuf.Timestamp.seconds
	tagNanos   = 2 << 3 // google.protobuf.Timestamp.nanos
)

// sizeUvarint is how many bytes a number takes.
func sizeUvarint(n uint64) int { return (bits.Len64(n|1) + 6) / 7 }

// sizeBytes is how many bytes a field of n bytes takes, with its tag and length; protobuf leaves an empty one out.
func sizeBytes(n int) int {
	if n == 0 {
		return 0
	}
	return sizeMessage(n)
}

// sizeMessage is how many bytes a message of n bytes takes as a field.
func sizeMessage(n int) int { return 1 + sizeUvarint(uint64(n)) + n }

func sizeTime(t time.Time) (n int) {
	if s := t.Unix(); s != 0 {
		n += 1 + sizeUvarint(uint64(s))
	}
	if ns := t.Nanosecond(); ns != 0 {
		n += 1 + sizeUvarint(uint64(ns))
	}
	return n
}

// A short field of metadata is one whose lengths take a byte each: nearly all are. It takes so many bytes beside its name and value.
const shortField = 6

// isShort reports whether a field of metadata is short, by the lengths of its name and value.
func isShort(name, value int) bool { return name > 0 && value > 0 && name+value < 1<<7-(shortField-2) }

// sizeEntry is how many bytes e takes as a message, and how many of line and metadata Loki counts.
func sizeEntry(e *Entry) (wire, counted int) {
	wire, counted = sizeMessage(sizeTime(e.Time))+sizeBytes(len(e.Line)), len(e.Line)
	for i := range e.Metadata {
		name, value := len(e.Metadata[i].Name), len(e.Metadata[i].Value)
		counted += name + value
		if isShort(name, value) {
			wire += shortField + name + value
		} else {
			wire += sizeMessage(sizeBytes(name) + sizeBytes(value))
		}
	}
	return wire, counted
}

func appendTag(dst []byte, tag byte, n int) []byte {
	return binary.AppendUvarint(append(dst, tag), uint64(n))
}

// appendEntry appends e, of size bytes as a message, as an entry of a stream.
func appendEntry(dst []byte, e *Entry, size int) []byte {
	dst = appendTag(dst, tagEntries, size)
	dst = appendTag(dst, tagTimestamp, sizeTime(e.Time))
	if s := e.Time.Unix(); s != 0 {
		dst = binary.AppendUvarint(append(dst, tagSeconds), uint64(s))
	}
	if ns := e.Time.Nanosecond(); ns != 0 {
		dst = binary.AppendUvarint(append(dst, tagNanos), uint64(ns))
	}
	if len(e.Line) > 0 {
		dst = append(appendTag(dst, tagLine, len(e.Line)), e.Line...)
	}
	for i := range e.Metadata {
		f := &e.Metadata[i]
		if isShort(len(f.Name), len(f.Value)) {
			dst = appendShort(dst, f)
		} else {
			dst = appendField(dst, f)
		}
	}
	return dst
}

// appendShort is appendField for a short field, in a few steps: there are a dozen with each event.
func appendShort(dst []byte, f *Field) []byte {
	name, value, at := len(f.Name), len(f.Value), len(dst)
	dst = slices.Grow(dst, shortField+name+value)[:at+shortField+name+value]
	to := dst[at:]
	to[0], to[1], to[2], to[3] = tagMetadata, byte(shortField-2+name+value), tagName, byte(name)
	copy(to[4:], f.Name)
	to = to[4+name:]
	to[0], to[1] = tagValue, byte(value)
	copy(to[2:], f.Value)
	return dst
}

func appendField(dst []byte, f *Field) []byte {
	dst = appendTag(dst, tagMetadata, sizeBytes(len(f.Name))+sizeBytes(len(f.Value)))
	if len(f.Name) > 0 {
		dst = append(appendTag(dst, tagName, len(f.Name)), f.Name...)
	}
	if len(f.Value) > 0 {
		dst = append(appendTag(dst, tagValue, len(f.Value)), f.Value...)
	}
	return dst
}

// The times that a google.protobuf.Timestamp may hold, in seconds since 1970: the years 1 to 9999.
const minSeconds, endSeconds = -62135596800, 253402300800

// fits reports whether a push can hold a time.
func fits(t time.Time) bool { return t.Unix() >= minSeconds && t.Unix() < endSeconds }

// readEntry undoes appendEntry. The entry points into wire. It is for the few that are refused.
func readEntry(wire []byte) (e Entry, err error) {
	_, _, n := protowire.ConsumeTag(wire)
	message, m := protowire.ConsumeBytes(wire[max(n, 0):])
	if n < 0 || m < 0 {
		return e, fmt.Errorf("reading back an entry: %w", protowire.ParseError(min(n, m)))
	}
	var seconds, nanos uint64
	err = eachField(message, func(tag byte, value []byte, _ uint64) error {
		switch tag {
		case tagTimestamp:
			return eachField(value, func(tag byte, _ []byte, number uint64) error {
				if tag == tagSeconds {
					seconds = number
				} else {
					nanos = number
				}
				return nil
			})
		case tagLine:
			e.Line = value
		case tagMetadata:
			var f Field
			err := eachField(value, func(tag byte, value []byte, _ uint64) error {
				if tag == tagName {
					f.Name = string(value)
				} else {
					f.Value = value
				}
				return nil
			})
			e.Metadata = append(e.Metadata, f)
			return err
		}
		return nil
	})
	e.Time = time.Unix(int64(seconds), int64(nanos)).UTC()
	return e, err
}

// eachField gives the fields of a message, each with its tag and its value, which is bytes or a number.
func eachField(message []byte, give func(tag byte, value []byte, number uint64) error) error {
	for len(message) > 0 {
		tag := message[0] // all are below 128
		var value []byte
		var number uint64
		var n int
		if protowire.Type(tag&7) == protowire.BytesType {
			value, n = protowire.ConsumeBytes(message[1:])
		} else {
			number, n = protowire.ConsumeVarint(message[1:])
		}
		if n < 0 {
			return fmt.Errorf("reading back an entry: %w", protowire.ParseError(n))
		}
		if err := give(tag, value, number); err != nil {
			return err
		}
		message = message[1+n:]
	}
	return nil
}
