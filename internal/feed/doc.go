// Package feed is the public feed of revocations over HTTP: pages, pages that are held back,
// and event streams, all answered from memory. An entry is encoded, and a part of the log
// compressed, once for all readers. What one address may have of a replica is bounded.
package feed
