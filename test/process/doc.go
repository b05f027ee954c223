// Package process tests the watchword command as a real process: what it says at
// its first start, what survives kill -9, how it drains, how it fails.
package process
