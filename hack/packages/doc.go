// Package packages holds the tests of the .deb, the .rpm and the systemd unit in them, with the build tag e2e. `make units` builds the
// packages into .cache/dist and a Debian with systemd into .cache/systemd.tar, and runs these:
//
//	TestVersions  versions of git describe, as dpkg and rpm order them
//	TestDeb, TestRPM  what is in the packages; made again, they are the same
//	TestService   the .deb under a systemd: unit, rights, limits, SIGKILL, watchdog, stop, credentials, dead letters, upgrade, removal
//	TestRPMScripts  the .rpm under one: installed, run, upgraded, removed
//
// The systemd is the first process of a container that shares the network of this machine, where lokitest is its Loki. It needs Docker,
// whose cgroups the container can write in its own branch (v1 or v2), and root, whose the audit logs are.
package packages
