//go:build !linux

package doctor

import "errors"

// diskOf is known on Linux alone.
func diskOf(string) (disk, error) {
	return disk{}, errors.ErrUnsupported
}
