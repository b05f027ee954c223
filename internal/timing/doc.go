// Package timing is the table of all fixed times that the promises about keys and
// revocations rest on. Its test holds the inequalities between them;
// docs/design/key-timing.md explains them.
//
// A time belongs here if another one must be longer or shorter than it. A time-out that
// only bounds one call belongs to the package that makes the call.
package timing
