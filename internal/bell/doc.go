// Package bell tells the other replicas that something in the database has changed, so
// that they read it at once. A ring carries nothing that is trusted, and may be lost: all
// that listen also poll.
//
// On PostgreSQL, sqlstore rings in the transaction that makes the change (NOTIFY), so that
// the command line rings, too; this package only listens. With Redis it rings and listens
// (PUBLISH, SUBSCRIBE). With neither it is silent.
package bell
