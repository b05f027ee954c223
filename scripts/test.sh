#!/usr/bin/env bash
# Runs every test with the race detector. A test that was skipped is a failure:
# nobody would notice that it does not run. Nothing is taken from the cache: it does not
# know of the processes that tests build and start.
set -uo pipefail
cd "$(dirname "$0")/.."

status=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for module in ${MODULES:-.}; do
	(cd "$module" && "${GO:-go}" test -race -v -count=1 -timeout 15m ./...) 2>&1 | tee -a "$log" | grep --line-buffered -E '^(ok|FAIL|panic:|\?)' | grep --line-buffered -v 'no test files'
	((PIPESTATUS[0] == 0)) || status=1
done
if ((status)); then
	echo
	echo "what failed:"
	grep -E -A 40 '^\s*--- FAIL|^panic:|WARNING: DATA RACE|^FAIL|\[build failed\]|^# ' "$log" | head -400
fi
if grep -E '^\s*--- SKIP' "$log"; then
	echo "these tests were skipped; in this project that is a failure"
	status=1
fi
passed=$(grep -cE '^\s*--- PASS' "$log")
failed=$(grep -cE '^\s*--- FAIL' "$log")
echo "$passed passed, $failed failed"
exit $status
