package main

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// about is what the binary says of itself.
type about struct {
	os, arch, revision string
	time               time.Time // of the commit; 1970 if it was not built from a repository
}

func read(binary string) (*about, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	a := &about{time: time.Unix(0, 0).UTC()}
	for _, s := range info.Settings {
		switch s.Key {
		case "GOOS":
			a.os = s.Value
		case "GOARCH":
			a.arch = s.Value
		case "vcs.revision":
			a.revision = s.Value
		case "vcs.time":
			if a.time, err = time.Parse(time.RFC3339, s.Value); err != nil {
				return nil, fmt.Errorf("%s: %w", binary, err)
			}
		}
	}
	return a, nil
}

func (a *about) platform() *v1.Platform { return &v1.Platform{OS: a.os, Architecture: a.arch} }

// labels are those of https://specs.opencontainers.org/image-spec/annotations.
func (c *config) labels(a *about) map[string]string {
	labels := map[string]string{
		"org.opencontainers.image.title":       "auditferry",
		"org.opencontainers.image.description": "Carries Kubernetes audit logs into Grafana Loki, complete",
		"org.opencontainers.image.source":      "https://github.com/auditferry/auditferry",
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.version":     c.version,
		"org.opencontainers.image.created":     a.time.Format(time.RFC3339),
	}
	if a.revision != "" {
		labels["org.opencontainers.image.revision"] = a.revision
	}
	return labels
}

// build makes the image of one platform.
func (c *config) build(context string) (v1.Image, *about, error) {
	about, err := read(filepath.Join(context, "auditferry"))
	if err != nil {
		return nil, nil, err
	}
	commands, err := scratch(c.dockerfile)
	if err != nil {
		return nil, nil, err
	}
	file := &v1.ConfigFile{OS: about.os, Architecture: about.arch, Created: v1.Time{Time: about.time}}
	file.Config.Labels = c.labels(about)
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if image, err = mutate.ConfigFile(image, file); err != nil {
		return nil, nil, err
	}
	config := file.Config
	for _, command := range commands {
		if copied, ok := command.(*instructions.CopyCommand); ok {
			image, err = addLayer(image, context, copied, about.time)
		} else {
			err = apply(&config, command)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	image, err = mutate.Config(image, config)
	return image, about, err
}

// scratch gives the instructions of a Dockerfile whose one stage is from scratch.
func scratch(dockerfile string) ([]instructions.Command, error) {
	text, err := os.ReadFile(dockerfile)
	if err != nil {
		return nil, err
	}
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dockerfile, err)
	}
	stages, _, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dockerfile, err)
	}
	if len(stages) != 1 || stages[0].BaseName != "scratch" {
		return nil, fmt.Errorf("%s: want one stage, FROM scratch", dockerfile)
	}
	return stages[0].Commands, nil
}

// apply does what an instruction does to the configuration of the image.
func apply(config *v1.Config, command instructions.Command) error {
	switch c := command.(type) {
	case *instructions.UserCommand:
		config.User = c.User
	case *instructions.EnvCommand:
		for _, pair := range c.Env {
			config.Env = append(config.Env, pair.String())
		}
	case *instructions.EntrypointCommand:
		config.Entrypoint = c.CmdLine
	case *instructions.VolumeCommand:
		config.Volumes = set(c.Volumes)
	case *instructions.ExposeCommand:
		ports := make([]string, len(c.Ports))
		for i, port := range c.Ports {
			ports[i] = port + "/tcp"
		}
		config.ExposedPorts = set(ports)
	default:
		return fmt.Errorf("the instruction %s is not known here", command.Name())
	}
	return nil
}

func set(words []string) map[string]struct{} {
	s := make(map[string]struct{}, len(words))
	for _, word := range words {
		s[word] = struct{}{}
	}
	return s
}

// addLayer does what COPY does.
func addLayer(image v1.Image, context string, c *instructions.CopyCommand, at time.Time) (v1.Image, error) {
	if len(c.SourcePaths) != 1 || c.From != "" || c.Chown != "" || c.Chmod != "" {
		return nil, fmt.Errorf("%s: only COPY SOURCE DESTINATION is known here", c)
	}
	var layer bytes.Buffer
	to := strings.TrimPrefix(c.DestPath, "/")
	if err := tarTree(&layer, filepath.Join(context, c.SourcePaths[0]), to, at); err != nil {
		return nil, err
	}
	opened := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil }
	made, err := tarball.LayerFromOpener(opened, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	return mutate.Append(image, mutate.Addendum{Layer: made, MediaType: types.OCILayer,
		History: v1.History{Created: v1.Time{Time: at}, CreatedBy: c.String()}})
}
