// Package memstate keeps shared state in the memory of one process. It is for a single
// replica that may forget its sessions at a restart, and for tests. Package config refuses
// it for a cluster.
package memstate
