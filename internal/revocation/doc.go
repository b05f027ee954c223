// Package revocation owns the log of what was revoked, and this replica's live view of
// it: a list in memory that tails the log by sequence number. The view knows when it last
// confirmed the log's head, and answers that it is stale when that is too long ago. The
// package also makes the feed that resource servers follow.
package revocation
