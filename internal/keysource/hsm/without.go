//go:build !pkcs11 || !cgo

package hsm

import (
	"context"
	"errors"
)

// Supported reports whether this build can use an HSM.
const Supported = false

func open(context.Context, Config) (Token, error) {
	return nil, errors.New("this build has no HSM support: build one with \"make build-hsm\", which needs a C compiler")
}
