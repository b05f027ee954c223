#!/usr/bin/env bash
# Runs every fuzz target for the given time. `go test` runs each on its corpus.
set -euo pipefail
cd "$(dirname "$0")/.."
GOTOOLCHAIN=$(awk '$1 == "toolchain" { print $2 }' go.mod) # as in the Makefile
export GOTOOLCHAIN

seconds=${1:-30}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# fuzz runs one target. Its time is not spent on making inputs shorter, which Go would do for
# a minute with each that looks new, as all do where keys are random. On a busy machine Go calls the end of the time itself a failure
# (golang/go#75804), and only once in a while: a run that found nothing but that is
# repeated.
fuzz() {
	for attempt in 1 2 3 4 5; do
		"${GO:-go}" test -run '^$' -fuzz "^$2\$" -fuzztime "${seconds}s" -fuzzminimizetime 10x "$1" >"$log" 2>&1 && return
		[ $attempt != 5 ] && only_late || break
		echo "the time ended late, again"
	done
	cat "$log"
	return 1
}

# only_late reports whether the log has that failure, no other, and no input was kept.
only_late() {
	grep -qx '    context deadline exceeded' "$log" &&
		! grep -q 'Failing input written' "$log" &&
		! grep -v '^    context deadline exceeded$' "$log" | grep -q '^ ' &&
		[ -z "$(git ls-files --others --exclude-standard '*/testdata/fuzz/*')" ]
}

for file in $(git ls-files '*_test.go' | xargs grep -l '^func Fuzz'); do
	for target in $(grep -oE '^func Fuzz[A-Za-z0-9_]*' "$file" | awk '{print $2}'); do
		echo "fuzz $target ($(dirname "$file")) for $seconds s"
		fuzz "./$(dirname "$file")" "$target"
	done
done
