// Package seal encrypts what is kept at rest (private signing keys, backups) with
// AES-256-GCM under a storage key. A sealed value names the key it was sealed with,
// so that the storage key can be changed while replicas run, and is bound to its
// place, so that a value moved to another row does not open.
package seal
