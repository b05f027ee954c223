#!/usr/bin/env bash
# Installs the distribution's packages that the tests use and that are missing, and the
# npm packages of test/interop, test/browser and sdk/js and the Python packages of sdk/python by
# their lock files.
# The tests start these servers themselves; none of them runs as a service.
set -euo pipefail
cd "$(dirname "$0")/.."

# other_packages installs what comes from npm and from PyPI, both at the same time.
other_packages() {
	sdk/python/venv.sh >/dev/null &
	local python=$!
	scripts/npm.sh test/interop/stacks sdk/js && wait $python
}

missing=()
while read -r package; do
	[[ -z $package || $package == \#* ]] && continue
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done <.ci/packages.txt
command -v npm >/dev/null || missing+=(npm) # another Node.js than the distribution's brings its own
((${#missing[@]})) || { other_packages; exit; }

echo "installing what the tests need: ${missing[*]}"
as_root=()
((EUID == 0)) || as_root=(sudo)
# A freshly installed server would start at once where there is an init system.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
	printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee $policy >/dev/null
	"${as_root[@]}" chmod +x $policy
	trap '"${as_root[@]}" rm -f $policy' EXIT
fi
log=$(mktemp)
apt() { # somebody else may be installing
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" >>"$log" 2>&1
}
for pause in 5 10 20 40 0; do
	apt update || true # what is known already may be enough
	if apt install -y --no-install-recommends "${missing[@]}"; then
		rm -f "$log"
		other_packages
		exit
	fi
	echo "an attempt failed:"
	tail -5 "$log"
	sleep $pause
done
echo "could not install: ${missing[*]}" >&2
exit 1
