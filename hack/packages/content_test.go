//go:build e2e && linux

package packages

import (
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/auditferry/auditferry/hack/rig"
)

// packageDir is where `make packages` leaves what it makes.
func packageDir(t *testing.T) string {
	t.Helper()
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, ".cache", "dist")
}

// packageFile gives the one package of a pattern.
func packageFile(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(packageDir(t), pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("`make packages` must have made one %s, there are %v (%v)", pattern, found, err)
	}
	return found[0]
}

// Names of the architectures of this machine, in a .deb and in an .rpm.
var (
	debArch = runtime.GOARCH
	rpmArch = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
)

// output runs a program, which must succeed.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v", name, args, err)
	}
	return string(out)
}

// makePackage makes a package of the binary that is in the others, of another version and maybe with other settings.
func makePackage(t *testing.T, format, version, to string) {
	t.Helper()
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(root, ".cache/bin/nfpm"), "package", "-f", "manifests/packages/nfpm.yaml", "-p", format, "-t", to)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "ARCH="+runtime.GOARCH, "BINARY=.cache/image/"+runtime.GOARCH+"/auditferry", "VERSION="+version,
		"SOURCE_DATE_EPOCH="+strings.TrimSpace(output(t, "git", "-C", root, "log", "-1", "--format=%ct")))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("making %s: %v: %s", to, err, out)
	}
}

func sum(t *testing.T, file string) [sha256.Size]byte {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(content)
}

func TestVersions(t *testing.T) {
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	// In the order in which git has them.
	described := []string{"0123abc", "0123abc-dirty", "v0.1.0-rc.1", "v0.1.0-rc.1-3-g0123abc", "v0.1.0-rc.2", "v0.1.0", "v0.1.0-5-g0123abc",
		"v0.1.0-5-g0123abc-dirty", "v0.1.0-12-g0123abc", "v0.1.1", "0.2.0-dirty", "v0.10.0"}
	want := []string{"0.0.0+g0123abc", "0.0.0+g0123abc.dirty", "0.1.0~rc.1", "0.1.0~rc.1+3.g0123abc", "0.1.0~rc.2", "0.1.0", "0.1.0+5.g0123abc",
		"0.1.0+5.g0123abc.dirty", "0.1.0+12.g0123abc", "0.1.1", "0.2.0+dirty", "0.10.0"}
	var before string
	for i, text := range described {
		version := strings.TrimSpace(output(t, filepath.Join(root, "manifests/packages/version.sh"), text))
		if version != want[i] {
			t.Errorf("%s is %s, want %s", text, version, want[i])
		}
		if before != "" {
			output(t, "dpkg", "--compare-versions", before, "lt", version)
			if order := output(t, "rpm", "--eval", `%{lua: print(rpm.vercmp("`+before+`", "`+version+`"))}`); strings.TrimSpace(order) != "-1" {
				t.Errorf("rpm orders %s and %s as %s", before, version, order)
			}
		}
		before = version
	}
}

// contents is every file of a package: mode, owner, name.
var contents = []string{
	`-rw-r--r-- root/root /etc/auditferry/config.yaml`,
	`-rw-r--r-- root/root /usr/lib/systemd/system/auditferry.service`,
	`-rw-r--r-- root/root /usr/lib/sysusers.d/auditferry.conf`,
	`-rwxr-xr-x root/root /usr/bin/auditferry`,
}

func TestDeb(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		file := packageFile(t, "auditferry_*_"+arch+".deb")
		got := output(t, "dpkg-deb", "--contents", file)
		for _, want := range append(contents, `-rw-r--r-- root/root /usr/share/doc/auditferry/copyright`) {
			access, name, _ := strings.Cut(want, " /")
			if !regexp.MustCompile(`(?m)^` + access + ` .* \./` + regexp.QuoteMeta(name) + `$`).MatchString(got) {
				t.Errorf("%s does not have %s:\n%s", file, want, got)
			}
		}
		if n := strings.Count("\n"+got, "\n-"); n != len(contents)+1 {
			t.Errorf("%s has %d files:\n%s", file, n, got)
		}
		if got := output(t, "dpkg-deb", "--field", file, "Architecture", "Depends"); got != "Architecture: "+arch+"\nDepends: systemd (>= 247)\n" {
			t.Errorf("%s: %s", file, got)
		}
		if got := output(t, "dpkg-deb", "--info", file, "conffiles"); got != "/etc/auditferry/config.yaml\n" {
			t.Errorf("the configuration files of %s are %q", file, got)
		}
	}
	file := packageFile(t, "auditferry_*_"+debArch+".deb")
	again := filepath.Join(t.TempDir(), "again.deb")
	version := strings.TrimSuffix(strings.TrimSpace(output(t, "dpkg-deb", "--field", file, "Version")), "-1")
	makePackage(t, "deb", version, again)
	if sum(t, file) != sum(t, again) {
		t.Errorf("%s differs when it is made again", file)
	}
}

func TestRPM(t *testing.T) {
	for _, arch := range []string{"x86_64", "aarch64"} {
		file := packageFile(t, "auditferry-*."+arch+".rpm")
		got := output(t, "rpm", "-qp", "--qf", `[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILENAMES} %{FILEFLAGS:fflags}\n]`, file)
		for _, want := range append(contents, `-rw-r--r-- root/root /usr/share/licenses/auditferry/LICENSE`, `drwxr-xr-x root/root /etc/auditferry`) {
			if !strings.Contains(got, want+" ") {
				t.Errorf("%s does not have %s:\n%s", file, want, got)
			}
		}
		if n := strings.Count("\n"+got, "\n-"); n != len(contents)+1 {
			t.Errorf("%s has %d files:\n%s", file, n, got)
		}
		if !strings.Contains(got, "/etc/auditferry/config.yaml cn\n") {
			t.Errorf("%s: config.yaml is not config(noreplace):\n%s", file, got)
		}
		if got := output(t, "rpm", "-qp", "--qf", "%{ARCH} %{BUILDHOST}", file); got != arch+" localhost" {
			t.Errorf("%s is for, and from, %s", file, got)
		}
	}
	file := packageFile(t, "auditferry-*."+rpmArch+".rpm")
	again := filepath.Join(t.TempDir(), "again.rpm")
	makePackage(t, "rpm", output(t, "rpm", "-qp", "--qf", "%{VERSION}", file), again)
	if sum(t, file) != sum(t, again) {
		t.Errorf("%s differs when it is made again", file)
	}
}
