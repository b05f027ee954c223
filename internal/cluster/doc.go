// Package cluster owns who the replicas are and everyone's public keys: it says of
// this replica what the others must know, takes in what they say, and merges their
// keys with its own.
//
// What it promises:
//
//   - A key of another replica is taken in only if it is vouched for by a MAC under
//     the cluster's secret, is named after its maker and its own thumbprint, and
//     has an accepted algorithm. Who can write the database cannot add a key.
//   - A key that was taken in stays until the last token that it can have signed
//     has expired, whatever becomes of its maker and of the database, unless it is
//     taken back.
//   - No request waits for the network, except one that names a key which nobody
//     here has heard of, and one that meets a replica which has slept.
//   - Two live replicas never have one instance id.
//
// Who calls it: keyring asks whether everybody has a key before it signs with it,
// login finds the key of a token here, httpapi serves the merged set.
package cluster
