#!/usr/bin/env bash
# Runs every fuzz target for an equal part of a time: hack/fuzz.sh 10m (or 90s, 8h, 1h30m).
#
# A finding fails it, once the other targets have had their time too. go test keeps the input that failed under
# testdata/fuzz/ beside the test: there, every later `go test` tries it first. Commit it with what mends it.
set -euo pipefail
cd "$(dirname "$0")/.."

total=$(awk -v left="$1" 'BEGIN {
	unit["h"] = 3600; unit["m"] = 60; unit["s"] = 1
	if (left == "") exit 1
	while (match(left, /^[0-9]+[hms]/)) {
		sum += substr(left, 1, RLENGTH - 1) * unit[substr(left, RLENGTH, 1)]
		left = substr(left, RLENGTH + 1)
	}
	if (left != "") exit 1
	print sum
}') || { echo "fuzz: FUZZTIME=$1 is not a time such as 10m, 90s or 8h" >&2; exit 2; }

# go test -list prints the targets of a package, then a line that names it.
listed=$(go test -vet=off -list '^Fuzz' ./...)
mapfile -t targets < <(awk '/^Fuzz/ { name[n++] = $1 } $1 == "ok" { for (i = 0; i < n; i++) print $2, name[i]; n = 0 }' <<<"$listed")
each=$((total / ${#targets[@]}))
((each > 0)) || each=1
echo "fuzz: ${#targets[@]} targets, ${each}s each"

output=$(mktemp)
trap 'rm -f "$output"' EXIT
findings=()
for target in "${targets[@]}"; do
	read -r package name <<<"$target"
	printf '\nfuzz: %s %s, %ss\n' "$package" "$name" "$each"
	go test -vet=off -run '^$' -fuzz "^$name\$" -fuzztime "${each}s" "$package" 2>&1 | tee "$output" && continue
	kept=$(sed -n 's/^ *Failing input written to //p' "$output")
	if [[ -n $kept ]]; then
		findings+=("$name: the input is kept in $(go list -f '{{.Dir}}' "$package")/$kept")
	elif grep -qx '    context deadline exceeded' "$output"; then
		# Before Go 1.27 the end of -fuzztime can look like a failure: https://go.dev/issue/75804
		echo "fuzz: $name has found nothing; its time ended in the middle of an input"
	else
		findings+=("$name: no input is kept; see above")
	fi
done
echo
if ((${#findings[@]} > 0)); then
	printf 'fuzz: FAIL %s\n' "${findings[@]}" >&2
	exit 1
fi
echo "fuzz: no findings"
