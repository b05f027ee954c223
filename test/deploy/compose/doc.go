// Package compose tests deploy/docker and deploy/systemd without a container engine and without
// systemd as the first process: it reads the files, and runs as processes what they would run.
//
// In the long form it builds the files of the image twice, and serves from a root directory that
// has nothing else.
package compose
