package login

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// directed are people who log in as the others, and whose rights are those in the store.
type directed struct {
	*people
	d *directory.Service
}

func (p directed) Authenticate(ctx context.Context, attempt *limit.Attempt, username, password string) (store.User, error) {
	u, err := p.people.Authenticate(ctx, attempt, username, password)
	if err != nil {
		return u, err
	}
	return p.store.User(ctx, u.ID)
}

func (p directed) ClaimsOf(ctx context.Context, id string) (map[string]string, error) {
	return p.d.ClaimsOf(ctx, id)
}

func (p directed) Subject(ctx context.Context, id string) (store.User, map[string]string, error) {
	return p.d.Subject(ctx, id)
}

func (p directed) Authorize(ctx context.Context, a directory.Actor, permission string) error {
	return p.d.Authorize(ctx, a, permission)
}

func (p directed) AuthorizeOn(ctx context.Context, a directory.Actor, permission, user string) (store.User, error) {
	return p.d.AuthorizeOn(ctx, a, permission, user)
}

func (p directed) Administration(ctx context.Context, a directory.Actor) (store.User, directory.Rights, error) {
	return p.d.Administration(ctx, a)
}

// newDirected makes a service whose users ada and bob have passwords, and the rights that give
// gives them.
func newDirected(t *testing.T) (s *Service, give func(userID, name, value string)) {
	t.Helper()
	s, p := newService(t)
	s.People = directed{p, directory.New(directory.Config{
		Store: s.Store, Audit: s.Audit, Revocations: s.Revocations, Limits: s.Limits, FreshFor: time.Hour,
		Now: time.Now, Rand: rand.Reader, Logger: slog.New(slog.DiscardHandler),
	})}
	for _, id := range []string{adaID, bobID} {
		change(t, s, id, func(u *store.User) { u.PasswordHash = "a hash" })
	}
	n := 0
	return s, func(userID, name, value string) {
		t.Helper()
		n++
		id := fmt.Sprintf("0198c8c4-2f5e-7a63-9f3e-%012d", n)
		ok(t, s.Store.CreateClaim(t.Context(), store.Claim{ID: id, Name: id, NameKey: id, ShortName: name, Value: value}))
		ok(t, s.Store.CreateGroup(t.Context(), store.Group{ID: id, Name: id, NameKey: id}))
		ok(t, s.Store.AddClaim(t.Context(), id, id))
		ok(t, s.Store.AddMember(t.Context(), userID, id))
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// change changes the record of a user.
func change(t *testing.T, s *Service, id string, f func(*store.User)) {
	t.Helper()
	u, err := s.Store.User(t.Context(), id)
	ok(t, err)
	f(&u)
	ok(t, s.Store.UpdateUser(t.Context(), u))
}

// atHome returns a token of a user for this service's own API, as far as use cases look at it.
func atHome(userID string) *accesstoken.Token {
	return &accesstoken.Token{Subject: userID, Issuer: "i", Audience: []string{"i"}, AuthTime: time.Now()}
}

// A forge signs whatever it is told to, with a key that the service knows.
type forge struct {
	t   testing.TB
	kid string
	key ed25519.PrivateKey
}

func newForge(t testing.TB, s *Service) *forge {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := &forge{t: t, kid: "forge", key: key}
	known, find := f.public(), s.Key
	s.Key = func(kid string) (accesstoken.Key, error) {
		if kid == f.kid {
			return known, nil
		}
		return find(kid)
	}
	return f
}

func (f *forge) public() accesstoken.Key {
	k, err := accesstoken.NewKey(f.kid, accesstoken.EdDSA, f.key.Public())
	if err != nil {
		f.t.Fatal(err)
	}
	return k
}

type members = map[string]any

// token returns a good token with other members; one that is nil is left out.
func (f *forge) token(header, claims members) string {
	now := time.Now()
	h := members{"alg": accesstoken.EdDSA, "typ": "at+jwt", "kid": f.kid}
	c := members{
		"iss": "i", "aud": "a", "sub": adaID, "client_id": "watchword", "jti": "AAAAAAAAAAAAAAAAAAAAAQ", "sid": "0198c8c4-2f5e-8a63-9f3e-6b1d2f0c9a13",
		"iat": now.Unix(), "exp": now.Add(time.Minute).Unix(), "epoch": int64(1) << 50,
	}
	for _, p := range []struct{ to, from members }{{h, header}, {c, claims}} {
		for name, v := range p.from {
			if p.to[name] = v; v == nil {
				delete(p.to, name)
			}
		}
	}
	return f.sign(f.json(h), f.json(c))
}

func (f *forge) json(m members) string {
	b, err := json.Marshal(m)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(b)
}

func (f *forge) sign(header, payload string) string {
	input := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	signature, err := f.key.Sign(nil, []byte(input), crypto.Hash(0))
	if err != nil {
		f.t.Fatal(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}
