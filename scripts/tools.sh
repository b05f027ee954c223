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
export DEBIAN_FRONTEND=noninteractive
for attempt in 1 2 3; do
	if "${as_root[@]}" apt-get update -qq &&
		"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/tmp/watchword-apt.log 2>&1; then
		exit 0
	fi
	echo "attempt $attempt failed:"
	tail -5 /tmp/watchword-apt.log || true
	sleep 5
done
echo "could not install: ${missing[*]}" >&2
exit 1
