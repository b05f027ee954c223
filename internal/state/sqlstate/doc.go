// Package sqlstate keeps shared state in the SQL database of the deployment, in the tables
// state_records and state_rates of package sqldb.
//
// A write is a single statement, guarded by the version or the expiry of the row that it
// replaces, so that no transaction stays open between two statements. The clock is the
// database server's. On SQLite, where every process is on one machine, it is the clock
// that New was given.
package sqlstate
