#!/bin/sh
# Fetches Watchword's public keys for HAProxy's jwt_verify, and has HAProxy read them if they
# have changed. Needs curl, jq and flock. Run it every five minutes: README.md says how.
#
#   watchword-keys.sh URL DIRECTORY COMMAND...
#   watchword-keys.sh https://auth.example.com /etc/haproxy/watchword systemctl reload haproxy
#
# The DIRECTORY has each key as KID.watchword.pem, keys.map, which has the algorithm and the file
# of each kid, and keys.cfg, a part of the configuration that names the files: HAProxy reads no
# others. Files of other names are left alone. If something fails before COMMAND, everything stays as it is.
set -eu
umask 022
url=$1 dir=$2
shift 2

# A slow run would bring back a key that the next one has removed.
exec 9< "$dir"
flock -n 9 || { echo "$0: another run has not ended" >&2; exit 1; }
new=$(mktemp -d "$dir/new.XXXXXX")
trap 'rm -rf "$new"' EXIT
get() { curl -fsS --max-time 10 --max-filesize 1048576 "$1"; }

get "$url/api/pkeys" > "$new/set"
# HAProxy knows no EdDSA, and 2.6 no PS256: with such a line it would not start.
# Only a kid that is the name of a file and one word of the configuration is taken.
jq -r '.keys[] | select(.alg | IN("ES256", "ES384", "ES512", "RS256")) |
	select(.kid | type == "string" and test("\\A[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}\\z")) | .kid + " " + .alg' "$new/set" > "$new/list"
{
	echo "# Made by watchword-keys.sh. Nothing uses this backend; it has HAProxy read the files."
	echo "backend watchword-keys"
	echo "	mode http"
} > "$new/keys.cfg"
: > "$new/keys.map"
while read -r kid alg; do
	get "$url/api/pkeys/$kid.pem" > "$new/$kid.watchword.pem"
	grep -q '^-----BEGIN PUBLIC KEY-----$' "$new/$kid.watchword.pem"
	echo "$kid $alg $dir/$kid.watchword.pem" >> "$new/keys.map"
	echo "	http-request set-var(txn.none) str(x),jwt_verify($alg,\"$dir/$kid.watchword.pem\")" >> "$new/keys.cfg"
done < "$new/list"
if [ ! -s "$new/keys.map" ]; then
	echo "$0: $url has no key that HAProxy can use" >&2
	exit 1
fi

# The file changed is there until HAProxy has read what is new, also if that fails this time.
cmp -s "$new/keys.map" "$dir/keys.map" && cmp -s "$new/keys.cfg" "$dir/keys.cfg" || : > "$dir/changed"
[ -e "$dir/changed" ] || exit 0
mv "$new"/*.watchword.pem "$new/keys.map" "$new/keys.cfg" "$dir"
"$@" 9<&-
rm "$dir/changed"
for file in "$dir"/*.watchword.pem; do
	grep -qF " $file" "$dir/keys.map" || rm -- "$file"
done
