package accesstoken_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// joe is the payload of RFC 7515 appendix A.1 to A.3.
const joe = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"

// TestExamplesOfTheRFCs: RFC 7515 appendix A.2 to A.4, RFC 8037 appendix A.2 and
// A.4. Their keys have no kid and, for RSA, no alg; both are added.
func TestExamplesOfTheRFCs(t *testing.T) {
	for _, c := range []struct{ name, jwk, compact, payload string }{
		{
			"RFC 7515 A.2",
			`{"kty":"RSA","kid":"1","alg":"RS256","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddx` +
				`HmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSH` +
				`SXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8` +
				`NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}`,
			"eyJhbGciOiJSUzI1NiJ9." + joe + ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7" +
				"AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K" +
				"0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrB" +
				"p0igcN_IoypGlUPQGe77Rw",
			"{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}",
		},
		{
			"RFC 7515 A.3",
			`{"kty":"EC","kid":"1","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`,
			"eyJhbGciOiJFUzI1NiJ9." + joe + ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
			"{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}",
		},
		{
			"RFC 7515 A.4",
			`{"kty":"EC","kid":"1","crv":"P-521","x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",` +
				`"y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"}`,
			"eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZq" +
				"wqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn",
			"Payload",
		},
		{
			"RFC 8037 A.4",
			`{"kty":"OKP","kid":"1","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
			"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
			"Example of Ed25519 signing",
		},
	} {
		k, err := accesstoken.ParseJWK([]byte(c.jwk))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		payload, err := k.VerifySignature(c.compact)
		if err != nil || string(payload) != c.payload {
			t.Errorf("%s: %q, %v", c.name, payload, err)
		}
		// The same with one bit of the payload changed.
		header, rest, _ := strings.Cut(c.compact, ".")
		if _, err := k.VerifySignature(header + ".f" + rest[1:]); !errors.Is(err, accesstoken.ErrSignature) {
			t.Errorf("%s, changed: %v", c.name, err)
		}
		// None of them is an access token: no typ.
		if _, err := rules.Check(c.compact, now, func(string) (accesstoken.Key, error) { return k, nil }); !errors.Is(err, accesstoken.ErrType) {
			t.Errorf("%s as an access token: %v", c.name, err)
		}
	}
}

// TestExamplesOfTheRFCsThatAreRefused: RFC 7515 appendix A.1 (HMAC), A.5 (none),
// E (a critical extension).
func TestExamplesOfTheRFCsThatAreRefused(t *testing.T) {
	k := pairs()["ES256"].Key
	for name, c := range map[string]struct {
		compact string
		want    error
	}{
		"A.1": {"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." + joe + ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", accesstoken.ErrAlgorithm},
		"A.5": {"eyJhbGciOiJub25lIn0." + joe + ".", accesstoken.ErrAlgorithm},
		"E": {encode([]byte("{\"alg\":\"none\",\r\n \"crit\":[\"http://example.invalid/UNDEFINED\"],\r\n \"http://example.invalid/UNDEFINED\":true\r\n}")) +
			".RkFJTA.", accesstoken.ErrMalformed},
	} {
		if _, err := k.VerifySignature(c.compact); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestThumbprints: RFC 7638 §3.1 and RFC 8037 appendix A.3.
func TestThumbprints(t *testing.T) {
	for name, c := range map[string]struct{ jwk, want string }{
		"RFC 7638": {`{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",` +
			`"e":"AQAB","alg":"RS256","kid":"2011-04-29"}`, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"},
		"RFC 8037": {`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"1"}`, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"},
	} {
		k, err := accesstoken.ParseJWK([]byte(c.jwk))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := k.Thumbprint(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	if got := (accesstoken.Key{ID: "x", Algorithm: "ES256"}).Thumbprint(); got != "" {
		t.Errorf("a Key without a public key has the thumbprint %q", got)
	}
}
