//go:build e2e

package chart

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

func TestGolden(t *testing.T) {
	notes := withNotes(t)
	for _, name := range cases(t) {
		t.Run(name, func(t *testing.T) {
			values := filepath.Join("testdata", name+".values.yaml")
			mustRun(t, "helm", "lint", "--strict", "--quiet", "--kube-version", kubeVersion, "--values", values, chartDir(t))
			golden(t, filepath.Join("testdata", name+".golden.yaml"), mustRender(t, chartDir(t), "--values", values))
			var rendered struct{ Notes string }
			if err := yaml.Unmarshal([]byte(mustRender(t, notes, "--values", values, "--show-only=templates/notes.yaml")), &rendered); err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", name+".notes.txt"), rendered.Notes)
		})
	}
}

// withNotes gives a copy of the chart that renders its notes, which Helm shows only when it installs.
func withNotes(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(chartDir(t))); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "templates", "NOTES.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	template := "notes: |\n{{ tpl (.Files.Get \"notes.txt\") . | indent 2 }}\n"
	if err := os.WriteFile(filepath.Join(dir, "templates", "notes.yaml"), []byte(template), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestPackage packs the chart: all of its directory and nothing else, and it renders as the directory does.
func TestPackage(t *testing.T) {
	dir := t.TempDir()
	mustRun(t, "helm", "package", chartDir(t), "--destination", dir)
	archives, err := filepath.Glob(filepath.Join(dir, "auditferry-*.tgz"))
	if err != nil || len(archives) != 1 {
		t.Fatalf("there is %v: %v", archives, err)
	}
	archive := archives[0]
	var want []string
	err = fs.WalkDir(os.DirFS(chartDir(t)), ".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			want = append(want, "auditferry/"+path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	got := archived(t, archive)
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the archive does not hold what the directory does: -directory +archive\n%s", diff)
	}
	for _, file := range []string{"README.md", "values.schema.json", "templates/NOTES.txt", "templates/_distributions.tpl"} {
		if !slices.Contains(got, "auditferry/"+file) {
			t.Errorf("the archive holds no %s", file)
		}
	}
	for _, file := range got {
		if strings.Contains(file, "test") || strings.Contains(file, "golden") {
			t.Errorf("the archive holds %s", file)
		}
	}
	set := "--set=distribution=openshift"
	if diff := cmp.Diff(mustRender(t, chartDir(t), set), mustRender(t, archive, set)); diff != "" {
		t.Errorf("the archive renders something else: -directory +archive\n%s", diff)
	}
}

// archived gives the names of the files in a .tgz.
func archived(t *testing.T, archive string) []string {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	reader := tar.NewReader(unzipped)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, header.Name)
	}
}
