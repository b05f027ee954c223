// Package config is the operator's manual: one struct whose comments say what
// every setting means, read from one YAML file and the environment, strict about
// names and about what cannot work together.
//
// Who calls it: cmd/watchword and the public package watchword, which load it; app,
// which makes a node of it; directory, for the bounds of a password hash.
package config

//go:generate go run ./docgen config.go ../../docs/configuration.md
