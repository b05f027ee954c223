// Package sqldb is the one SQL database of a deployment: it opens what
// database.url names (SQLite, PostgreSQL, MySQL or MariaDB), owns the schema and
// its migrations, and hides what differs between the three behind a small
// dialect: placeholders, upserts, the kinds of errors, transactions that are
// tried again when the database asks for it.
//
// SQL is written once, portably, with ? for parameters. Times are microseconds
// since 1970 (Micros, Time); zero is "none". A caller waits for a connection a
// bounded time and then gets ErrBusy; it never hangs.
//
// Packages store and state/sqlstate write their SQL on top of it.
package sqldb
