// Package config is the operator's manual: one struct whose comments say what every
// setting means. It is read from one YAML file and the environment, and is strict about
// names and about what cannot work together.
package config

//go:generate go run ./docgen config.go ../../docs/configuration.md
