//go:build linux

// Probe tries what a container must not be able to do, and a few things that it must, and prints a JSON object of attempts and
// what came of each: "done" or the error's name. The end-to-end tests run it in the place of the agent, with the same rights and the
// same mounts.
//
//	probe AUDIT_DIR STATE_DIR FOREIGN_FILE HOST_FILE
//
// AUDIT_DIR holds audit.log; FOREIGN_FILE is mounted, and another user's alone; HOST_FILE is a path of the host that is not mounted.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: probe AUDIT_DIR STATE_DIR FOREIGN_FILE HOST_FILE")
		os.Exit(2)
	}
	audit, state, foreign, host := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	log, mine := filepath.Join(audit, "audit.log"), filepath.Join(state, "mine")
	results := map[string]string{}
	for _, attempt := range []struct {
		name string
		try  func() error
	}{
		{"read the audit log", func() error { return open(log, unix.O_RDONLY) }},
		{"write the state", func() error { return open(mine, unix.O_CREAT|unix.O_WRONLY) }},

		{"create beside the audit log", func() error { return open(filepath.Join(audit, "new"), unix.O_CREAT|unix.O_WRONLY) }},
		{"append to the audit log", func() error { return open(log, unix.O_WRONLY|unix.O_APPEND) }},
		{"truncate the audit log", func() error { return unix.Truncate(log, 0) }},
		{"rename the audit log", func() error { return unix.Rename(log, log+".away") }},
		{"unlink the audit log", func() error { return unix.Unlink(log) }},
		{"chmod the audit log", func() error { return unix.Chmod(log, 0o644) }},
		{"chown the audit log", func() error { return unix.Chown(log, 1, 1) }},
		{"date back the audit log", func() error { return unix.Utimes(log, make([]unix.Timeval, 2)) }},
		{"make a directory beside the audit log", func() error { return unix.Mkdir(filepath.Join(audit, "dir"), 0o700) }},
		{"link the audit log into the state", func() error { return unix.Link(log, filepath.Join(state, "linked")) }},
		{"remount the audit log writable", func() error { return unix.Mount("", audit, "", unix.MS_REMOUNT|unix.MS_BIND, "") }},
		{"unmount the audit log", func() error { return unix.Unmount(audit, unix.MNT_DETACH) }},

		{"write to /etc", func() error { return open("/etc/new", unix.O_CREAT|unix.O_WRONLY) }},
		{"write over the program", func() error { return open("/auditferry", unix.O_WRONLY) }},

		{"read a file of the host", func() error { return open(host, unix.O_RDONLY) }},
		{"read another user's file", func() error { return open(foreign, unix.O_RDONLY) }},
		{"open the root of the audit log's file system by handle", func() error { return openRoot(audit) }},
		{"make a device", func() error { return unix.Mknod(filepath.Join(state, "disk"), unix.S_IFBLK|0o600, 8<<8) }},
		{"give a file away", func() error { return unix.Chown(mine, 1, 1) }},
		{"become another user", func() error { return unix.Setresuid(1, 1, 1) }},
		{"become root of a new user namespace", func() error { return unix.Unshare(unix.CLONE_NEWUSER) }},
		{"open a raw socket", func() error { return socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP) }},
	} {
		results[attempt.name] = describe(attempt.try())
	}
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func describe(err error) string {
	if err == nil {
		return "done"
	}
	if errno := unix.Errno(0); errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

func open(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// openRoot opens the root directory of the file system that dir is on, of which dir is all that is mounted. CAP_DAC_READ_SEARCH is
// what open_by_handle_at asks for, and Docker and containerd let those make the call who have it: from there, every file of the
// node's disk can be read.
func openRoot(dir string) error {
	at, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer at.Close()
	const ino32 = 1 // FILEID_INO32_GEN: inode number and generation; the root of ext4 is inode 2
	root := unix.NewFileHandle(ino32, []byte{2, 0, 0, 0, 0, 0, 0, 0})
	fd, err := unix.OpenByHandleAt(int(at.Fd()), root, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func socket(domain, kind, protocol int) error {
	fd, err := unix.Socket(domain, kind, protocol)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
