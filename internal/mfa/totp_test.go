package mfa

import (
	"bytes"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

var rfcSecret = []byte("12345678901234567890")

// RFC 4226, appendix D.
func TestCodesOfRFC4226(t *testing.T) {
	for counter, want := range []string{"755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"} {
		if got := totpCode(rfcSecret, int64(counter)); got != want {
			t.Errorf("counter %d: %s, not %s", counter, got, want)
		}
	}
}

// RFC 6238, appendix B, the rows of SHA-1. They have eight digits; six are the last six.
func TestCodesOfRFC6238(t *testing.T) {
	for _, row := range []struct {
		seconds, step int64
		code          string
	}{
		{59, 0x1, "94287082"},
		{1111111109, 0x23523EC, "07081804"},
		{1111111111, 0x23523ED, "14050471"},
		{1234567890, 0x273EF07, "89005924"},
		{2000000000, 0x3F940AA, "69279037"},
		{20000000000, 0x27BC86AA, "65353130"},
	} {
		now := time.Unix(row.seconds, 0)
		if got := stepAt(now); got != row.step {
			t.Errorf("second %d: step %d, not %d", row.seconds, got, row.step)
		}
		code := row.code[2:]
		if got := totpCode(rfcSecret, row.step); got != code {
			t.Errorf("second %d: %s, not %s", row.seconds, got, code)
		}
		if step, ok := matchTOTP(rfcSecret, code, now); !ok || step != row.step {
			t.Errorf("second %d: %s matches step %d (%t), not %d", row.seconds, code, step, ok, row.step)
		}
	}
}

// oathtool is a second judge of the codes and of the text of a secret.
func TestCodesOfOathtool(t *testing.T) {
	for range 100 {
		secret, err := newSecret(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		// oathtool reads years of four digits.
		seconds, err := rand.Int(rand.Reader, big.NewInt(250_000_000_000))
		if err != nil {
			t.Fatal(err)
		}
		now := time.Unix(seconds.Int64(), 0)
		const periods = 3 // from now on
		out, err := exec.Command("oathtool", "--totp", "--base32", "--digits=6", "--time-step-size=30s",
			fmt.Sprintf("--window=%d", periods-1), "--now="+now.UTC().Format("2006-01-02 15:04:05 UTC"), secretText(secret)).CombinedOutput()
		if err != nil {
			t.Fatalf("oathtool (`make tools` installs it): %v\n%s", err, out)
		}
		var ours []string
		for i := range int64(periods) {
			ours = append(ours, totpCode(secret, stepAt(now)+i))
		}
		if theirs := strings.Fields(string(out)); strings.Join(theirs, " ") != strings.Join(ours, " ") {
			t.Errorf("secret %x at %s: %v, and %v by oathtool", secret, now.UTC(), ours, theirs)
		}
	}
}

func TestMatchTOTP(t *testing.T) {
	now := time.Unix(1111111111, 0)
	current := stepAt(now)
	for drift := int64(-3); drift <= 3; drift++ {
		step, ok := matchTOTP(rfcSecret, totpCode(rfcSecret, current+drift), now)
		if want := drift >= -1 && drift <= 1; ok != want || ok && step != current+drift {
			t.Errorf("a code that is %d steps away matches step %+d: %t", drift, step-current, ok)
		}
	}
	right := totpCode(rfcSecret, current)
	for _, code := range []string{"", right[:5], right + "0", "0" + right, right + "\x00", strings.Repeat("0", 1<<20)} {
		if _, ok := matchTOTP(rfcSecret, code, now); ok {
			t.Errorf("%.20q… is accepted", code)
		}
	}
	if _, ok := matchTOTP([]byte("another secret, of 20"), right, now); ok {
		t.Error("the code of another secret is accepted")
	}
	for _, short := range [][]byte{nil, {}, rfcSecret[:15]} {
		if _, ok := matchTOTP(short, totpCode(short, current), now); ok {
			t.Errorf("a secret of %d bytes has a code", len(short))
		}
	}
}

// Of several steps with one code, the highest is found: otherwise the code would be
// accepted a second time for a later one.
func TestMatchTOTPFindsHighestStep(t *testing.T) {
	for _, pair := range []struct{ first, second int64 }{ // found by trying; the code that they share is checked
		{910737, 910738}, {153567, 153569}, {679858, 679860},
	} {
		code := totpCode(rfcSecret, pair.first)
		if totpCode(rfcSecret, pair.second) != code {
			t.Fatalf("steps %d and %d have different codes", pair.first, pair.second)
		}
		for now := pair.second - 1; now <= pair.first+1; now++ {
			if step, ok := matchTOTP(rfcSecret, code, time.Unix(now*totpPeriod, 0)); !ok || step != pair.second {
				t.Errorf("at step %d, the code of steps %d and %d matches %d (%t)", now, pair.first, pair.second, step, ok)
			}
		}
	}
}

func TestNewSecret(t *testing.T) {
	a, err := newSecret(bytes.NewReader(bytes.Repeat([]byte{7}, 40)))
	if err != nil || !bytes.Equal(a, bytes.Repeat([]byte{7}, 20)) {
		t.Errorf("%x, %v", a, err)
	}
	if s, err := newSecret(bytes.NewReader(make([]byte, 19))); err == nil || s != nil {
		t.Errorf("19 random bytes made the secret %x", s)
	}
	broken := errors.New("no randomness")
	if s, err := newSecret(iotest.ErrReader(broken)); !errors.Is(err, broken) || s != nil {
		t.Errorf("%x, %v", s, err)
	}
}

// The URI is parsed as authenticator apps do it: the path is unescaped, and then split at
// the colon; a "+" may be a space or not.
func TestOTPAuthURI(t *testing.T) {
	for _, names := range []struct{ issuer, account, wantIssuer, wantAccount string }{
		{"Example", "alice", "Example", "alice"},
		{"ACME Co", "john.doe@email.com", "ACME Co", "john.doe@email.com"},
		{"login.example.com:8443", "a:b:c", "login.example.com 8443", "a b c"},
		{"a/b?c#d", "100%+1&secret=AAAA", "a/b?c#d", "100%+1&secret=AAAA"},
		{"Größe & Söhne", "田中 太郎", "Größe & Söhne", "田中 太郎"},
		{"%3A", "%2525", "%3A", "%2525"},
		{`"<script>'`, "\\;,=", `"<script>'`, "\\;,="},
		{"[::1]", "😀", "[  1]", "😀"},
	} {
		secret, err := newSecret(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		uri := otpauthURI(names.issuer, names.account, secret)
		if strings.ContainsAny(uri, "+ \"'<>\\") {
			t.Errorf("%s has a character that apps read differently", uri)
		}
		u, err := url.Parse(uri)
		if err != nil {
			t.Errorf("%s: %v", uri, err)
			continue
		}
		if u.Scheme != "otpauth" || u.Host != "totp" || u.Fragment != "" || u.User != nil {
			t.Errorf("%s is not of the form otpauth://totp/…", uri)
		}
		if label := strings.Split(strings.TrimPrefix(u.Path, "/"), ":"); len(label) != 2 || label[0] != names.wantIssuer || label[1] != names.wantAccount {
			t.Errorf("%s: the label is %q", uri, label)
		}
		query, err := url.ParseQuery(u.RawQuery)
		if err != nil {
			t.Errorf("%s: %v", uri, err)
			continue
		}
		back, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(query.Get("secret"))
		if err != nil || !bytes.Equal(back, secret) {
			t.Errorf("%s: the secret is %x (%v), not %x", uri, back, err, secret)
		}
		query.Del("secret")
		want := url.Values{"issuer": {names.wantIssuer}, "algorithm": {"SHA1"}, "digits": {"6"}, "period": {"30"}}
		if query.Encode() != want.Encode() {
			t.Errorf("%s: the parameters are %v, not %v", uri, query, want)
		}
	}
	// The example of the Key URI Format, with all parameters.
	secret, err := base32.StdEncoding.DecodeString("HXDMVJECJJWSRB3HWIZR4IFUGFTMXBOZ")
	if err != nil {
		t.Fatal(err)
	}
	const want = "otpauth://totp/ACME%20Co:john.doe%40email.com?secret=HXDMVJECJJWSRB3HWIZR4IFUGFTMXBOZ&issuer=ACME%20Co&algorithm=SHA1&digits=6&period=30"
	if got := otpauthURI("ACME Co", "john.doe@email.com", secret); got != want {
		t.Errorf("%s, not %s", got, want)
	}
}
