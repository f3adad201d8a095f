package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/auditferry/auditferry/hack/rig"
)

const (
	topStreams = 12
	widest     = 48 // characters of a label value that are shown
)

// stream is what a log query found under one combination of labels.
type stream struct {
	verb, user, resource string
	events, bytes        int
}

// printStreams prints the streams with most events as a table.
func printStreams(out io.Writer, entries []rig.Entry) {
	type key struct{ verb, user, resource string }
	byKey := map[key]*stream{}
	for _, e := range entries {
		k := key{e.Labels["verb"], e.Labels["user"], e.Labels["resource"]}
		s := byKey[k]
		if s == nil {
			s = &stream{verb: k.verb, user: k.user, resource: k.resource}
			byKey[k] = s
		}
		s.events++
		s.bytes += len(e.Line)
	}
	streams := slices.SortedFunc(maps.Values(byKey), func(a, b *stream) int {
		return cmp.Or(cmp.Compare(b.events, a.events), cmp.Compare(b.bytes, a.bytes), cmp.Compare(a.user, b.user),
			cmp.Compare(a.resource, b.resource), cmp.Compare(a.verb, b.verb))
	})
	fmt.Fprintf(out, "The largest of %d streams:\n\n", len(streams))
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "  VERB\tUSER\tRESOURCE\t%8s\t%10s\n", "EVENTS", "BYTES")
	for _, s := range streams[:min(len(streams), topStreams)] {
		fmt.Fprintf(table, "  %s\t%s\t%s\t%8d\t%10d\n", shown(s.verb), shown(s.user), shown(s.resource), s.events, s.bytes)
	}
	_ = table.Flush() // out is the terminal: who would be told?
}

// shown gives a label value that a client may have chosen as it can be printed: escaped, and cut where it is long.
func shown(value string) string {
	quoted := strconv.QuoteToGraphic(value)
	text := []rune(strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`))
	if len(text) > widest {
		return string(text[:widest-1]) + "…"
	}
	return string(text)
}
