package verify_test

import (
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/verifytest"
)

// Of a token there is one text: also one whose token is known gets no further with another.
func TestATokenHasOneText(t *testing.T) {
	issuer := verifytest.New(t)
	v, err := verify.New(issuer.Config())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for range 8 {
		token := issuer.Token("u", nil)
		if _, err := v.Verify(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		at := strings.LastIndexByte(token, '.') + 1
		signature, err := base64.RawURLEncoding.DecodeString(token[at:])
		if err != nil {
			t.Fatal(err)
		}
		s := signature[32:]
		new(big.Int).Sub(elliptic.P256().Params().N, new(big.Int).SetBytes(s)).FillBytes(s)
		other := token[:at] + base64.RawURLEncoding.EncodeToString(signature)
		if _, err := v.Verify(t.Context(), other); !errors.Is(err, accesstoken.ErrMalformed) {
			t.Errorf("with the signature (r, n−s): %v", err)
		}
	}
}
