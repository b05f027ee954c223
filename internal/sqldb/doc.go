// Package sqldb is the one SQL database of a deployment. It opens what database.url
// names (SQLite, PostgreSQL, MySQL or MariaDB) and owns the schema and its migrations.
// It hides what differs between the three: placeholders, upserts, the kinds of errors,
// and transactions that must run again when the database asks for it.
//
// SQL is written once, portably, with ? for parameters. Times in columns are
// microseconds since 1970, UTC; zero means none. A caller waits for a connection for a
// bounded time and then gets ErrBusy; it never hangs.
package sqldb
