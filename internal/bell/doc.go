// Package bell tells the other replicas that there is news: "look now", and where.
// It carries nothing that anybody trusts, and a ring may be lost; who listens also
// looks from time to time.
//
// On PostgreSQL, sqlstore rings in the transaction that makes the news (NOTIFY), so
// that the command line does, too, and this package only listens. With Redis it
// rings and listens (PUBLISH, SUBSCRIBE). With neither it is silent.
//
// Who calls it: app, for cluster and revocation.
package bell
