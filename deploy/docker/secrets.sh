#!/bin/sh
# Makes the secrets of compose.yaml in the directory "secrets" beside this file, once. The containers
# run as several users, and Docker gives them the files as they are here: so every user may read the
# files, and only their owner may enter the directory.
set -eu
cd "$(dirname "$0")"
if [ -e secrets ]; then
	echo "secrets/ is there already. With other secrets, the database could not be opened." >&2
	exit 1
fi
umask 077
fresh=$(mktemp -d ./secrets.XXXXXX)
trap 'rm -rf "$fresh"' EXIT

secret() { # NAME VALUE
	printf '%s\n' "$2" >"$fresh/$1"
	chmod 0444 "$fresh/$1"
}
database=$(openssl rand -hex 24)
redis=$(openssl rand -hex 24)
secret postgres_password "$(openssl rand -hex 24)"
secret watchword_password "$database"
secret database_url "postgres://watchword:$database@postgres:5432/watchword?sslmode=disable"
secret redis_conf "requirepass $redis"
secret redis_url "redis://:$redis@redis:6379/0"
secret cluster_secret "$(openssl rand -base64 32)"
secret storage_key "$(openssl rand -base64 32)"

mv "$fresh" secrets
trap - EXIT
echo "Keep a copy of secrets/storage_key apart from the backups of the database: without it, keys and second factors in them are lost."
