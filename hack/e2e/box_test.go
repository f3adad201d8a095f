//go:build e2e && linux

package e2e

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/auditferry/auditferry/hack/rig"
)

// box is a container that runs in the background, and that can be killed and started again.
type box struct{ name string }

// startBox runs a container: args are options of `docker run`, the image, and the arguments of the program. It is gone when the test
// ends; if the test has failed, its output is printed.
func startBox(t *testing.T, ctx context.Context, args ...string) *box {
	t.Helper()
	b := &box{name: uniqueName("box")}
	if _, err := docker(ctx, append([]string{"run", "--detach", "--name=" + b.name}, args...)...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if t.Failed() {
			out, err := exec.CommandContext(ctx, "docker", "logs", "--tail=40", b.name).CombinedOutput()
			t.Logf("the output of %s (%v):\n%s", b.name, err, out)
		}
		if _, err := docker(ctx, "rm", "--force", "--volumes", b.name); err != nil {
			t.Error(err)
		}
	})
	return b
}

func uniqueName(what string) string { return fmt.Sprintf("auditferry-%s-%d", what, rand.Uint32()) }

// do runs a command of Docker on the container and gives what it prints.
func (b *box) do(t *testing.T, ctx context.Context, command ...string) string {
	t.Helper()
	out, err := docker(ctx, append(command, b.name)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// pid is the process ID of the program, on this machine.
func (b *box) pid(t *testing.T, ctx context.Context) int {
	t.Helper()
	pid, err := strconv.Atoi(b.do(t, ctx, "inspect", "--format={{.State.Pid}}"))
	if err != nil || pid == 0 {
		t.Fatalf("%s has no process (%v)", b.name, err)
	}
	return pid
}

// killAndRestart ends the program by SIGKILL and starts the container again at once.
func (b *box) killAndRestart(t *testing.T, ctx context.Context) {
	t.Helper()
	b.mustRun(t, ctx)
	b.do(t, ctx, "kill")
	if code := b.do(t, ctx, "wait"); code != "137" {
		t.Fatalf("%s has ended with code %s after SIGKILL, want 137", b.name, code)
	}
	b.do(t, ctx, "start")
}

// mustRun fails the test if the program has ended.
func (b *box) mustRun(t *testing.T, ctx context.Context) {
	t.Helper()
	const want = "running true, out of memory false, code 0"
	got := b.do(t, ctx, "inspect", "--format=running {{.State.Running}}, out of memory {{.State.OOMKilled}}, code {{.State.ExitCode}}")
	if got != want {
		t.Fatalf("%s: %s, want %s", b.name, got, want)
	}
}

// stop ends the program by SIGTERM, and by SIGKILL after patience. It must end with code 0.
func (b *box) stop(t *testing.T, ctx context.Context, patience time.Duration) {
	t.Helper()
	b.mustRun(t, ctx)
	b.do(t, ctx, "stop", fmt.Sprintf("--time=%d", int(patience.Seconds())))
	if code := b.do(t, ctx, "wait"); code != "0" {
		t.Errorf("%s has ended with code %s after SIGTERM, want 0", b.name, code)
	}
}

// serverImage gives the name of an image that holds a program of .cache/bin and nothing else. It is gone when the test ends.
func serverImage(t *testing.T, ctx context.Context, program string) string {
	t.Helper()
	path, err := rig.Binary(program)
	if err != nil {
		t.Fatal(err)
	}
	name := uniqueName(program)
	cmd := exec.CommandContext(ctx, "docker", "import", fmt.Sprintf(`--change=ENTRYPOINT ["/%s"]`, program), "-", name)
	layer, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	err = writeLayer(layer, path, program)
	if err := errors.Join(err, cmd.Wait()); err != nil {
		t.Fatalf("making the image %s: %v: %s", name, err, said.String())
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if _, err := docker(ctx, "image", "rm", name); err != nil {
			t.Error(err)
		}
	})
	return name
}

// writeLayer writes a tar with one executable, and a directory for temporary files, and closes it.
func writeLayer(to io.WriteCloser, path, name string) error {
	defer to.Close()
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	layer := tar.NewWriter(to)
	if err := layer.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}); err != nil {
		return err
	}
	if err := layer.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: info.Size()}); err != nil {
		return err
	}
	if _, err := io.Copy(layer, file); err != nil {
		return err
	}
	return layer.Close()
}

// needDocker fails the test where Docker does not answer, the image is not built, or the files that are made would not be root's.
func needDocker(t *testing.T, ctx context.Context) {
	t.Helper()
	if _, err := docker(ctx, "image", "inspect", image); err != nil {
		t.Fatalf("Docker must answer, and `make image` have built %s: %v", image, err)
	}
	if os.Getuid() != 0 {
		t.Fatal("run this as root: the audit log is to be root's, as on a control-plane node")
	}
}
