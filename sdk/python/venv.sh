#!/usr/bin/env bash
# Makes the virtual environment in which sdk/python is tested, by requirements.lock, and prints
# the path of its Python. It is made once: its name is a digest of all that it is made of.
set -euo pipefail
cd "$(dirname "$0")"

# The first Python that is new enough and can make virtual environments.
for python in python3 /usr/bin/python3 python3.13 python3.12 python3.11 ''; do
	[[ $python ]] || { echo "there is no Python 3.11 or later with venv (Debian: python3-venv)" >&2; exit 1; }
	"$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
done

exec 9>.venv.lock
flock 9 # several tests may want it at the same time
venv=.venv/$({ cat requirements.lock requirements-least.lock venv.sh; "$python" -c 'import sys; print(sys.version, sys.executable)'; } | sha256sum | cut -c 1-16)
if [[ ! -e $venv/.installed ]]; then
	echo "installing the Python packages of sdk/python" >&2
	rm -rf .venv
	"$python" -m venv "$venv"
	install() {
		"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --only-binary :all: --require-hashes "$@" >&2
	}
	for pause in 5 20 0; do
		install -r requirements.lock && install --target "$venv/least" -r requirements-least.lock && touch "$venv/.installed" && break
		sleep $pause
	done
	[[ -e $venv/.installed ]] || { echo "could not install the Python packages of sdk/python" >&2; exit 1; }
fi
echo "$PWD/$venv/bin/python"
