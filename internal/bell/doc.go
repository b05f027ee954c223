// Package bell wakes the other replicas when something in the database has changed, so that
// they read it at once. A ring carries nothing that is trusted, and it may be lost, since each
// listener polls as well.
//
// On PostgreSQL, sqlstore rings in the transaction that makes the change (NOTIFY), so that
// commands ring, too, and this package only listens. With Redis it rings and listens
// (PUBLISH, SUBSCRIBE). With neither it is silent.
package bell
