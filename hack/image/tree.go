package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"
)

// tarTree writes a file, or a directory with all that is in it, as a tar in which it has another name. It belongs to root and is
// of that time; of its mode, only what matters to others is kept.
func tarTree(w io.Writer, from, to string, at time.Time) error {
	archive := tar.NewWriter(w)
	err := filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error { // in lexical order
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		header := &tar.Header{Name: path.Join(to, filepath.ToSlash(rel)), ModTime: at, Format: tar.FormatPAX, Mode: int64(mode(info))}
		switch {
		case d.IsDir():
			header.Typeflag, header.Name = tar.TypeDir, header.Name+"/"
			return archive.WriteHeader(header)
		case info.Mode().IsRegular():
			header.Typeflag, header.Size = tar.TypeReg, info.Size()
			if err := archive.WriteHeader(header); err != nil {
				return err
			}
			return copyFile(archive, name)
		}
		return fmt.Errorf("%s is neither a file nor a directory", name)
	})
	return errors.Join(err, archive.Close())
}

// mode does not depend on the umask of who built it: everybody may read, and write only where everybody may.
func mode(info fs.FileInfo) int {
	switch {
	case info.Mode()&fs.ModeSticky != 0:
		return 0o1777
	case info.IsDir() || info.Mode()&0o100 != 0:
		return 0o755
	}
	return 0o644
}

func copyFile(w io.Writer, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}
