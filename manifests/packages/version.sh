#!/bin/sh
# Turns what `git describe --tags --always --dirty` prints into a version that dpkg and rpm take, and order as git does:
#   v0.2.0               0.2.0
#   v0.2.0-rc.1          0.2.0~rc.1           before 0.2.0
#   v0.2.0-5-g0123abc    0.2.0+5.g0123abc     after 0.2.0, before 0.2.1
#   0123abc              0.0.0+g0123abc       where there is no tag
# and .dirty at the end for what is not committed. The v may be missing.
set -eu

described=$1
dirty=
case "$described" in *-dirty) dirty=.dirty described=${described%-dirty} ;; esac
case "$described" in
[v0-9]*.*.*) version=$(printf %s "${described#v}" | sed -E 's/-([0-9]+)-g([0-9a-f]+)$/+\1.g\2/; s/-/~/g') ;;
*) version="0.0.0+g$described" ;;
esac
case "$version$dirty" in
*+* | *~*) ;;
*) dirty=$(printf %s "$dirty" | sed 's/^\./+/') ;;
esac
printf '%s%s\n' "$version" "$dirty"
