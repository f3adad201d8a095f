package rig

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
)

const modulePath = "github.com/auditferry/auditferry"

// RepoRoot gives the directory of the repository that the working directory is in: the nearest one upwards whose go.mod
// names the root module.
func RepoRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the repository: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module "+modulePath+"\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not inside a checkout of %s", start, modulePath)
		}
	}
}

// Binary gives the path of a built program (auditferry, sink, loki, etcd, kube-apiserver, kubectl) in the repository's .cache/bin.
func Binary(name string) (string, error) {
	root, err := RepoRoot()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, ".cache", "bin", name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not built, run `make e2e` or its build steps: %w", name, err)
	}
	return path, nil
}

// FreePorts asks the kernel for n different TCP ports on loopback that nobody listens on.
func FreePorts(n int) ([]int, error) {
	var ports []int
	var listeners []io.Closer
	var err error
	for range n {
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			break
		}
		listeners = append(listeners, l)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	// Closed only now, so that no port is given twice.
	for _, l := range listeners {
		err = errors.Join(err, l.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("asking for free ports: %w", err)
	}
	return ports, nil
}
