#!/usr/bin/env bash
# Runs every test with the race detector. A test that was skipped is a failure:
# nobody would notice that it does not run. Nothing is taken from the cache: it does not
# know of the processes that tests build and start.
set -uo pipefail
cd "$(dirname "$0")/.."

# failures shows what each failed test printed, and whatever belongs to no test
# that ended: a panic, a data race in another goroutine, a build that failed.
failures() {
	awk '
		/^=== (RUN|CONT|NAME|PAUSE) / { name = $3; next }
		/^ *--- (PASS|SKIP): /        { delete out[$3]; next }
		/^ *--- FAIL: /               { print; printf "%s", out[$3]; delete out[$3]; next }
		/^FAIL\t/                     { for (t in out) printf "%s", out[t]; print }
		/^(ok  |FAIL|\?   )\t/        { split("", out); name = ""; next }
		/^(PASS|FAIL|testing: warning: no tests to run)$/ { next }
		                              { out[name] = out[name] $0 "\n" }
		END                           { for (t in out) printf "%s", out[t] }' "$1"
}

# shown is what is worth reading while tests run: what became of each package, and the
# lines that a test marks as its summary, such as the seed by which it can be repeated.
shown() {
	grep --line-buffered -E '^(ok|FAIL|panic:|\?)|^ *([a-z_]+\.go:[0-9]+: )?summary: ' |
		grep --line-buffered -v 'no test files' |
		sed -u -E 's/^ *([a-z_]+\.go:[0-9]+: )?summary: /  /'
}

status=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# run tests some packages of the module in a directory.
run() {
	local module=$1
	shift
	(cd "$module" && "${GO:-go}" test -race -v -count=1 -timeout 25m "$@") 2>&1 | tee -a "$log" | shown
	((PIPESTATUS[0] == 0)) || status=1
}

# The faults of a cluster come last and alone: what else the machine does would look
# like one more of them.
for module in ${MODULES:-.}; do
	mapfile -t packages < <(cd "$module" && "${GO:-go}" list ./... | grep -v '/test/cluster$')
	run "$module" "${packages[@]}"
done
run . ./test/cluster
if ((status)); then
	echo
	echo "what failed:"
	failures "$log" | cut -c1-500 | head -1000
fi
if grep -E '^\s*--- SKIP' "$log"; then
	echo "these tests were skipped; in this project that is a failure"
	status=1
fi
passed=$(grep -cE '^\s*--- PASS' "$log")
failed=$(grep -cE '^\s*--- FAIL' "$log")
echo "$passed passed, $failed failed"
exit $status
