package audit

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// corpusDirs gives the directories that may hold the corpus, the fullest first.
func corpusDirs(tb testing.TB) []string {
	tb.Helper()
	root, err := filepath.Abs(".")
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		if root == filepath.Dir(root) {
			tb.Fatal("no go.mod in any directory above")
		}
		root = filepath.Dir(root)
	}
	return []string{os.Getenv("AUDITFERRY_CORPUS"), filepath.Join(root, "..", "shared", "corpus"), filepath.Join(root, "hack", "corpus")}
}

// corpusFile gives the unpacked content of a file of the corpus; it skips the test if only the sample is there and the
// file is not part of it.
func corpusFile(tb testing.TB, name string) []byte {
	tb.Helper()
	for _, dir := range corpusDirs(tb) {
		if dir == "" {
			continue
		}
		file, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		defer file.Close()
		var from io.Reader = file
		if strings.HasSuffix(name, ".gz") {
			if from, err = gzip.NewReader(file); err != nil {
				tb.Fatal(err)
			}
		}
		content, err := io.ReadAll(from)
		if err != nil {
			tb.Fatal(err)
		}
		return content
	}
	tb.Skipf("%s is not part of the sample that the repository carries; set AUDITFERRY_CORPUS", name)
	return nil
}

// corpusLines gives the lines of a file of the corpus, without their newlines.
func corpusLines(tb testing.TB, name string) [][]byte {
	tb.Helper()
	return bytes.Split(bytes.TrimSuffix(corpusFile(tb, name), []byte("\n")), []byte("\n"))
}

var testConfig = Config{Node: "cp-1", Cluster: "east", Static: map[string]string{"region": `e"u`}}

// newDescriber gives a Describer with one label of each kind, that folds no streams.
func newDescriber(tb testing.TB) *Describer {
	tb.Helper()
	return describerOf(tb, testConfig, newAdmissions(tb, testConfig, 1<<40))
}

func describerOf(tb testing.TB, cfg Config, all *Admissions) *Describer {
	tb.Helper()
	d, err := NewDescriber(cfg, all, testPath)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

const testPath = "/var/log/audit.log"

func newAdmissions(tb testing.TB, cfg Config, maxStreams int) *Admissions {
	tb.Helper()
	a, err := NewAdmissions(cfg, maxStreams, testPath)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// earlier gives a position before all that it gave: what was admitted there does not hold yet.
func earlier() int64 { return lastEarlier.Add(-1) }

var lastEarlier atomic.Int64
