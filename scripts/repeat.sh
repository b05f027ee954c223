#!/usr/bin/env bash
# Runs tests many times in a row, as `make ci` runs them, and stops at the first failure,
# whose log it keeps.
#
#	scripts/repeat.sh COUNT [BUSY [PACKAGE...]]
#
# BUSY is how many loops keep processors busy meanwhile; 0 if it is left out. Without
# packages it takes those that depend most on time.
set -uo pipefail
cd "$(dirname "$0")/.."

count=${1:?how many times}
busy=${2:-0}
shift $(($# < 2 ? $# : 2))
packages=("$@")
(($#)) || packages=(./verify ./internal/app ./test/backends ./test/subscribers ./test/process ./test/cluster)

loops=()
trap '((${#loops[@]})) && kill "${loops[@]}" 2>/dev/null' EXIT
for ((i = 0; i < busy; i++)); do
	while :; do :; done &
	loops+=($!)
done

log=$(mktemp -t watchword-repeat-XXXXXX.log)
for ((round = 1; round <= count; round++)); do
	for package in "${packages[@]}"; do
		began=$SECONDS
		if ! scripts/test.sh "$package" >"$log" 2>&1; then
			echo "round $round of $count, $busy busy loops: $package failed; its log is $log"
			tail -40 "$log"
			exit 1
		fi
		echo "round $round of $count, $busy busy loops: $package: $(tail -1 "$log"), $((SECONDS - began)) s"
	done
done
rm -f "$log"
echo "$count rounds of ${#packages[@]} packages beside $busy busy loops: no failure"
