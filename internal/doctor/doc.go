// Package doctor has checks of a deployment as values: what can be wrong with the settings, the
// database, Redis, the replicas and what stands before them; what was seen; and how to mend it.
//
// It changes nothing that users have. What it writes to find out something, such as a record that
// another replica has to read, expires within minutes.
package doctor

//go:generate go run ./docgen ../../docs/doctor.md
