#!/usr/bin/env bash
# Installs the distribution's packages that the tests use and that are missing, and the
# npm packages of test/interop and test/browser by their lock file.
# The tests start these servers themselves; none of them runs as a service.
set -euo pipefail
cd "$(dirname "$0")/.."

# npm_packages installs nothing if what is there is what the lock file says.
npm_packages() {
	cd test/interop/stacks
	cmp -s package-lock.json node_modules/.installed && return
	echo "installing the npm packages of test/interop"
	for pause in 5 20 0; do
		npm ci --no-update-notifier >/dev/null && cp package-lock.json node_modules/.installed && return
		sleep $pause
	done
	echo "could not install the npm packages of test/interop" >&2
	return 1
}

missing=()
while read -r package; do
	[[ -z $package || $package == \#* ]] && continue
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done <.ci/packages.txt
command -v npm >/dev/null || missing+=(npm) # another Node.js than the distribution's brings its own
((${#missing[@]})) || { npm_packages; exit; }

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
		npm_packages
		exit
	fi
	echo "an attempt failed:"
	tail -5 "$log"
	sleep $pause
done
echo "could not install: ${missing[*]}" >&2
exit 1
