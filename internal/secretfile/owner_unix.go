//go:build unix

package secretfile

import (
	"io/fs"
	"os"
	"syscall"
)

const (
	// openFlags: a link is not followed, and a pipe without a writer is not waited for.
	openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK
	// permissions are those of a mode that mean something.
	permissions fs.FileMode = 0o777
)

// owner returns the user to whom a file belongs.
func owner(info fs.FileInfo) int {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid)
	}
	return -1
}

// ours reports whether a file belongs to the user of this process.
func ours(info fs.FileInfo) bool { return owner(info) == os.Geteuid() }
