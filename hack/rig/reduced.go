package rig

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// What a reduced event is made of (DESIGN section 7, Too long a line), stated a second time as the Oracle is.
const (
	reducedNote     = "auditferry.io/reduced"
	reducedEscapes  = "escapes of &, < and > written out"
	reducedBody     = `{"kind":"Removed","apiVersion":"auditferry.io/v1"}`
	reducedManaged  = ".metadata.managedFields"
	reducedItems    = ".items[]" + reducedManaged
	worthRemoving   = 256 // bytes; less may stay, since the note about it is as long
	reducedResponse = "responseObject"
	reducedRequest  = "requestObject"
)

// reducedEntry is what the note says of one part.
var reducedEntry = regexp.MustCompile(`^(.+): (\d+) bytes, sha256 ([0-9a-f]{64})$`)

type rawObject = map[string]json.RawMessage

// JudgeReduced says what is wrong with the line that Loki has of an event, if lines are limited to limit bytes; nil is right. One
// that was not too long must be as it was written. One that was must be valid JSON within the limit which, decoded, is the event
// but for what its note names with the right size and hash, removed in the right order. Errors tell places, never content.
//
// An event is the same one as another if auditID, stage and stageTimestamp are the same: these stay, but for an auditID that a client
// made longer than 1 KiB. Events with a
// key that comes twice, which kube-apiserver does not write, are not judged rightly.
func JudgeReduced(original, line []byte, limit int) error {
	if len(original) <= limit {
		if !bytes.Equal(original, line) {
			return errors.New("the line was not too long, and is altered")
		}
		return nil
	}
	if len(line) > limit || !json.Valid(line) {
		return fmt.Errorf("a line of %d bytes, valid JSON: %v; the limit is %d", len(line), json.Valid(line), limit)
	}
	var j reducedJudge
	if err := errors.Join(json.Unmarshal(original, &j.was), json.Unmarshal(line, &j.is)); err != nil {
		return fmt.Errorf("judging a reduced event: %w", err)
	}
	if err := j.takeNote(); err != nil {
		return err
	}
	for _, part := range j.parts {
		if isLongPart(part) {
			continue
		}
		if err := j.remove(part); err != nil {
			return err
		}
	}
	if err := j.checkOrder(); err != nil {
		return err
	}
	if err := j.compare(); err != nil {
		return err
	}
	return j.checkCut()
}

// reducedJudge removes from the event as it was what the note names, and compares.
type reducedJudge struct {
	was, is                       rawObject
	wasAnnotations, isAnnotations rawObject
	parts                         []string // that the note names, in its order
	sizes, sums                   map[string]string
	gone                          map[string][]byte // what was cut, by part
}

// takeNote reads the note and takes it out of the annotations.
func (j *reducedJudge) takeNote() error {
	if raw := j.was["annotations"]; raw != nil {
		if err := json.Unmarshal(raw, &j.wasAnnotations); err != nil {
			return errors.New("the annotations of the event are not an object")
		}
	}
	var note string
	if json.Unmarshal(j.is["annotations"], &j.isAnnotations) != nil || json.Unmarshal(j.isAnnotations[reducedNote], &note) != nil {
		return errors.New("there is no note of what was removed")
	}
	if bytes.Count(j.is["annotations"], []byte(`"`+reducedNote+`":`)) != 1 {
		return errors.New("the note is there twice")
	}
	delete(j.isAnnotations, reducedNote)
	j.sizes, j.sums, j.gone = map[string]string{}, map[string]string{}, map[string][]byte{}
	for _, text := range strings.Split(note, "; ") {
		entry := reducedEntry.FindStringSubmatch(text)
		switch {
		case text == reducedEscapes: // what is decoded shows no difference
		case entry == nil:
			return errors.New("an entry of the note is none")
		case j.sizes[entry[1]] != "":
			return fmt.Errorf("the note names %s twice", entry[1])
		default:
			j.parts = append(j.parts, entry[1])
			j.sizes[entry[1]], j.sums[entry[1]] = entry[2], entry[3]
		}
	}
	return nil
}

// remove removes a part from the event as it was, and checks what the note says of it.
func (j *reducedJudge) remove(part string) error {
	name, _, _ := strings.Cut(part, ".")
	body := name == reducedResponse || name == reducedRequest
	var gone []byte
	switch {
	case body && part == name:
		gone = j.was[name]
		j.was[name] = json.RawMessage(reducedBody)
	case body && slices.Contains(j.parts, name):
		return fmt.Errorf("%s: it is in a body that was removed whole", part)
	case body && part == name+reducedManaged:
		j.was[name], gone = withoutManaged(j.was[name], j.is[name])
	case body && part == name+reducedItems:
		j.was[name], gone = withoutItemsManaged(j.was[name], j.is[name])
	case strings.HasPrefix(part, "annotations."):
		key := strings.TrimPrefix(part, "annotations.")
		gone = j.wasAnnotations[key]
		delete(j.wasAnnotations, key)
	}
	if len(gone) == 0 {
		return fmt.Errorf("%s: the event has no such part", part)
	}
	return j.checkSum(part, gone)
}

// withoutManaged gives an object without the managedFields of its metadata if it has none now, and what they were.
func withoutManaged(was, is json.RawMessage) (left json.RawMessage, gone []byte) {
	var before, now, metadata, metadataNow rawObject
	if json.Unmarshal(was, &before) != nil || json.Unmarshal(is, &now) != nil ||
		json.Unmarshal(before["metadata"], &metadata) != nil || json.Unmarshal(now["metadata"], &metadataNow) != nil {
		return was, nil
	}
	gone = metadata["managedFields"]
	if len(gone) <= len("[]") || string(metadataNow["managedFields"]) != "[]" {
		return was, nil
	}
	metadata["managedFields"] = json.RawMessage("[]")
	before["metadata"] = marshal(metadata)
	return marshal(before), gone
}

// withoutItemsManaged is withoutManaged for the items of a list: what they were, one after another.
func withoutItemsManaged(was, is json.RawMessage) (left json.RawMessage, gone []byte) {
	var before, now rawObject
	var items, itemsNow []json.RawMessage
	if json.Unmarshal(was, &before) != nil || json.Unmarshal(is, &now) != nil || json.Unmarshal(before["items"], &items) != nil ||
		json.Unmarshal(now["items"], &itemsNow) != nil || len(items) != len(itemsNow) {
		return was, nil
	}
	for i := range items {
		var itemGone []byte
		items[i], itemGone = withoutManaged(items[i], itemsNow[i])
		gone = append(gone, itemGone...)
	}
	before["items"] = marshal(items)
	return marshal(before), gone
}

// marshal encodes what was decoded before, which cannot fail.
func marshal(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}

func (j *reducedJudge) large(name string) bool {
	return len(j.is[name]) > worthRemoving && string(j.is[name]) != reducedBody
}

// checkOrder says whether something went before its turn: what is small may stay.
func (j *reducedJudge) checkOrder() error {
	annotations := slices.ContainsFunc(j.parts, func(part string) bool {
		return strings.HasPrefix(part, "annotations.") && part != "annotations."+reducedNote
	})
	long := slices.ContainsFunc(j.parts, isLongPart)
	largeLeft := slices.ContainsFunc(slices.Collect(maps.Values(j.isAnnotations)), func(raw json.RawMessage) bool { return len(raw) > worthRemoving })
	switch {
	case slices.Contains(j.parts, reducedRequest) && j.large(reducedResponse):
		return errors.New("requestObject went before responseObject")
	case annotations && (j.large(reducedResponse) || j.large(reducedRequest)):
		return errors.New("annotations went before the bodies")
	case long && (j.large(reducedResponse) || j.large(reducedRequest)):
		return errors.New("values were cut before the bodies went")
	case long && largeLeft:
		return errors.New("values were cut before annotations went")
	}
	return nil
}

// compare names the members that differ.
func (j *reducedJudge) compare() error {
	delete(j.was, "annotations")
	delete(j.is, "annotations")
	wrong := rawDifferences("", takeBodies(j.was), takeBodies(j.is))
	wrong = append(wrong, j.cutMembers("", j.was, j.is)...)
	wrong = append(wrong, rawDifferences("annotations.", j.wasAnnotations, j.isAnnotations)...)
	if len(wrong) > 0 {
		slices.Sort(wrong)
		return fmt.Errorf("altered, and not noted: %s", strings.Join(wrong, ", "))
	}
	return nil
}

func takeBodies(event rawObject) rawObject {
	bodies := rawObject{}
	for _, name := range []string{reducedResponse, reducedRequest} {
		if raw, ok := event[name]; ok {
			bodies[name] = raw
			delete(event, name)
		}
	}
	return bodies
}

func rawDifferences(prefix string, was, is rawObject) []string {
	var names []string
	for name := range was {
		if !reflect.DeepEqual(decoded(was[name]), decoded(is[name])) {
			names = append(names, prefix+name)
		}
	}
	for name := range is {
		if was[name] == nil {
			names = append(names, prefix+name)
		}
	}
	return names
}

// decoded gives a value with numbers as they are written, and nil for none.
func decoded(raw json.RawMessage) any {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var v any
	if decoder.Decode(&v) != nil {
		return nil
	}
	return v
}
