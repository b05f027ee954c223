//go:build !unix

package sqldb

func isReadOnlyFS(error) bool { return false }
