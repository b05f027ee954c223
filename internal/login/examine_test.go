package login

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// examined examines a text as bob, who has some permission, and checks that the answer agrees with
// itself and with Verify.
func examined(t interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}, s *Service, pasted string) Examination {
	t.Helper()
	e, err := s.Examine(context.Background(), atHome(bobID), pasted, Client{})
	if err != nil {
		t.Fatalf("%v", err)
	}
	_, err = s.Verify(context.Background(), strings.TrimSpace(pasted))
	if e.Valid != (err == nil) {
		t.Errorf("%q is valid: %v, and Verify says %v; %+v", pasted, e.Valid, err, e.Findings)
	}
	if fine := !slices.ContainsFunc(e.Findings, func(f Finding) bool { return !f.OK }); e.Valid != fine || len(e.Findings) == 0 || e.Valid && e.Undecided {
		t.Errorf("%q is valid: %v, undecided: %v, with %+v", pasted, e.Valid, e.Undecided, e.Findings)
	}
	for _, f := range e.Findings {
		if f.Text == "" || !strings.HasSuffix(f.Text, ".") && !strings.HasSuffix(f.Text, ")") || !slices.Contains(checks, f.Check) {
			t.Errorf("a finding is %+v", f)
		}
	}
	for _, raw := range []json.RawMessage{e.Header, e.Claims} {
		if raw != nil && !json.Valid(raw) {
			t.Errorf("shown is %q", raw)
		}
	}
	return e
}

// wrongs returns the checks that have found something wrong, each once.
func wrongs(e Examination) []string {
	var all []string
	for _, f := range e.Findings {
		if !f.OK {
			all = append(all, f.Check)
		}
	}
	return slices.Compact(all)
}

// text returns all that the findings of a check say.
func text(e Examination, check string) string {
	var all []string
	for _, f := range e.Findings {
		if f.Check == check {
			all = append(all, f.Text)
		}
	}
	return strings.Join(all, " ")
}

func newExamined(t *testing.T) (*Service, *forge) {
	t.Helper()
	s, p := newService(t)
	p.may[bobID] = directory.LimitsRead
	return s, newForge(t, s)
}

func TestExamineAGoodToken(t *testing.T) {
	s, _ := newExamined(t)
	step, err := s.Begin(t.Context(), Credential{"ada", "right", ""}, "", Client{})
	ok(t, err)
	compact := step.Grant.AccessToken
	e := examined(t, s, compact)
	signer, err := s.Keys.Signer()
	ok(t, err)
	tok, err := s.Verify(t.Context(), compact)
	ok(t, err)
	if !e.Valid || e.Kind != KindAccessToken || e.KeyID != signer.KeyID() || e.Algorithm != "EdDSA" || e.SignedBy != "a" || e.KeyState != "active" ||
		e.TokenID != tok.ID || e.SessionID != tok.SessionID || e.UserID != adaID || e.At.IsZero() {
		t.Errorf("%+v", e)
	}
	if !strings.Contains(string(e.Claims), "\n  \"log\": \"r\"") || !strings.Contains(string(e.Header), `"typ": "at+jwt"`) {
		t.Errorf("%s %s", e.Header, e.Claims)
	}
	var checked []string
	for _, f := range e.Findings {
		checked = append(checked, f.Check)
	}
	if !slices.Equal(checked, checks) {
		t.Errorf("the checks are %v", checked)
	}
	for _, pasted := range []string{" " + compact + "\n", "Bearer " + compact, "Authorization: Bearer " + compact, "authorization:bearer  " + compact + "\r\n"} {
		e, err := s.Examine(t.Context(), atHome(bobID), pasted, Client{})
		if err != nil || !e.Valid || e.UserID != adaID || !strings.Contains(text(e, CheckForm), "left out") {
			t.Errorf("%q: %v, %+v", pasted, err, e)
		}
	}
}

// Each reason for which Verify refuses a token is found, and said.
func TestExamineRefusals(t *testing.T) {
	s, f := newExamined(t)
	now := time.Now()
	good := f.token(nil, nil)
	part := strings.Split(good, ".")
	stranger := newForge(t, &Service{Config: Config{Key: s.Key}})
	stranger.kid = "forge"
	unknown := *f
	unknown.kid = "replica-7-" + strings.Repeat("A", 43)
	past := members{"exp": now.Add(-time.Hour).Unix(), "iat": now.Add(-2 * time.Hour).Unix()}
	raw := func(header string) string { return base64.RawURLEncoding.EncodeToString([]byte(header)) }
	for name, c := range map[string]struct {
		pasted string
		kind   string
		wrong  []string
		says   string
	}{
		"nothing":                   {"  ", KindNothing, []string{CheckForm}, "nothing to examine"},
		"a word":                    {"secret", KindUnknown, []string{CheckForm}, "no dots"},
		"a JWE":                     {"a.b.c.d.e", KindEncrypted, []string{CheckForm}, "JWE"},
		"a long text":               {strings.Repeat("a", 9000), KindUnknown, []string{CheckForm}, "longer than 8192 bytes"},
		"a long token":              {f.token(nil, members{"much": strings.Repeat("x", 9000)}), KindUnknown, []string{CheckForm}, "longer than 8192 bytes"},
		"cut off":                   {good[:len(good)-2], KindAccessToken, []string{CheckSignature}, "was changed, or signed with another key"},
		"without a signature":       {part[0] + "." + part[1] + ".", KindAccessToken, []string{CheckSignature}, "changed"},
		"two parts":                 {part[0] + "." + part[1], KindJWT, []string{CheckForm}, "three parts"},
		"wrapped":                   {good[:60] + "\n" + good[60:], KindJWT, []string{CheckForm}, "white space"},
		"alg none":                  {raw(`{"alg":"none","typ":"at+jwt"}`) + "." + part[1] + ".", KindAccessToken, []string{CheckKey}, `alg is "none"`},
		"alg none with a kid":       {raw(`{"alg":"None","typ":"at+jwt","kid":"forge"}`) + "." + part[1] + "." + part[2], KindAccessToken, []string{CheckKey}, "not accepted"},
		"HS256 with the public key": {f.token(members{"alg": "HS256"}, nil), KindAccessToken, []string{CheckKey}, "not the one of the key"},
		"an unknown key":            {unknown.token(nil, nil), KindAccessToken, []string{CheckKey}, `It was looked up among the keys of this replica and of all others, and among the signing secrets. The database has none of this name, either. By its name, an instance "replica-7" has made it.`},
		"a key without maker":       {f.token(members{"kid": "who"}, nil), KindAccessToken, []string{CheckKey}, "The database has none of this name, either."},
		"no key":                    {f.token(members{"kid": nil}, nil), KindAccessToken, []string{CheckForm}, "does not name its key"},
		"another key":               {stranger.token(nil, nil), KindAccessToken, []string{CheckSignature}, "signed with another key"},
		"other claims":              {part[0] + "." + strings.Split(f.token(nil, members{"sub": bobID}), ".")[1] + "." + part[2], KindAccessToken, []string{CheckSignature}, "was changed"},
		"another type":              {f.token(members{"typ": "JWT"}, nil), KindJWT, []string{CheckForm}, "ID token"},
		"a jwk of its own":          {f.token(members{"jwk": members{}}, nil), KindAccessToken, []string{CheckForm}, `"jwk"`},
		"another issuer":            {f.token(nil, members{"iss": "https://elsewhere.example"}), KindJWT, []string{CheckIssuer}, "elsewhere"},
		"no issuer":                 {f.token(nil, members{"iss": nil}), KindJWT, []string{CheckForm}, "lacks the claim iss"},
		"another audience":          {f.token(nil, members{"aud": "b"}), KindAccessToken, []string{CheckAudience}, `aud is "b"`},
		"expired":                   {f.token(nil, past), KindAccessToken, []string{CheckTimes}, " ago.)"},
		"not yet valid":             {f.token(nil, members{"nbf": now.Add(time.Hour).Unix()}), KindAccessToken, []string{CheckTimes}, "from now"},
		"no times":                  {f.token(nil, members{"exp": nil}), KindAccessToken, []string{CheckForm}, "lacks the claim exp"},
		"much of it":                {f.token(nil, members{"aud": "b", "iss": "x", "exp": 1}), KindJWT, []string{CheckIssuer, CheckAudience, CheckTimes}, ""},
		"claims twice":              {f.sign(`{"alg":"EdDSA","typ":"at+jwt","kid":"forge"}`, `{"sub":"a","sub":"b"}`), KindJWT, []string{CheckForm}, "claims cannot be read"},
		"a foreign JWT":             {raw(`{"alg":"RS256","typ":"JWT","kid":"x"}`) + "." + raw(`{"iss":"https://accounts.example","aud":"me"}`) + ".AAAA", KindJWT, []string{CheckForm, CheckKey, CheckIssuer, CheckAudience}, ""},
	} {
		e := examined(t, s, c.pasted)
		if e.Kind != c.kind || !slices.Equal(wrongs(e), c.wrong) || e.Undecided {
			t.Errorf("%s: a %s, wrong are %v: %+v", name, e.Kind, wrongs(e), e.Findings)
		}
		if all := text(e, c.wrong[0]); !strings.Contains(all, c.says) {
			t.Errorf("%s: it says %q", name, all)
		}
		signed := slices.ContainsFunc(e.Findings, func(f Finding) bool { return f.Check == CheckSignature && f.OK })
		if (e.UserID != "") != (signed && name != "claims twice") || (e.SignedBy+e.TokenID != "") != (e.UserID != "") {
			t.Errorf("%s: signed: %v, and the user is %q", name, signed, e.UserID)
		}
	}
}

// What is revoked is found by everything that revokes it, also if the token has expired.
func TestExamineRevoked(t *testing.T) {
	const sid, jti = "0198c8c4-2f5e-8a63-9f3e-6b1d2f0c9a13", "AAAAAAAAAAAAAAAAAAAAAQ"
	for name, c := range map[string]struct {
		entry store.Revocation
		wrong string
		says  string
	}{
		"the token":             {store.Revocation{Kind: string(revoked.Token), Subject: jti}, CheckRevokedToken, "by its jti"},
		"the session":           {store.Revocation{Kind: string(revoked.Session), Subject: sid}, CheckRevokedSession, "Its session has ended"},
		"the user":              {store.Revocation{Kind: string(revoked.User), Subject: adaID, Epoch: 1<<50 + 1}, CheckRevokedUser, "at some moment"},
		"the user up to a time": {store.Revocation{Kind: string(revoked.User), Subject: adaID, IssuedBefore: time.Now().Add(time.Hour)}, CheckRevokedUser, "issued before a moment"},
		"the key":               {store.Revocation{Kind: string(revoked.Key), Subject: "forge"}, CheckRevokedKey, "everything that it has signed"},
	} {
		t.Run(name, func(t *testing.T) {
			s, f := newExamined(t)
			one := f.token(nil, nil)
			expired := f.token(nil, members{"exp": time.Now().Add(-time.Second).Unix()})
			if e := examined(t, s, one); !e.Valid {
				t.Fatalf("%+v", e)
			}
			c.entry.CreatedAt = time.Now()
			_, err := s.Revocations.Revoke(t.Context(), c.entry)
			ok(t, err)
			e := examined(t, s, one)
			if !slices.Equal(wrongs(e), []string{c.wrong}) || !strings.Contains(text(e, c.wrong), c.says) || e.Undecided {
				t.Errorf("%+v", e.Findings)
			}
			if e := examined(t, s, expired); !slices.Equal(wrongs(e), []string{CheckTimes, c.wrong}) {
				t.Errorf("expired: %+v", e.Findings)
			}
			// Of what no known key has signed, nothing is looked up.
			if e := examined(t, s, one[:len(one)-4]+"AAAA"); c.wrong != CheckRevokedKey && slices.Contains(wrongs(e), c.wrong) {
				t.Errorf("forged: %+v", e.Findings)
			}
			s.Key = func(string) (accesstoken.Key, error) { return accesstoken.Key{}, accesstoken.ErrUnknownKey }
			if e := examined(t, s, one); slices.Contains(wrongs(e), c.wrong) != (c.wrong == CheckRevokedKey) {
				t.Errorf("without the key: %+v", e.Findings)
			}
		})
	}
}

// A replica that cannot tell says so, and not that the token is bad.
func TestExamineUndecided(t *testing.T) {
	s, f := newExamined(t)
	one, expired := f.token(nil, nil), f.token(nil, members{"exp": 1})
	never, err := revocation.NewView(revocation.Config{Store: s.Store, Poll: time.Second, MaxStaleness: time.Minute, Now: time.Now, Logger: s.Logger})
	ok(t, err)
	view := s.View
	s.View = never
	e := examined(t, s, one)
	if !e.Undecided || !slices.Equal(wrongs(e), []string{CheckFreshness}) || !strings.Contains(text(e, CheckFreshness), "never read the log") {
		t.Errorf("a view that has read nothing: %+v", e)
	}
	if e := examined(t, s, expired); e.Undecided {
		t.Errorf("a token that has expired may be good later: %+v", e)
	}
	s.View = view
	s.Key = func(string) (accesstoken.Key, error) { return accesstoken.Key{}, cluster.ErrKeysUnavailable }
	if e := examined(t, s, one); !e.Undecided || !slices.Equal(wrongs(e), []string{CheckKey}) || !strings.Contains(text(e, CheckKey), "neither right nor wrong") {
		t.Errorf("a key that cannot be looked up: %+v", e)
	}
}

// memory is a shared memory that knows one token to be revoked.
type memory struct{ jti string }

func (memory) Tell(context.Context, string, int64, int64, []store.Revocation) error { return nil }

func (m memory) Ask(_ context.Context, t *accesstoken.Token) (revocation.Known, error) {
	return revocation.Known{Revoked: t.ID == m.jti}, nil
}

// With revocation.check shared, what is revoked counts before this replica has read of it.
func TestExamineAsksTheSharedMemory(t *testing.T) {
	s, f := newExamined(t)
	view, err := revocation.NewView(revocation.Config{Store: s.Store, Poll: time.Second, MaxStaleness: time.Minute, Shared: true, Now: time.Now, Logger: s.Logger})
	ok(t, err)
	view.Share(memory{"j"})
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() { defer close(stopped); view.Run(ctx) }()
	defer func() { stop(); <-stopped }()
	s.View = view
	if e := examined(t, s, f.token(nil, members{"jti": "i"})); !e.Valid {
		t.Errorf("%+v", e)
	}
	e := examined(t, s, f.token(nil, members{"jti": "j"}))
	if !slices.Equal(wrongs(e), []string{CheckRevokedToken}) || e.Undecided || !strings.Contains(text(e, CheckRevokedToken), "shared memory") {
		t.Errorf("%+v", e)
	}
}

// Secrets that are no access tokens are recognised, and neither spent nor looked up.
func TestExamineSecrets(t *testing.T) {
	s, _ := newExamined(t)
	step, err := s.Begin(t.Context(), Credential{"ada", "right", ""}, "", Client{})
	ok(t, err)
	refresh := step.Grant.RefreshToken
	raw := slices.Concat(make([]byte, 16), make([]byte, 15), []byte{1}, make([]byte, 32))
	cookie := "wwb_" + base64.RawURLEncoding.EncodeToString(raw)
	s.Sessions, s.Factors = nil, nil // whoever looks something up fails
	for name, c := range map[string]struct {
		pasted, kind, user, session string
	}{
		"a refresh token":        {refresh, KindRefreshToken, adaID, step.Grant.SessionID},
		"a part of it":           {refresh[:len(refresh)-3], KindRefreshToken, "", ""},
		"its prefix":             {session.RefreshPrefix, KindRefreshToken, "", ""},
		"a cookie":               {cookie, KindCookie, "00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000001"},
		"a changed cookie":       {cookie + "!", KindCookie, "", ""},
		"an mfa_token":           {strings.Repeat("A", 43) + "." + adaID, KindOneTime, adaID, ""},
		"one with another owner": {strings.Repeat("A", 43) + ".<b>", KindUnknown, "", ""},
	} {
		e := examined(t, s, c.pasted)
		if e.Kind != c.kind || e.UserID != c.user || e.SessionID != c.session || e.Header != nil || e.Claims != nil {
			t.Errorf("%s: %+v", name, e)
		}
		for _, f := range e.Findings {
			if strings.Contains(f.Text, c.pasted) {
				t.Errorf("%s: it is said again: %s", name, f.Text)
			}
		}
	}
}

// An examination needs a permission of administration, and a token for this API.
func TestWhoExamines(t *testing.T) {
	s, give := newDirected(t)
	good := newForge(t, s).token(nil, nil)
	want := func(by *accesstoken.Token, refused string) {
		t.Helper()
		if e, err := s.Examine(t.Context(), by, good, Client{}); code(err) != refused || (err != nil) != (e.Findings == nil) {
			t.Errorf("%v, want %s: %+v", err, refused, e)
		}
	}
	want(atHome(bobID), "not_an_administrator")
	give(bobID, "log", "all")
	want(atHome(bobID), "not_an_administrator")
	give(bobID, "admin", "audit:read")
	want(atHome(bobID), "")
	want(&accesstoken.Token{Subject: bobID, Issuer: "i", Audience: []string{"a"}}, "wrong_audience")
	change(t, s, bobID, func(u *store.User) { u.Disabled = true })
	if _, err := s.Examine(t.Context(), atHome(bobID), good, Client{}); err == nil {
		t.Error("a disabled user examines tokens")
	}
}

// Nothing in a token can look like something else, or become large when it is shown.
func TestExaminedIsShownPlainly(t *testing.T) {
	s, f := newExamined(t)
	e := examined(t, s, f.sign("{\"alg\":\"x\",\"kid\":\"a\u202eb\"}", "{\"sub\":\"a\u202egnp.exe\u00a0\U000e0041<script>\x7fé\"}"))
	if string(e.Claims) != "{\n  \"sub\": \"a\\u202egnp.exe\\u00a0\\udb40\\udc41<script>\\u007fé\"\n}" || e.KeyID != `"a\u202eb"` {
		t.Errorf("shown is %s, %s", e.Claims, e.KeyID)
	}
	var was, is members
	ok(t, json.Unmarshal(e.Claims, &is))
	ok(t, json.Unmarshal([]byte("{\"sub\":\"a\u202egnp.exe\u00a0\U000e0041<script>\x7fé\"}"), &was))
	if is["sub"] != was["sub"] {
		t.Errorf("%q is shown as %q", was["sub"], is["sub"])
	}
	for _, brackets := range []int{maxBrackets - 1, maxBrackets} { // and one around them
		deep := `{"a":` + strings.Repeat("[", brackets) + strings.Repeat("1,", 2800) + "1" + strings.Repeat("]", brackets) + `}`
		e := examined(t, s, f.sign(`{"alg":"x"}`, deep))
		if lines := strings.Contains(string(e.Claims), "\n"); lines != (brackets < maxBrackets) || len(e.Claims) < len(deep) || len(e.Claims) > 300_000 {
			t.Errorf("%d brackets: %d bytes become %d", brackets, len(deep), len(e.Claims))
		}
	}
}

// Whatever becomes of a token, Examine accepts it exactly if Verify does.
func TestExamineAgreesWithVerify(t *testing.T) {
	s, f := newExamined(t)
	step, err := s.Begin(t.Context(), Credential{"ada", "right", ""}, "", Client{})
	ok(t, err)
	now := time.Now()
	tokens := []string{
		step.Grant.AccessToken, step.Grant.RefreshToken, f.token(nil, nil),
		f.token(nil, members{"exp": now.Add(-time.Second).Unix()}), f.token(nil, members{"jti": "revoked"}),
		f.token(nil, members{"sid": "revoked"}), f.token(nil, members{"sub": "revoked"}), f.token(nil, members{"aud": []string{"b", "a"}}), f.token(nil, members{"sid": nil}),
	}
	for _, kind := range []revoked.Kind{revoked.Token, revoked.Session, revoked.User} {
		entry := store.Revocation{Kind: string(kind), Subject: "revoked"}
		if kind == revoked.User {
			entry.IssuedBefore = now.Add(time.Hour)
		}
		_, err := s.Revocations.Revoke(t.Context(), entry)
		ok(t, err)
	}
	values := []any{nil, "", "a", "b", "i", "revoked", "forge", "EdDSA", "none", "HS256", "at+jwt", "AT+JWT", "application/at+jwt", "JWT", 0, -1, 1.5,
		now.Add(time.Hour).Unix(), now.Add(-time.Hour).Unix(), true, []string{"a"}, []string{"pwd"}, []any{1}, members{"a": 1}, strings.Repeat("x", 6000)}
	header := []string{"alg", "typ", "kid", "crit", "b64"}
	claims := []string{"iss", "aud", "sub", "jti", "sid", "exp", "iat", "iat_exact", "nbf", "epoch", "amr", "acr", "auth_time", "other"}
	seen := map[bool]int{}
	rapid.Check(t, func(t *rapid.T) {
		one := rapid.SampledFrom(tokens).Draw(t, "token")
		if rapid.Bool().Draw(t, "signed anew") {
			change := func(names []string, label string) members {
				m := members{}
				for range rapid.IntRange(0, 2).Draw(t, label+"s") {
					m[rapid.SampledFrom(names).Draw(t, label)] = rapid.SampledFrom(values).Draw(t, "value")
				}
				return m
			}
			one = f.token(change(header, "header"), change(claims, "claim"))
		}
		for range rapid.IntRange(0, 2).Draw(t, "changes") {
			at := rapid.IntRange(0, len(one)).Draw(t, "at")
			switch rapid.IntRange(0, 4).Draw(t, "change") {
			case 0:
				one = one[:at] + one[min(at+1, len(one)):]
			case 1:
				one = one[:at] + string(rapid.SampledFrom([]rune("A.-_=+/ \n\x00é")).Draw(t, "rune")) + one[at:]
			case 2:
				one = one[:at]
			case 3:
				other := rapid.SampledFrom(tokens).Draw(t, "other")
				a, b := strings.Split(one, "."), strings.Split(other, ".")
				i := rapid.IntRange(0, 2).Draw(t, "part")
				if i < len(a) && i < len(b) {
					a[i] = b[i]
				}
				one = strings.Join(a, ".")
			case 4:
				if at < len(one) {
					one = one[:at] + string(rune(one[at]^1)) + one[at+1:]
				}
			}
			if len(one) == 0 {
				break
			}
		}
		seen[examined(t, s, one).Valid]++
	})
	if seen[true] == 0 || seen[false] == 0 {
		t.Errorf("tokens that are valid, and not: %v", seen)
	}
}
