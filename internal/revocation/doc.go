// Package revocation is the log of what was taken back, and this replica's live
// view of it: a list in memory that tails the log by sequence number, knows when
// it last confirmed the log's head, and stops trusting itself when that is too
// long ago. It also makes the feed that resource servers follow.
//
// Who calls it: login asks the view on every verification and takes back at
// logout, httpapi serves the feed.
package revocation
