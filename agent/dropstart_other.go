//go:build !linux

package main

// dropStart is for Linux.
func dropStart() {}
