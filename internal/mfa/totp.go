package mfa

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"
)

// What every authenticator app can do (RFC 6238): SHA-1, six digits, 30 seconds. Several
// apps ignore other values in the URI, and then show codes that are wrong.
const (
	totpDigits    = 6
	totpPeriod    = 30 // seconds
	secretLength  = 20 // bytes, as many as SHA-1 returns (RFC 4226 §4, R6)
	minimumSecret = 16 // bytes (RFC 4226 §4, R6)
)

// newSecret makes the secret that the server and an authenticator app share.
func newSecret(random io.Reader) ([]byte, error) {
	secret := make([]byte, secretLength)
	if _, err := io.ReadFull(random, secret); err != nil {
		return nil, fmt.Errorf("reading random bytes for a secret: %w", err)
	}
	return secret, nil
}

// stepAt returns the number of whole periods between 1970 and t.
func stepAt(t time.Time) int64 { return t.Unix() / totpPeriod }

// totpCode returns the code of a step (RFC 4226 §5.3).
func totpCode(secret []byte, step int64) string {
	mac := hmac.New(sha1.New, secret)
	_ = binary.Write(mac, binary.BigEndian, step) // a hash returns no error
	sum := mac.Sum(nil)
	offset := sum[len(sum)-1] & 0x0f
	number := binary.BigEndian.Uint32(sum[offset:]) & 0x7fff_ffff
	return fmt.Sprintf("%0*d", totpDigits, number%1_000_000)
}

// matchTOTP returns the step that a code belongs to, and reports whether there is one: the
// step of now, the one before, or the one after, for clocks that differ. If several have
// this code, the highest is the right one: the caller refuses each step up to the last one
// that was accepted, so after the highest this code is not accepted again.
//
// How long it takes does not depend on the code, nor on which step matches. A secret that is
// too short (a record that is damaged) has no code, because anyone can calculate those of an
// empty one.
func matchTOTP(secret []byte, code string, now time.Time) (step int64, ok bool) {
	if len(secret) < minimumSecret {
		return 0, false
	}
	middle, found := stepAt(now), 0
	drift := 0
	for d := -1; d <= 1; d++ {
		equal := subtle.ConstantTimeCompare([]byte(totpCode(secret, middle+int64(d))), []byte(code))
		drift = subtle.ConstantTimeSelect(equal, d, drift)
		found |= equal
	}
	return middle + int64(drift), found == 1
}

// secretText returns the secret as people type it and apps read it: base32 without padding.
func secretText(secret []byte) string {
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret)
}

// otpauthURI returns the URI by which an authenticator app takes over a secret, in the Key
// URI Format of Google Authenticator: otpauth://totp/ISSUER:ACCOUNT?secret=…&issuer=ISSUER.
//
// Apps unescape the label before they split it at the colon, and some take it for a bare
// account name when it has two. So colons in the two names become spaces. All else is
// escaped, spaces as %20: apps differ in whether "+" is a space.
func otpauthURI(issuer, account string, secret []byte) string {
	escape := func(name string) string {
		return strings.ReplaceAll(url.QueryEscape(strings.ReplaceAll(name, ":", " ")), "+", "%20")
	}
	return fmt.Sprintf("otpauth://totp/%s:%s?secret=%s&issuer=%s&algorithm=SHA1&digits=%d&period=%d",
		escape(issuer), escape(account), secretText(secret), escape(issuer), totpDigits, totpPeriod)
}
