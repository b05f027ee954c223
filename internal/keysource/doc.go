// Package keysource owns where the private halves of signing keys come from, and how they
// are kept: in the memory of the process, sealed in the store, or by a keeper that never lets
// them out, such as an HSM. A key ring uses a Source and does not know which one it is.
package keysource
