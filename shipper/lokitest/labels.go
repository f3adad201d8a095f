package lokitest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// ParseLabels reads a label set in Loki's text form, such as `{job="x", verb="get"}`. As in Loki, it wants at least one
// label, names of letters, digits and underscores, double-quoted values, and no name twice.
func ParseLabels(text string) (map[string]string, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), "{")
	if !ok {
		return nil, errors.New("a label set begins with {")
	}
	labels := make(map[string]string)
	for {
		name, after, ok := strings.Cut(rest, "=")
		name = strings.TrimSpace(name)
		if !ok || !validName(name) {
			return nil, fmt.Errorf("label name %q", name)
		}
		if _, twice := labels[name]; twice {
			return nil, fmt.Errorf("duplicate label name %q", name)
		}
		after = strings.TrimSpace(after)
		quoted, err := strconv.QuotedPrefix(after)
		if err != nil || quoted[0] != '"' {
			return nil, fmt.Errorf("the value of label %q is not quoted", name)
		}
		value, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, fmt.Errorf("the value of label %q: %w", name, err)
		}
		labels[name] = value
		rest = strings.TrimSpace(after[len(quoted):])
		if rest == "}" {
			return labels, nil
		}
		if rest, ok = strings.CutPrefix(rest, ","); !ok {
			return nil, fmt.Errorf("neither a comma nor the end after label %q", name)
		}
	}
}

func validName(name string) bool {
	for i, r := range name {
		letter := r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}

// formatLabels is the text form that Loki itself prints: sorted by name.
func formatLabels(labels map[string]string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, name := range slices.Sorted(maps.Keys(labels)) {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(name)
		b.WriteByte('=')
		b.WriteString(strconv.Quote(labels[name]))
	}
	b.WriteByte('}')
	return b.String()
}
