// Package memstate keeps shared state in the memory of one process. It is for a
// single node that may forget its sessions at restart, and for tests; a cluster
// is refused it by package config.
//
// Who calls it: app, which makes the state that the configuration names, and tests.
package memstate
