//go:build e2e

package chart

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// Around the table in the README.
const (
	tableBegin = "<!-- The table is made from values.yaml and values.schema.json: make chart UPDATE=1 -->\n"
	tableEnd   = "<!-- end of the table -->\n"
)

// TestReadme compares the table of values with values.yaml, which has the defaults and the order, and values.schema.json, which has the
// words. Each must know every value that the other knows.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(chartDir(t), "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var values yaml.Node
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	table := "| value | default | |\n| --- | --- | --- |\n" + rows(t, "", values.Content[0], readSchema(t))

	path := filepath.Join(chartDir(t), "README.md")
	readme, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(readme), tableBegin)
	was, after, ends := strings.Cut(rest, tableEnd)
	if !begins || !ends {
		t.Fatalf("%s does not hold the lines %s%s", path, tableBegin, tableEnd)
	}
	if *update {
		if err := os.WriteFile(path, []byte(before+tableBegin+table+tableEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(was, table); diff != "" {
		t.Errorf("the table is not what values.yaml and values.schema.json say (`make chart UPDATE=1`): -README +values\n%s", diff)
	}
}

// TestExamples renders the values that the README shows.
func TestExamples(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(chartDir(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	examples := strings.Split(string(readme), "```yaml\n")[1:]
	if len(examples) == 0 {
		t.Fatal("there are none")
	}
	for _, example := range examples {
		example, _, _ = strings.Cut(example, "```")
		values := filepath.Join(t.TempDir(), "values.yaml")
		if err := os.WriteFile(values, []byte(example), 0o600); err != nil {
			t.Fatal(err)
		}
		checkConfig(t, objects(t, mustRender(t, chartDir(t), "--values", values)))
	}
}

// rows gives a row for each value below a prefix. Objects that the schema describes are one value.
func rows(t *testing.T, prefix string, values *yaml.Node, s *schema) string {
	t.Helper()
	var table strings.Builder
	known := make(map[string]bool)
	for i := 0; i < len(values.Content); i += 2 {
		name, value := values.Content[i].Value, values.Content[i+1]
		known[name] = true
		property := s.property(name)
		switch {
		case property == nil:
			t.Errorf("values.schema.json does not know %s%s", prefix, name)
		case property.Description == "":
			table.WriteString(rows(t, prefix+name+".", value, property))
		default:
			fmt.Fprintf(&table, "| `%s%s` | %s | %s |\n", prefix, name, shown(t, value), property.Description)
		}
	}
	for _, property := range s.Properties {
		if !known[property.name] && property.name != "global" {
			t.Errorf("values.yaml does not hold %s%s", prefix, property.name)
		}
	}
	return table.String()
}

// shown is a default in the table: nothing if it is empty, and not the whole of what is large.
func shown(t *testing.T, value *yaml.Node) string {
	t.Helper()
	var decoded any
	if err := value.Decode(&decoded); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(decoded)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case value.Kind == yaml.ScalarNode && (value.Value == "" || value.Tag == "!!null"), value.Kind != yaml.ScalarNode && len(value.Content) == 0:
		return ""
	case value.Kind == yaml.ScalarNode:
		return "`" + value.Value + "`"
	case len(text) > 120:
		return "see values.yaml"
	}
	return "`" + string(text) + "`"
}

// schema is as much of values.schema.json as is looked at here, its properties in their order.
type schema struct {
	name        string
	Description string
	Properties  properties
}

type properties []schema

// UnmarshalYAML keeps the order.
func (p *properties) UnmarshalYAML(node *yaml.Node) error {
	for i := 0; i < len(node.Content); i += 2 {
		property := schema{name: node.Content[i].Value}
		if err := node.Content[i+1].Decode(&property); err != nil {
			return err
		}
		*p = append(*p, property)
	}
	return nil
}

// property gives one by name, or nil.
func (s *schema) property(name string) *schema {
	for i := range s.Properties {
		if s.Properties[i].name == name {
			return &s.Properties[i]
		}
	}
	return nil
}

func readSchema(t *testing.T) *schema {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(chartDir(t), "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	root := new(schema)
	if err := yaml.Unmarshal(text, root); err != nil { // JSON is YAML
		t.Fatal(err)
	}
	return root
}
