// Command image makes the container image that a Dockerfile of FROM scratch describes, without Docker: from the same files it makes
// the same image, bit for bit, wherever and whenever it runs. docker build stamps the time into it.
//
//	image -version 0.1.0 -docker image.tar CONTEXT
//	image -version 0.1.0 -oci image.oci.tar CONTEXT_AMD64 CONTEXT_ARM64
//
// A context is a directory as docker build takes it, and holds the binary auditferry. Its platform, commit and time are what the
// binary says of itself.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func main() {
	var c config
	flag.StringVar(&c.dockerfile, "dockerfile", "Dockerfile", "what the image is")
	flag.StringVar(&c.version, "version", "", "of the program, also a tag of the image; required")
	flag.StringVar(&c.docker, "docker", "", "write an archive for docker load: `file`; takes one context")
	flag.StringVar(&c.oci, "oci", "", "write an archive of an OCI layout with all platforms: `file`")
	flag.Parse()
	c.contexts = flag.Args()
	if err := c.run(); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// config is what the command line says.
type config struct {
	dockerfile, version, docker, oci string
	contexts                         []string
}

const refName = "org.opencontainers.image.ref.name"

func (c *config) run() error {
	if c.version == "" || len(c.contexts) == 0 || c.docker != "" && len(c.contexts) > 1 {
		return errors.New("give -version, and a context, or several for -oci")
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, context := range c.contexts {
		image, about, err := c.build(context)
		if err != nil {
			return fmt.Errorf("making an image of %s: %w", context, err)
		}
		if c.docker != "" {
			if err := c.writeDocker(image); err != nil {
				return fmt.Errorf("writing %s: %w", c.docker, err)
			}
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: about.platform()}})
		digest, err := image.Digest()
		if err != nil {
			return err
		}
		fmt.Println(about.platform(), digest)
	}
	if c.oci == "" {
		return nil
	}
	if err := c.writeOCI(index); err != nil {
		return fmt.Errorf("writing %s: %w", c.oci, err)
	}
	return nil
}

func (c *config) writeDocker(image v1.Image) error {
	images := make(map[name.Tag]v1.Image)
	for _, tag := range []string{c.version, "latest"} {
		named, err := name.NewTag("auditferry:" + tag)
		if err != nil {
			return err
		}
		images[named] = image
	}
	return tarball.MultiWriteToFile(c.docker, images)
}

// writeOCI writes a layout with the index as the one image in it.
func (c *config) writeOCI(index v1.ImageIndex) error {
	dir, err := os.MkdirTemp(filepath.Dir(c.oci), "oci-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left is temporary, and in the way of nobody
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	if err := path.AppendIndex(index, layout.WithAnnotations(map[string]string{refName: c.version})); err != nil {
		return err
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	fmt.Println("all", digest)
	return writeFile(c.oci, func(f *os.File) error { return tarTree(f, dir, ".", time.Unix(0, 0)) })
}

func writeFile(path string, write func(*os.File) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
