// Package app is the assembly: a configuration becomes a running replica. It owns the order
// of a start, what runs in the background, and what a running replica takes over of a
// changed configuration.
package app
