package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"slices"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// configFile is the value of --config. Kong calls BeforeResolve when it has seen the flag.
type configFile string

// BeforeResolve reads the file, from which kong then takes what neither flag nor environment gave.
func (f configFile) BeforeResolve(ctx *kong.Context, trace *kong.Path) error {
	name := string(ctx.FlagValue(trace.Flag).(configFile))
	settings, err := readSettings(name)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	ctx.AddResolver(settings)
	return nil
}

// settings are the keys of a configuration file: the names of flags.
type settings struct {
	file   string
	values map[string]*yaml.Node
}

func readSettings(file string) (*settings, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	s := &settings{file: file, values: make(map[string]*yaml.Node)}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(document.Content) == 0 {
		return s, nil // nothing but comments
	}
	top := document.Content[0]
	if top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: want lines of the form loki-url: http://loki:3100", file, top.Line)
	}
	for i := 0; i < len(top.Content); i += 2 {
		key := top.Content[i]
		if _, twice := s.values[key.Value]; twice {
			return nil, fmt.Errorf("%s:%d: %s is there twice", file, key.Line, key.Value)
		}
		s.values[key.Value] = top.Content[i+1]
	}
	return s, nil
}

// Validate refuses keys that are no flags. Flags of the agent may be there for replay too: operators name the same file for
// both. It is kong.Resolver's.
func (s *settings) Validate(app *kong.Application) error {
	agent, err := newParser(new(commandLine), "auditferry", description, io.Discard)
	if err != nil {
		return err
	}
	known := make(map[string]bool)
	for _, flag := range slices.Concat(app.Flags, agent.Model.Flags) {
		known[flag.Name] = true
	}
	var first error
	line := math.MaxInt
	for key, value := range s.values {
		if known[key] && key != "config" && key != "help" && key != "version" || value.Line >= line {
			continue
		}
		line = value.Line
		first = fmt.Errorf("%s:%d: unknown key %q: a key is the name of a flag without its dashes", s.file, line, key)
	}
	return first
}

// Resolve gives the value of a flag, nil for none. It is kong.Resolver's. Kong asks also for what the environment has
// given, so that is looked up here.
func (s *settings) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	node, ok := s.values[flag.Name]
	if !ok {
		return nil, nil
	}
	for _, env := range flag.Envs {
		if _, given := os.LookupEnv(env); given {
			return nil, nil
		}
	}
	value, err := plain(node)
	if err == nil && node.Kind == yaml.MappingNode && flag.IsSlice() {
		err = fmt.Errorf("%s: want a value or a list of them, as in %[1]s: [a, b]", flag.Name)
	}
	if err == nil {
		// Kong would report a value that does not fit without the place where it stands.
		scan := kong.Scan().PushTyped(value, kong.FlagValueToken)
		err = flag.Parse(scan, reflect.New(flag.Target.Type()).Elem())
	}
	if err != nil {
		return nil, fmt.Errorf("%s:%d: %w", s.file, node.Line, err)
	}
	return value, nil
}

// plain gives a YAML value in the types that kong takes: a string, a list or a map of them.
func plain(node *yaml.Node) (any, error) {
	switch {
	case node.Kind == yaml.ScalarNode && node.Tag != "!!null":
		return node.Value, nil
	case node.Kind == yaml.SequenceNode:
		var list []string
		if err := node.Decode(&list); err != nil {
			return nil, fmt.Errorf("want a list of words: %w", err)
		}
		values := make([]any, len(list))
		for i := range list {
			values[i] = list[i]
		}
		return values, nil
	case node.Kind == yaml.MappingNode:
		values := make(map[string]any)
		for i := 0; i < len(node.Content); i += 2 {
			key, value := node.Content[i].Value, node.Content[i+1]
			if value.Kind != yaml.ScalarNode || value.Tag == "!!null" {
				return nil, fmt.Errorf("%s: want a word", key)
			}
			values[key] = value.Value
		}
		return values, nil
	}
	return nil, errors.New("there is no value")
}
