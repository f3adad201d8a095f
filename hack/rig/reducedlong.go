package rig

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// What is cut of an event outside of its bodies and annotations, stated a second time. Sizes are in bytes.
const (
	longString      = 1024 // a longer one may be cut
	longStringKept  = 512
	longElements    = 1024 // so may the elements of a list before the last
	longObject      = 8192
	longNames       = 50
	longNameOfAKey  = 64
	reducedEllipsis = "…"
)

// isLongPart says whether a part is a value outside of bodies and annotations.
func isLongPart(part string) bool {
	name, _, _ := strings.Cut(part, ".")
	return name != reducedResponse && name != reducedRequest && name != "annotations"
}

// cut compares a value outside of bodies and annotations with what is left of it, collects what is gone where the note names it,
// and names all else that differs.
func (j *reducedJudge) cut(name string, was, is json.RawMessage) (wrong []string) {
	if reflect.DeepEqual(decoded(was), decoded(is)) && (was == nil) == (is == nil) {
		return nil
	}
	if was == nil || is == nil {
		return []string{name}
	}
	named := slices.Contains(j.parts, name)
	switch {
	case named && cutString(was, is), named && len(was) > longObject && was[0] == '{' && string(is) == "{}":
		j.gone[name] = append(j.gone[name], was...)
		return nil
	case was[0] == '[':
		return j.cutList(name, named, was, is)
	}
	var before, now rawObject
	if json.Unmarshal(was, &before) != nil || json.Unmarshal(is, &now) != nil {
		return []string{name}
	}
	return j.cutMembers(name+".", before, now)
}

func (j *reducedJudge) cutMembers(prefix string, was, is rawObject) (wrong []string) {
	for key := range was {
		wrong = append(wrong, j.cut(prefix+nameOfKey(key), was[key], is[key])...)
	}
	for key := range is {
		if was[key] == nil {
			wrong = append(wrong, prefix+nameOfKey(key))
		}
	}
	return wrong
}

func (j *reducedJudge) cutList(name string, named bool, was, is json.RawMessage) (wrong []string) {
	var before, now []json.RawMessage
	if json.Unmarshal(was, &before) != nil || json.Unmarshal(is, &now) != nil {
		return []string{name}
	}
	if len(before) != len(now) {
		if !named || len(now) != 1 || len(before) == 0 || len(was)-len(before[len(before)-1]) <= longElements {
			return []string{name}
		}
		j.gone[name] = append(j.gone[name], was...)
		before = before[len(before)-1:]
	}
	for i := range before {
		wrong = append(wrong, j.cut(name+"[]", before[i], now[i])...)
	}
	return wrong
}

// cutString says whether a string is the beginning of one that is long.
func cutString(was, is json.RawMessage) bool {
	var whole, left string
	if json.Unmarshal(was, &whole) != nil || json.Unmarshal(is, &left) != nil {
		return false
	}
	kept, cut := strings.CutSuffix(left, reducedEllipsis)
	return cut && strings.HasPrefix(whole, kept) && len(was)-len(`""`) > longString &&
		len(is)-len(`""`)-len(reducedEllipsis) <= longStringKept
}

func nameOfKey(key string) string {
	if len(key) <= longNameOfAKey {
		return key
	}
	end := longNameOfAKey
	for !utf8.RuneStart(key[end]) {
		end--
	}
	return key[:end] + reducedEllipsis
}

// checkCut checks what the note says of the values that were cut.
func (j *reducedJudge) checkCut() error {
	names := 0
	for _, part := range j.parts {
		if !isLongPart(part) {
			continue
		}
		names++
		if j.gone[part] == nil {
			return fmt.Errorf("%s: the event has no such part, or it is not cut as it should be", part)
		}
		if err := j.checkSum(part, j.gone[part]); err != nil {
			return err
		}
	}
	if names > longNames {
		return fmt.Errorf("the note names %d values that were cut", names)
	}
	return nil
}

// checkSum checks size and hash of a part.
func (j *reducedJudge) checkSum(part string, gone []byte) error {
	sum := sha256.Sum256(gone)
	if j.sizes[part] != strconv.Itoa(len(gone)) || j.sums[part] != hex.EncodeToString(sum[:]) {
		return fmt.Errorf("%s: size or hash is not that of the %d bytes that are gone", part, len(gone))
	}
	return nil
}
