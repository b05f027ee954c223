// Package sqlstate keeps shared state in the SQL database of the deployment, in
// the tables state_records and state_rates of package sqldb.
//
// Writes are single statements, guarded by the version or the expiry that they
// replace, so that no transaction is held open between two of them. The clock is
// the database server's; on SQLite, where every process is on one machine, it is
// the one that New was given.
//
// Who calls it: app, which makes the state that the configuration names, and tiered
// through the interface of package state.
package sqlstate
