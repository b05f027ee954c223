// Package poll owns the loop that keeps a replica's knowledge of the shared database up
// to date: it asks every so often, and at once when a bell rings. It logs once that
// asking fails, and once that it works again.
//
// The feed of package verify has a loop of its own: the server sets its pace by long
// polls and streams, and verify imports nothing of internal/.
package poll
