package accesstoken_test

import (
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// FuzzCheck: nothing is accepted that was not signed. The one token that was is
// among the seeds, so that what is made of it by small changes is tried; each
// spelling of it but the one that was signed must be refused. Inspect must say
// the same as Check.
func FuzzCheck(f *testing.F) {
	signed := map[string]bool{}
	for _, alg := range accesstoken.Algorithms() {
		compact := signRaw(f, pairs()[alg], alg, marshal(f, header(alg)), marshal(f, claims()))
		signed[compact] = true
		part := strings.Split(compact, ".")
		for _, seed := range []string{
			compact, compact + "=", compact + ".", compact + "\n", strings.ToLower(compact), part[0] + "." + part[1] + ".",
			encode([]byte(`{"alg":"none"}`)) + "." + part[1] + ".",
			encode([]byte(`{"alg":"HS256","typ":"at+jwt","kid":"`+alg+`"}`)) + "." + part[1] + "." + part[2],
			part[0] + "." + encode([]byte(`{"sub":"root"}`)) + "." + part[2],
			part[0] + "." + part[1] + "." + encode(make([]byte, 64)),
		} {
			f.Add(seed)
		}
	}
	for name, value := range map[string]any{"amr": "otp", "acr": []string{"aal2"}, "scope": "a  b", "auth_time": "now"} {
		f.Add(sign(f, header("ES256"), with(claims(), name, value)))
	}
	f.Add(sign(f, header("ES256"), with(claims(), "amr", []any{"pwd", 1})))
	f.Add("")
	f.Add("..")
	f.Fuzz(func(t *testing.T, compact string) {
		tok, err := rules.Check(compact, now, find)
		if (err == nil) != signed[compact] || (tok == nil) != (err != nil) {
			t.Errorf("%q: %v, %v", compact, tok, err)
		}
		if in := rules.Inspect(compact, now, find); (len(in.Faults) == 0) != (err == nil) {
			t.Errorf("%q: Check says %v, Inspect %v", compact, err, in.Faults)
		}
	})
}

// FuzzParseKeySet: what is read can be written, and comes back the same.
func FuzzParseKeySet(f *testing.F) {
	for _, p := range pairs() {
		f.Add([]byte(`{"keys":[` + marshal(f, p.Key) + `]}`))
	}
	f.Add([]byte(`{"keys":[{"kty":"oct"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := accesstoken.ParseKeySet(data)
		if err != nil {
			return
		}
		back, err := accesstoken.ParseKeySet([]byte(marshal(t, s)))
		if err != nil || marshal(t, back) != marshal(t, s) {
			t.Errorf("%q: read as %s, then as %s, %v", data, marshal(t, s), marshal(t, back), err)
		}
	})
}
