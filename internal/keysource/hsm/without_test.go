//go:build !pkcs11 || !cgo

package hsm

import "testing"

// cmd/watchword's TestBuildWithoutHSM runs it without the tag.
func TestOpenWithoutSupport(t *testing.T) {
	const sentence = "this build has no HSM support: build one with \"make build-hsm\", which needs a C compiler"
	if token, err := Open(t.Context(), Config{}); token != nil || err == nil || err.Error() != sentence {
		t.Errorf("%v, %v", token, err)
	}
	if Supported {
		t.Error("this build says that it supports HSMs")
	}
}
