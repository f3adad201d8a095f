package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by the linker to the version of the release.
var version = "dev"

// versionLine tells the version, what it was built with and for, and the commit, where it was built from a repository.
func versionLine() string {
	line := fmt.Sprintf("auditferry %s %s %s/%s", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if info, ok := debug.ReadBuildInfo(); ok {
		line += commit(info)
	}
	return line
}

// commit tells which commit was built, and of when it is; nothing if that is not known.
func commit(info *debug.BuildInfo) string {
	vcs := make(map[string]string)
	for _, s := range info.Settings {
		vcs[s.Key] = s.Value
	}
	if vcs["vcs.revision"] == "" {
		return ""
	}
	line := fmt.Sprintf(", commit %s of %s", vcs["vcs.revision"], vcs["vcs.time"])
	if vcs["vcs.modified"] == "true" {
		line += ", with changes"
	}
	return line
}
