//go:build !linux

package main

import "errors"

// enforce is for Linux.
func (*sandbox) enforce(*view, bool) (abi int, lacks string, err error) {
	return 0, "", errors.New("Landlock is part of Linux")
}
