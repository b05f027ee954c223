package login

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// likeReal checks a preview against a token that the user has got.
func likeReal(t *testing.T, preview Preview, compact string) {
	t.Helper()
	part := strings.Split(compact, ".")
	var names [2][]string
	var values [2]map[string]any
	for i, raw := range [][]byte{preview.Claims, decoded(t, part[1])} {
		ok(t, json.Unmarshal(raw, &values[i]))
		d := json.NewDecoder(bytes.NewReader(raw))
		for {
			tok, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			ok(t, err)
			if name, isText := tok.(string); isText && values[i][name] != nil {
				names[i] = append(names[i], name)
			}
		}
		for _, own := range []string{"jti", "sid"} { // of the same length
			if text, _ := values[i][own].(string); len(text) != map[string]int{"jti": 22, "sid": 36}[own] {
				t.Errorf("%s is %q", own, text)
			}
			delete(values[i], own)
		}
		for _, moment := range []string{"iat", "iat_exact", "nbf", "exp", "auth_time"} {
			at, present := values[i][moment].(float64)
			if off := time.Since(time.Unix(int64(at), 0)); !present || off.Abs() > 2*time.Minute {
				t.Errorf("%s is %v", moment, values[i][moment])
			}
			delete(values[i], moment)
		}
	}
	if !reflect.DeepEqual(values[0], values[1]) {
		t.Errorf("the preview says %v, the token %v", values[0], values[1])
	}
	if !reflect.DeepEqual(names[0], names[1]) {
		t.Errorf("the order is %v, that of the token %v", names[0], names[1])
	}
	var header bytes.Buffer
	ok(t, json.Compact(&header, preview.Header))
	if got := decoded(t, part[0]); header.String() != string(got) {
		t.Errorf("the header is %s, that of the token %s", &header, got)
	}
	// An Ed25519 signature is shorter than the longest one, for which there must be room.
	if longest := len(compact) - len(part[2]) + 342; preview.Length != longest {
		t.Errorf("the length is %d, want %d", preview.Length, longest)
	}
	if preview.ExpiresIn != time.Minute {
		t.Errorf("it lives for %v", preview.ExpiresIn)
	}
}

func decoded(t *testing.T, part string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(part)
	ok(t, err)
	return b
}

// A preview says what the next token says, in whichever way the user logs in.
func TestPreviewIsTheNextToken(t *testing.T) {
	long := strings.Repeat("x", 250)
	for name, c := range map[string]struct {
		prepare  func(t *testing.T, s *Service, give func(userID, name, value string))
		audience string
		factor   bool
		reduced  bool
		refused  string
	}{
		"a password alone": {},
		"claims": {prepare: func(_ *testing.T, _ *Service, give func(userID, name, value string)) {
			give(bobID, "log", "r")
			give(bobID, "log", "w")
			give(bobID, "admin", "users:read")
		}},
		"an identity": {prepare: func(t *testing.T, s *Service, _ func(userID, name, value string)) {
			change(t, s, bobID, func(u *store.User) { u.Email, u.FirstName, u.LastName = "bob@example.com", "Bob", "<b>,é" })
		}},
		"for the issuer":                  {audience: "i"},
		"for one audience":                {audience: "b"},
		"with a second factor":            {factor: true},
		"a second factor and an audience": {factor: true, audience: "b"},
		"a superuser with too many claims": {reduced: true, prepare: func(_ *testing.T, _ *Service, give func(userID, name, value string)) {
			give(bobID, "admin", "all")
			for _, c := range "abcdefghijklmnopqrstuvwxyzABCDEFGHIJ" {
				give(bobID, "c"+string(c), long)
			}
		}},
		"a user with too many claims": {refused: "claims_too_large", prepare: func(_ *testing.T, _ *Service, give func(userID, name, value string)) {
			for _, c := range "abcdefghijklmnopqrstuvwxyzABCDEFGHIJ" {
				give(bobID, "c"+string(c), long)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s, give := newDirected(t)
			s.Audience, s.Rules.Audience, s.ClockSkew = []string{"a", "b"}, []string{"a", "b", "i"}, 10*time.Second
			s.UserInfo = UserInfo{Username: "preferred_username", FullName: "name", Email: "email"}
			give(adaID, "admin", "all")
			if c.prepare != nil {
				c.prepare(t, s, give)
			}
			var app *app
			if c.factor {
				app = enrolled(t, s, s.People.(directed).people, "bob")
			}
			for range 2 { // before the first login, and after it
				preview, err := s.Preview(t.Context(), atHome(adaID), "bob", c.audience, Client{})
				ok(t, err)
				if preview.Reduced != c.reduced || code(preview.Refused) != c.refused {
					t.Errorf("reduced: %v, refused: %v", preview.Reduced, preview.Refused)
				}
				step, err := s.Begin(t.Context(), Credential{"bob", "right", ""}, c.audience, Client{})
				if c.refused != "" {
					if code(err) != c.refused || preview.Length <= accesstoken.DefaultMaxLength {
						t.Errorf("a login is refused with %v; the preview has %d bytes", err, preview.Length)
					}
					continue
				}
				ok(t, err)
				grant := step.Grant
				if app != nil {
					grant, _, err = s.Complete(t.Context(), step.Challenge.Token, app.next(), Client{})
					ok(t, err)
				}
				likeReal(t, preview, grant.AccessToken)
			}
		})
	}
}

// code returns the code of a problem; "" of none.
func code(err error) string {
	if err == nil {
		return ""
	}
	return problem.From(err).Code
}

// Who gets no token has a preview that says why.
func TestPreviewOfNoToken(t *testing.T) {
	s, give := newDirected(t)
	give(adaID, "admin", "all")
	give(bobID, "log", "r")
	preview := func() Preview {
		t.Helper()
		p, err := s.Preview(t.Context(), atHome(adaID), bobID, "", Client{})
		ok(t, err)
		if !strings.Contains(string(p.Claims), `"log": "r"`) {
			t.Errorf("the claims are %s", p.Claims)
		}
		return p
	}
	if p := preview(); p.Refused != nil {
		t.Error(p.Refused)
	}
	s.Factors.Policy = mfa.Policy{Claims: []directory.Right{{ShortName: "log"}}}
	if p := preview(); code(p.Refused) != "second_factor_required" || !strings.Contains(string(p.Claims), `"acr": "aal2"`) {
		t.Errorf("whom the policy binds: %v, %s", p.Refused, p.Claims)
	}
	s.Factors.Policy = mfa.Policy{Always: true}
	if p := preview(); code(p.Refused) != "second_factor_required" {
		t.Errorf("where the policy binds everybody: %v", p.Refused)
	}
	s.Factors.Box = nil
	if p := preview(); code(p.Refused) != "no_storage_key" {
		t.Errorf("where nobody can enrol: %v", p.Refused)
	}
	s.Factors.Policy = mfa.Policy{}
	change(t, s, bobID, func(u *store.User) { u.PasswordHash = "" })
	if p := preview(); code(p.Refused) != "no_credentials" {
		t.Errorf("without a password: %v", p.Refused)
	}
	change(t, s, bobID, func(u *store.User) { u.Disabled = true })
	if p := preview(); code(p.Refused) != "user_disabled" {
		t.Errorf("disabled: %v", p.Refused)
	}
	for i := range 40 {
		give(bobID, fmt.Sprint("c", i), strings.Repeat("x", 250))
	}
	if p := preview(); code(p.Refused) != "user_disabled" || p.Length <= accesstoken.DefaultMaxLength {
		t.Errorf("disabled, and with too many claims: %v", p.Refused)
	}
}

// A preview needs users:read and all rights of the user.
func TestWhoSeesPreviews(t *testing.T) {
	s, give := newDirected(t)
	by := atHome(adaID)
	for _, c := range []struct {
		by             *accesstoken.Token
		user, audience string
		want           string
		give           []string
	}{
		{by: by, user: "bob", want: "permission_missing"},
		{by: by, user: "bob", want: "permission_missing", give: []string{adaID, "admin", "sessions:read"}},
		{by: by, user: "bob", give: []string{adaID, "admin", "users:read"}},
		{by: by, user: "nobody", want: "user_not_found"},
		{by: by, user: "bob", audience: "elsewhere", want: "invalid_target"},
		{by: &accesstoken.Token{Subject: adaID, Issuer: "i", Audience: []string{"a"}}, user: "bob", want: "wrong_audience"},
		{by: by, user: "bob", want: "beyond_own_rights", give: []string{bobID, "log", "r"}},
		{by: by, user: "bob", give: []string{adaID, "log", "r"}},
	} {
		if c.give != nil {
			give(c.give[0], c.give[1], c.give[2])
		}
		if p, err := s.Preview(t.Context(), c.by, c.user, c.audience, Client{}); code(err) != c.want || (err != nil) != (p.Claims == nil) {
			t.Errorf("%+v: %v, %+v", c, err, p)
		}
	}
	s.Keys = noKeyYet{}
	if _, err := s.Preview(t.Context(), by, "bob", "", Client{}); code(err) != "no_signing_key" {
		t.Errorf("without a key: %v", err)
	}
}

type noKeyYet struct{ Keys }

func (noKeyYet) Signer() (*token.Signer, error) { return nil, keyring.ErrNoSigningKey }

// unsigning is a key that nothing may be signed with.
type unsigning struct {
	t *testing.T
	crypto.Signer
}

func (u unsigning) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	u.t.Error("something was signed")
	return nil, errors.New("no")
}

type otherSigner struct {
	Keys
	signer *token.Signer
}

func (o otherSigner) Signer() (*token.Signer, error) { return o.signer, nil }

// A preview signs nothing, begins no session, leaves the epoch and the audit trail as they are, and takes
// no randomness.
func TestPreviewChangesNothing(t *testing.T) {
	s, give := newDirected(t)
	give(adaID, "admin", "all")
	_, key, err := ed25519.GenerateKey(rand.Reader)
	ok(t, err)
	signer, err := token.NewSigner("k", accesstoken.EdDSA, unsigning{t, key})
	ok(t, err)
	s.Keys, s.Rand = otherSigner{s.Keys, signer}, failing{}
	before, err := s.Store.User(t.Context(), bobID)
	ok(t, err)
	p, err := s.Preview(t.Context(), atHome(adaID), "bob", "", Client{})
	ok(t, err)
	after, err := s.Store.User(t.Context(), bobID)
	ok(t, err)
	var says struct{ Epoch int64 }
	ok(t, json.Unmarshal(p.Claims, &says))
	if before != after || says.Epoch != s.View.Floor() || says.Epoch == after.Epoch {
		t.Errorf("the user was %+v and is %+v, the preview says epoch %d", before, after, says.Epoch)
	}
	if n := sessionsOf(t, s, bobID); n != 0 {
		t.Errorf("there are %d sessions", n)
	}
	if events, err := s.Audit.Events(context.Background(), store.AuditQuery{}); err != nil || len(events) != 0 {
		t.Errorf("the audit trail has %v, %v", events, err)
	}
}
