// Package stoke reads the users, claim groups and claims of Stoke (github.com/hppr-dev/stoke-auth), an
// authentication server, out of its database. It changes nothing there.
//
// The schema is that of internal/ent/migrate/schema.go, which Stoke applies to SQLite, PostgreSQL and
// MySQL at each start: the tables users, claim_groups, claims, claim_group_users, claim_claim_groups
// and group_links. Two versions of it are read: that of the first releases, whose users have no column
// source, and that since users come from several sources (LOCAL, LDAP and others), in which password
// and salt may be null.
//
// The password of a local user is base64(Argon2id(password, salt, t=2, m=19 MiB, p=1, 64 bytes)), and
// the salt is the text that is stored, not the bytes that it is the base64 of (HashPass in
// internal/usr/utils.go).
package stoke
