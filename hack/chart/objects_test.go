//go:build e2e

package chart

import (
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// object is one of Kubernetes, or a part of one.
type object = map[string]any

// objects reads documents, by kind and name.
func objects(t *testing.T, text string) map[string]object {
	t.Helper()
	all := make(map[string]object)
	decoder := yaml.NewDecoder(strings.NewReader(text))
	for {
		var o object
		err := decoder.Decode(&o)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if o == nil {
			continue // nothing but comments
		}
		key := o["kind"].(string) + "/" + part(t, o, "metadata")["name"].(string)
		if _, twice := all[key]; twice {
			t.Fatalf("%s is there twice", key)
		}
		all[key] = o
	}
}

// part follows keys to an object within another.
func part(t *testing.T, o object, keys ...string) object {
	t.Helper()
	for _, key := range keys {
		inner, ok := o[key].(object)
		if !ok {
			t.Fatalf("there is no %s, but %v", key, o)
		}
		o = inner
	}
	return o
}

// ofKind gives the only object of a kind; nil if there is none.
func ofKind(t *testing.T, all map[string]object, kind string) object {
	t.Helper()
	var found object
	for key, o := range all {
		if !strings.HasPrefix(key, kind+"/") {
			continue
		}
		if found != nil {
			t.Fatalf("there is more than one %s", kind)
		}
		found = o
	}
	return found
}

// files gives what a ConfigMap or a Secret holds, as text.
func files(t *testing.T, o object) map[string]string {
	t.Helper()
	texts := make(map[string]string)
	if o == nil {
		return texts
	}
	held, _ := o["data"].(object)
	for name, value := range held {
		text := value.(string)
		if o["kind"] == "Secret" {
			decoded, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			text = string(decoded)
		}
		texts[name] = text
	}
	plain, _ := o["stringData"].(object)
	for name, value := range plain {
		texts[name] = value.(string)
	}
	return texts
}
