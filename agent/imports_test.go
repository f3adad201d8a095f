package main

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/auditferry/auditferry"

// allowed is the whole graph of imports between our packages (DESIGN section 2). What hack imports is free.
var allowed = map[string][]string{
	"agent":            {"agent/audit", "tailer", "positions", "shipper"},
	"agent/audit":      {},
	"tailer":           {"positions"},
	"positions":        {},
	"shipper":          {},
	"shipper/lokitest": {},
}

func TestImportsFormTheGraphOfTheDesign(t *testing.T) {
	seen := make(map[string]bool)
	err := filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel("..", path)
		if d.IsDir() && (name == "hack" || strings.HasPrefix(d.Name(), ".") && d.Name() != "..") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		pkg := filepath.ToSlash(filepath.Dir(name))
		may, known := allowed[pkg]
		if !known {
			t.Errorf("%s: package %s is not in the design", name, pkg)
			return nil
		}
		seen[pkg] = true
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range file.Imports {
			imported, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			if ours, ok := strings.CutPrefix(imported, module+"/"); ok && !slices.Contains(may, ours) {
				t.Errorf("%s: package %s may not import %s", name, pkg, ours)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) != len(allowed) {
		t.Errorf("found the packages %v, want all of %v", seen, allowed)
	}
}
