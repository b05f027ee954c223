#!/usr/bin/env bash
# Runs each fuzz target for the given time.
set -euo pipefail
cd "$(dirname "$0")/.."

time=${1:-30s}
for file in $(git ls-files '*_test.go' | xargs grep -l '^func Fuzz'); do
	for target in $(grep -oE '^func Fuzz[A-Za-z0-9_]*' "$file" | awk '{print $2}'); do
		echo "fuzz $target ($(dirname "$file")) for $time"
		"${GO:-go}" test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "./$(dirname "$file")" >/tmp/watchword-fuzz.log 2>&1 ||
			{ cat /tmp/watchword-fuzz.log; exit 1; }
	done
done
