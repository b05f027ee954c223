#!/usr/bin/env bash
# Installs the npm packages of the named directories by their lock files. Where what is there is what
# the lock file says, nothing is done. Of several at a time, one installs and the others wait.
#
# sdk/js needs Node.js 20. Where that of the machine is older, as in Debian 12, npm's package of
# Node.js comes into bin/node, and scripts/test.sh puts it before the other.
set -euo pipefail
cd "$(dirname "$0")/.."

install() {
	exec {lock}<"$1/package-lock.json"
	flock "$lock"
	cmp -s "$1/package-lock.json" "$1/node_modules/.installed" && return
	echo "installing the npm packages of $1"
	for pause in 5 20 0; do
		(cd "$1" && npm ci --no-update-notifier >/dev/null) && cp "$1/package-lock.json" "$1/node_modules/.installed" && return
		sleep $pause
	done
	echo "could not install the npm packages of $1" >&2
	return 1
}

for directory; do install "$directory"; done

if (($(node -p 'parseInt(process.versions.node)') < 20)) && [[ ! -x bin/node/node_modules/.bin/node ]]; then
	echo "installing Node.js 20 for sdk/js"
	npm install --no-update-notifier --prefix bin/node node@20.20.2 >/dev/null
fi
