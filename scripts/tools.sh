#!/usr/bin/env bash
# Installs the distribution's packages that the tests use and that are missing.
# The tests start these servers themselves; none of them runs as a service.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
while read -r package; do
	[[ -z $package || $package == \#* ]] && continue
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done <.ci/packages.txt
((${#missing[@]})) || exit 0

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
		exit 0
	fi
	echo "an attempt failed:"
	tail -5 "$log"
	sleep $pause
done
echo "could not install: ${missing[*]}" >&2
exit 1
