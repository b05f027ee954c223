#!/usr/bin/env bash
# Runs the tests of all packages, or of those that are named: in-process tests with the
# race detector, and then those that start processes of their own, without it. With
# WATCHWORD_SOAK=1 every test takes its long form, and these have the race detector, too.
#
# A test that was skipped is a failure: nobody would notice that it does not run. Nothing
# is taken from the cache, which does not know of the processes that tests start. At the
# end stand the ten slowest packages and tests, and those that took longer than their bound. With
# BOUNDS=1 one that took three times its bound is a failure: a busy machine alone should stop nobody.
#
# BESIDE is a command for the time when tests wait for processes and leave half of the machine idle,
# as `make ci` has staticcheck and govulncheck do their work. What it prints comes at the end.
set -uo pipefail
cd "$(dirname "$0")/.."
GOTOOLCHAIN=$(awk '$1 == "toolchain" { print $2 }' go.mod) # as in the Makefile
export GOTOOLCHAIN
PATH=$PWD/bin/node/node_modules/.bin:$PATH # there only where the machine's is too old: scripts/npm.sh

# Packages whose tests start Watchword as processes. They run after the others, and the
# faults of a cluster alone: what else the machine does would look like one more of them.
# The pages in a browser are among them: the race detector was a fifth of what that test did, which
# is mostly Chromium's, and others have it look at the same handlers.
processes='/(cmd/watchword|examples/balancer|test/(pages|process|subscribers|cluster|cluster/cmd/up|deploy/compose|sdk/faults|sdk/fleet))$'

# The flags of the go command: .ci/goflags.race for tests with the race detector, .ci/goflags
# for the others. DWARF is an eighth of the compiler's work, and stack traces do not need it, nor
# the table of symbols, which is a fifth of the linker's.
# The commands of Redis are 8,500 methods of a line or two: to inline them is a quarter of
# the compiler's work on them.
# The race detector need not look at everything. SQLite is C translated to Go, and so are the
# C library and the malloc that it calls: they took two thirds of the processor time of the
# tests that use SQLite. Blowfish, of which bcrypt is made, only computes, and took a quarter of the
# processor time of internal/directory. So does Argon2, half as long again with the detector. The table
# of confusable letters is one function, which never changes anything, and which takes the compiler
# 24 s with the detector and 1.5 s without.
# rueidis sends a read again by another connection when one breaks, and the writer of the broken one may
# still look at the command when it is used anew. What it writes then reaches nobody, and we cannot mend it.
plain=$(<.ci/goflags) raced=$(<.ci/goflags.race)

# At its end a process with the race detector waits a second for the races of goroutines that
# are left: a minute for sixty packages. A tenth of a second is enough to see those.
export GORACE="atexit_sleep_ms=100 ${GORACE:-}"

# A test that chooses at random what happens in a world of its own begins with this seed, and does
# the same each time: rapid's tests, and those that use testenv.Seed. Else it would find, now and then,
# what has long been wrong, and stop a change that has nothing to do with it. To find that is what
# `make soak` is for, where each run begins with a seed of its own. What clients and faults of real
# processes do stays random: their answers come at random moments in any case.
[[ ${WATCHWORD_SOAK:-} ]] || export RAPID_SEED=${RAPID_SEED:-1}

# Where there is room in memory, the databases of tests are there: a test waits for no
# disk. What they prove is that a process may be killed, not that a disk keeps what it has
# acknowledged.
room=$(df --output=avail -k /dev/shm 2>/dev/null | tail -1)
[[ ${TMPDIR:-} || ! -w /dev/shm || ${room:-0} -lt 4000000 ]] || export TMPDIR=/dev/shm

# The bounds in seconds. Exceptions, each with its reason, stand in .ci/slow.txt.
package_bound=90
test_bound=20

# longest_first sorts packages: those of .ci/slow.txt come first, the slowest at the top. The go
# command begins with what it is given first, and no processor waits at the end for a long one.
longest_first() {
	awk '
		FNR == NR { if ($0 !~ /^(#|$)/) bound[$1] = $2; next }
		{ name = $0; sub(/^github.com\/watchword-auth\/watchword\/?/, "", name); print bound[name] + 0, $0 }' .ci/slow.txt - |
		sort -s -k1,1nr | cut -d ' ' -f 2
}

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

# times are the seconds of each package and each test of a log, slowest first: seconds,
# "package" or "test", name.
times() {
	awk -F '[ \t]+' '
		/^--- (PASS|FAIL): / { gsub(/[()s]/, "", $4); tests[++n] = $4 " test " $3 }
		/^(ok|FAIL)[ \t]+[^ \t]+[ \t]+[0-9.]+s/ {
			name = $2; sub(/^github.com\/watchword-auth\/watchword\/?/, "", name); sub(/^$/, ".", name)
			seconds = $3; sub(/s$/, "", seconds)
			print seconds " package " name
			for (i = 1; i <= n; i++) { split(tests[i], t, " "); print t[1] " test " name "." t[3] }
			n = 0
		}' "$1" | sort -rn
}

# over prints those lines of times that are over so many times their bound.
over() {
	awk -v factor="$1" -v package="$package_bound" -v test="$test_bound" '
		FNR == NR { if ($0 !~ /^(#|$)/) allowed[$1] = $2; next }
		{ bound = $2 == "package" ? package : test }
		$3 in allowed { bound = allowed[$3] }
		$1 > factor * bound { printf "  %s took %s s; its bound is %s s\n", $3, $1, bound }' .ci/slow.txt -
}

status=0
scratch=$(mktemp -d)
preparing='' beside='' # processes that run meanwhile
trap 'kill $preparing $beside 2>/dev/null; rm -rf "$scratch"' EXIT
log=$scratch/log
touch "$log"

# What packages build in the same way is built once (internal/testenv, Build). The user
# nobody runs it, too.
export TESTENV_BUILDS=$scratch/builds
mkdir "$TESTENV_BUILDS"
chmod 755 "$scratch" "$TESTENV_BUILDS"

# idle becomes a command that gets only what no test wants of the processors: whatever else
# wants to run comes first, at once (SCHED_IDLE in sched(7)).
idle() {
	chrt --idle 0 true 2>/dev/null && exec chrt --idle 0 "$@"
	exec nice -n 19 "$@"
}

# run tests some packages of the module in a directory, with flags.
run() {
	local module=$1 flags=$2
	shift 2
	(cd "$module" && GOFLAGS="${GOFLAGS:-} $flags" "${GO:-go}" test -v -count=1 -vet=off -timeout 60m "$@") 2>&1 | tee -a "$log" | shown
	((PIPESTATUS[0] == 0)) || status=1
}

packages=("${@:-./...}")
modules=(${MODULES:-.})
(($# == 0)) || modules=(.) # packages that are named are those of the first module
mapfile -t outside < <("${GO:-go}" list "${packages[@]}" | grep -E "$processes" | longest_first)
mapfile -t few < <(printf '%s\n' "${outside[@]}" | grep -v '/test/cluster$')
flags=$plain
[[ ${WATCHWORD_SOAK:-} ]] && flags=$raced

# Tests inside wait for much. Meanwhile the compiler prepares what those outside need, all of
# it without the race detector. Nothing is linked, which the go command would do once more.
if ((${#outside[@]})) && [[ ! ${WATCHWORD_SOAK:-} ]]; then
	(export GOGC=400 GOFLAGS="${GOFLAGS:-} $flags" && idle "${GO:-go}" list -export -test "${outside[@]}") >"$scratch/prepared" 2>&1 &
	preparing=$!
fi

for module in "${modules[@]}"; do
	mapfile -t inside < <((cd "$module" && "${GO:-go}" list "${packages[@]}") | grep -vE "$processes" | longest_first)
	# Collecting garbage is a seventh of what tests of whole replicas do.
	((${#inside[@]})) && GOGC=400 run "$module" "$raced" "${inside[@]}"
done
[[ $preparing ]] && wait "$preparing" # what does not build, run tells
if [[ ${BESIDE:-} ]]; then
	idle bash -c "$BESIDE" >"$scratch/beside" 2>&1 &
	beside=$!
fi
((${#few[@]})) && [[ ${few[0]} ]] && run . "$flags" "${few[@]}"
[[ " ${outside[*]} " == *"/test/cluster "* ]] && run . "$flags" ./test/cluster
if [[ $beside ]]; then
	wait "$beside" || status=1
	cat "$scratch/beside"
fi

if ((status)); then
	echo
	echo "what failed:"
	failures "$log" | cut -c1-500 | head -1000
fi
if grep -E '^\s*--- SKIP' "$log"; then
	echo "these tests were skipped; in this project that is a failure"
	status=1
fi
echo "the slowest, in seconds:"
times "$log" | awk '{ if (++n[$2] <= 10) print "  " $1 " " $3 }'
if times "$log" | over 1 | grep .; then
	echo "these took longer than their bound, on this machine at this time"
fi
if [[ ${BOUNDS:-} ]] && times "$log" | over 3 | grep .; then
	echo "these took more than three times their bound; in this project that is a failure"
	status=1
fi
passed=$(grep -cE '^\s*--- PASS' "$log")
failed=$(grep -cE '^\s*--- FAIL' "$log")
echo "$passed passed, $failed failed"
exit $status
