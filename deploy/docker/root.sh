#!/bin/sh
# Lays out the files of an image in a directory: the binary, what came of `make sbom`, and the
# certificate authorities of this machine. Makes /data, which is empty. All have the time
# SOURCE_DATE_EPOCH.
set -eu
root=$1
data=${2:-/data}
mkdir -p "$data"
install -D -m 0755 bin/watchword "$root/watchword"
install -D -m 0644 bin/watchword.cdx.json "$root/usr/share/sbom/watchword.cdx.json"
install -D -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
find "$root" "$data" -exec touch -h -d "@${SOURCE_DATE_EPOCH:-0}" {} +
