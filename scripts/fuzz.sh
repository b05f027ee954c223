#!/usr/bin/env bash
# Runs every fuzz target: what strangers write (tokens) and what operators write
# (the configuration, the init file) for the given time, what these are made of for
# a sixth of it.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-30}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# fuzz runs one target for a time. On a busy machine Go calls the end of the time
# itself a failure (golang/go#75804), and only once in a while: who found nothing but
# that may run again.
fuzz() {
	for attempt in 1 2 3 4 5; do
		"${GO:-go}" test -run '^$' -fuzz "^$2\$" -fuzztime "$3s" "$1" >"$log" 2>&1 && return
		[ $attempt != 5 ] && only_late || break
		echo "the time ended late, again"
	done
	cat "$log"
	return 1
}

# only_late: the log has that failure, no other, and no input was kept.
only_late() {
	grep -qx '    context deadline exceeded' "$log" &&
		! grep -q 'Failing input written' "$log" &&
		! grep -v '^    context deadline exceeded$' "$log" | grep -q '^ ' &&
		[ -z "$(git ls-files --others --exclude-standard '*/testdata/fuzz/*')" ]
}

for file in $(git ls-files '*_test.go' | xargs grep -l '^func Fuzz'); do
	for target in $(grep -oE '^func Fuzz[A-Za-z0-9_]*' "$file" | awk '{print $2}'); do
		case $target in
		FuzzCheck | FuzzLoad | FuzzInitFile) time=$seconds ;;
		*) time=$((seconds / 6)) ;;
		esac
		echo "fuzz $target ($(dirname "$file")) for $time s"
		fuzz "./$(dirname "$file")" "$target" "$time"
	done
done
