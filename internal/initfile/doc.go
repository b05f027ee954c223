// Package initfile owns the form of an init file: the claims, groups and users that an
// operator wants to be there from the start, in YAML.
//
//	claims:
//	  - {name: Log reader, short_name: log, value: r}
//	groups:
//	  - {name: Support, claims: [Log reader]}
//	users:
//	  - username: alice
//	    password: …               # or password_hash: an Argon2id PHC string
//	    email: alice@example.org  # as first_name and last_name: may be left out
//	    groups: [Support]
//
// It reads strictly: an unknown key, a key that stands twice or has no value, an alias, a
// tag, and a name or a password that cannot be one is an error with its line. Errors
// repeat no value, which may be a password. What comes of the file is left to the package
// that applies it.
package initfile
