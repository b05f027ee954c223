// Package testenv starts the real servers that tests need (PostgreSQL, MariaDB,
// Redis…) on free ports and in temporary directories, and stops them whatever
// happens to the test. It never touches a server that runs on the machine.
//
// Postgres, MariaDB and Redis give an empty database each on a server that all
// tests of the process share. A test that stops, pauses or configures its server
// starts one of its own with StartPostgres, StartPostgresPair, StartMariaDB,
// StartRedis, RedisCluster, RedisSentinel or PgBouncer. HAProxy stands in front of
// servers of the test's own, StartProxy starts a reverse proxy, and a Link is the
// network between two parts, which may be broken.
//
// The servers are Debian's packages (.ci/packages.txt; `make tools` installs
// them). As root they run as the user nobody. Data is not synced to the disk: it
// survives the death of a server, not of the machine. The empty data directories of
// PostgreSQL and MariaDB are copies of templates that stay in the directory for temporary
// files, as watchword-template-*, and may be removed when no test runs.
package testenv
