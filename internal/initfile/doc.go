// Package initfile owns the form of an init file: the claims, groups and users that an
// operator wants to be there from the start, in YAML. docs/users.md shows all that it can
// have.
//
// It reads strictly: an unknown key, a key that stands twice or has no value, an alias, a
// tag, and a name or a password that cannot be one is an error with its line. Errors
// repeat no value, which may be a password. What comes of the file is left to the package
// that applies it.
package initfile
