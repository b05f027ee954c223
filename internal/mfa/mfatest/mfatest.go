// Package mfatest answers second factors in tests, as an authenticator app does. It shares no code
// with package mfa, so that it judges it.
package mfatest

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"testing"
	"time"
)

// Step is how long a code lives.
const Step = 30 * time.Second

// Code returns the code of a secret, which is in base32 as the API shows it, at a time (RFC 6238).
func Code(t testing.TB, secret string, at time.Time) string {
	t.Helper()
	key, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(secret)
	if err != nil {
		t.Fatalf("the secret %q: %v", secret, err)
	}
	mac := hmac.New(sha1.New, key)
	_ = binary.Write(mac, binary.BigEndian, at.Unix()/int64(Step/time.Second))
	sum := mac.Sum(nil)
	part := sum[sum[len(sum)-1]&15:]
	return fmt.Sprintf("%06d", (binary.BigEndian.Uint32(part)&0x7fffffff)%1000000)
}
