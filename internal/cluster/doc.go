// Package cluster owns who the replicas are and everyone's public keys. It writes into
// the registry what the other replicas must know of this one, takes in what they
// write, and merges their keys with this replica's.
//
// What it promises:
//
//   - A key of another replica is taken in only if a MAC under the cluster's secret
//     vouches for it, its kid is its own thumbprint (a key that several replicas sign
//     with) or its maker's instance id and its own thumbprint, and its algorithm is
//     accepted. Writing to the database is not enough to add a key.
//   - A key that was seen revoked is not taken in again, whatever the database says later. A
//     replica that starts asks its peers which keys those are.
//   - Over HTTP a replica speaks for its own keys, those included that it shares. A key
//     with the instance id of another replica is taken in from it only with the key's row
//     of the registry, MAC included.
//   - A key that was taken in stays until the last token that it can have signed has
//     expired, whatever becomes of its maker and of the database, unless it is revoked.
//   - No request waits for the network. The exceptions are a request that names a key
//     which this replica does not know, and one that meets a replica which has slept.
//   - Two live replicas never have one instance id, unless their keys are shared; then the
//     one that came later takes no traffic from the other one's next beat on.
package cluster
