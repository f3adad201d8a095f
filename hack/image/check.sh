#!/usr/bin/env bash
# Builds the release of HEAD twice, in two clones of the repository, with other times and another umask, and compares every file.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

build() { # NAME UMASK
	git clone -q --no-hardlinks . "$work/$1"
	cd "$work/$1"
	umask "$2"
	make -s release >/dev/null
	cp .cache/dist/*/SHA256SUMS "$work/$1.sums"
}
(build first 022)
(build second-elsewhere 077)
if ! diff "$work/first.sums" "$work/second-elsewhere.sums"; then
	echo "the two builds differ" >&2
	exit 1
fi
cat "$work/first.sums"
echo "two builds, the same files"
