#!/usr/bin/env bash
# Runs every fuzz target: what strangers write (tokens) and what operators write
# (the configuration, the init file) for the given time, what these are made of for
# a sixth of it.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-30}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for file in $(git ls-files '*_test.go' | xargs grep -l '^func Fuzz'); do
	for target in $(grep -oE '^func Fuzz[A-Za-z0-9_]*' "$file" | awk '{print $2}'); do
		case $target in
		FuzzCheck | FuzzLoad | FuzzInitFile) time=$seconds ;;
		*) time=$((seconds / 6)) ;;
		esac
		echo "fuzz $target ($(dirname "$file")) for $time s"
		"${GO:-go}" test -run '^$' -fuzz "^$target\$" -fuzztime "${time}s" "./$(dirname "$file")" >"$log" 2>&1 ||
			{ cat "$log"; exit 1; }
	done
done
