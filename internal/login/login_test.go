package login

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/limit/limittest"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/mfa/mfatest"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// The ids of the users.
const (
	adaID = "0198c8c4-2f5e-7a63-9f3e-6b1d2f0c9a11"
	bobID = "0198c8c4-2f5e-7a63-9f3e-6b1d2f0c9a12"
)

var errDenied = problem.New(problem.Denied, "permission_denied", "no")

// people are users by name, all with the password "right", and the permissions that they
// hold over every user.
type people struct {
	users  map[string]store.User
	claims map[string]string
	may    map[string]string // permission by the actor's id
	store  store.Store       // has the users' epochs
}

// now returns a user with the present epochs.
func (p *people) now(ctx context.Context, u store.User) (store.User, error) {
	stored, err := p.store.User(ctx, u.ID)
	u.Epoch, u.SessionEpoch = stored.Epoch, stored.SessionEpoch
	return u, err
}

func (p *people) Authenticate(ctx context.Context, attempt *limit.Attempt, username, password string) (store.User, error) {
	u := p.users[username]
	accepted, err := attempt.Checked(ctx, u.ID != "" && password == "right", u.ID)
	if err != nil {
		return store.User{}, err
	}
	if !accepted {
		return store.User{ID: u.ID}, directory.ErrInvalidCredentials
	}
	return p.now(ctx, u)
}

func (p *people) ChangeOwnPassword(ctx context.Context, actor directory.Actor, _ int64, current, _ string) (store.User, error) {
	if current != "right" {
		return store.User{}, directory.ErrInvalidCredentials
	}
	return p.store.User(ctx, actor.ID)
}

func (p *people) ClaimsOf(context.Context, string) (map[string]string, error) { return p.claims, nil }

func (p *people) Subject(ctx context.Context, id string) (store.User, map[string]string, error) {
	for _, u := range p.users {
		if u.ID == id {
			u, err := p.now(ctx, u)
			return u, p.claims, err
		}
	}
	return store.User{}, nil, store.ErrNotFound
}

func (p *people) Authorize(_ context.Context, actor directory.Actor, permission string) error {
	if p.may[actor.ID] != permission {
		return errDenied
	}
	return nil
}

func (p *people) AuthorizeOn(ctx context.Context, actor directory.Actor, permission, user string) (store.User, error) {
	if err := p.Authorize(ctx, actor, permission); err != nil {
		return store.User{}, err
	}
	return p.users[user], nil
}

func (p *people) Administration(ctx context.Context, actor directory.Actor) (store.User, directory.Rights, error) {
	if p.may[actor.ID] == "" {
		return store.User{}, directory.Rights{}, errDenied
	}
	user, err := p.store.User(ctx, actor.ID)
	return user, directory.RightsOf([]store.Claim{{ShortName: directory.Admin, Value: p.may[actor.ID]}}), err
}

// An app is a user's authenticator app. Its clock, which is the one that second factors are checked
// by, goes when a test says so.
type app struct {
	t      *testing.T
	secret string
	ahead  *atomic.Int64 // nanoseconds
}

// enrolled has a user of that name enrol an app, which ends the user's sessions.
func enrolled(t *testing.T, s *Service, p *people, name string) *app {
	t.Helper()
	a := &app{t: t, ahead: &atomic.Int64{}}
	s.Factors.Now = a.now
	user, err := p.now(t.Context(), p.users[name])
	if err != nil {
		t.Fatal(err)
	}
	actor := directory.Authenticated(user.ID, "", time.Now())
	begun, err := s.Factors.BeginTOTP(t.Context(), actor)
	if err != nil {
		t.Fatal(err)
	}
	a.secret = begun.Secret
	if _, _, err := s.Factors.ConfirmTOTP(t.Context(), actor, user.SessionEpoch, a.next().Code); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *app) now() time.Time { return time.Now().Add(time.Duration(a.ahead.Load())) }

// next waits for the next code, and returns it.
func (a *app) next() mfa.Answer {
	a.ahead.Add(int64(mfatest.Step))
	return mfa.Answer{Method: mfa.TOTP, Code: mfatest.Code(a.t, a.secret, a.now())}
}

// wrong returns a code that is none of the app's.
func (a *app) wrong() mfa.Answer {
	for i := 0; ; i++ {
		code := fmt.Sprintf("%06d", i)
		if !slices.ContainsFunc([]time.Duration{-2, -1, 0, 1, 2}, func(d time.Duration) bool {
			return mfatest.Code(a.t, a.secret, a.now().Add(d*mfatest.Step)) == code
		}) {
			return mfa.Answer{Method: mfa.TOTP, Code: code}
		}
	}
}

// another returns one more replica.
func another(s *Service) *Service {
	config, factors := s.Config, s.Factors.Config
	config.Registerer, factors.Registerer = prometheus.NewRegistry(), prometheus.NewRegistry()
	config.Factors = mfa.New(factors)
	return New(config)
}

// newService makes a service with the users ada and bob.
func newService(t *testing.T) (*Service, *people) {
	t.Helper()
	db := sqlstore.New(sqldbtest.Open(t))
	quiet := slog.New(slog.DiscardHandler)
	p := &people{users: map[string]store.User{}, claims: map[string]string{"log": "r"}, may: map[string]string{}, store: db}
	for name, id := range map[string]string{"ada": adaID, "bob": bobID} {
		user := store.User{ID: id, Username: name, NameKey: name, CreatedAt: time.Now(), UpdatedAt: time.Now()}
		if err := db.CreateUser(t.Context(), user); err != nil {
			t.Fatal(err)
		}
		p.users[name] = user
	}
	view, err := revocation.NewView(revocation.Config{Store: db, Poll: time.Second, MaxStaleness: time.Minute, Now: time.Now, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if err := view.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() { defer close(stopped); view.Run(ctx) }()
	t.Cleanup(func() { stop(); <-stopped })
	trail, err := audit.New(audit.Config{Store: db, Now: time.Now, Rand: rand.Reader, Logger: quiet, Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := keyring.Open(t.Context(), keyring.Config{
		Source: keysource.Memory{Rand: rand.Reader}, Algorithms: []string{accesstoken.EdDSA}, KeyDuration: time.Hour, TokenDuration: time.Minute, MaxAge: time.Second,
		InstanceID: "a", Store: db, Peers: keyring.Alone{}, Now: time.Now, Logger: quiet, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	records, limits := memstate.New(time.Now), limittest.Unlimited()
	log := &revocation.Log{Store: db, View: view, Now: time.Now, Lifetimes: revocation.Lifetimes{Token: time.Minute, Session: time.Hour}}
	box, err := seal.New(make([]byte, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	return New(Config{
		People: p, Store: db, Keys: keys, Key: keys.Public().Find, View: view, Audit: trail, Limits: limits,
		Factors: mfa.New(mfa.Config{
			Store: db, State: records, Box: box, Limits: limits, Audit: trail, Issuer: "i",
			People: directory.New(directory.Config{
				Store: db, Audit: trail, Revocations: log, Limits: limits, FreshFor: time.Hour, Now: time.Now, Rand: rand.Reader, Logger: quiet,
			}),
			Now: time.Now, Rand: rand.Reader, Logger: quiet, Registerer: prometheus.NewRegistry(),
		}),
		Sessions: session.New(session.Config{
			State: records, TTL: time.Hour, RefreshDuration: time.Hour, RenewGrace: time.Minute, Now: time.Now, Rand: rand.Reader,
		}),
		Revocations: log, SecretKids: func(string) []string { return nil },
		Rules:  accesstoken.Rules{Issuer: "i", Audience: []string{"a"}},
		Issuer: "i", Audience: []string{"a"}, TokenDuration: time.Minute,
		Now: time.Now, Rand: rand.Reader, Logger: quiet, Registerer: prometheus.NewRegistry(),
	}), p
}

func sessionsOf(t *testing.T, s *Service, user string) int {
	t.Helper()
	sessions, _, err := s.Sessions.List(t.Context(), user, "", 100)
	if err != nil {
		t.Fatal(err)
	}
	return len(sessions)
}

// sessionOf returns the session of a token.
func sessionOf(t *accesstoken.Token) session.Session {
	return session.Session{ID: t.SessionID, UserID: t.Subject}
}

// signedIn logs a user in and returns the verified token.
func signedIn(t *testing.T, s *Service, name string) *accesstoken.Token {
	t.Helper()
	step, err := s.Begin(t.Context(), Credential{name, "right", ""}, "", Client{})
	if err != nil || step.Challenge != nil {
		t.Fatalf("%+v, %v", step, err)
	}
	tok, err := s.Verify(t.Context(), step.Grant.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// A password alone logs in a user who has no second factor.
func TestBegin(t *testing.T) {
	s, _ := newService(t)
	if _, err := s.Begin(t.Context(), Credential{"ada", "wrong", ""}, "", Client{}); !errors.Is(err, directory.ErrInvalidCredentials) {
		t.Errorf("a wrong password: %v", err)
	}
	if n := sessionsOf(t, s, adaID); n != 0 {
		t.Errorf("a wrong password leaves %d sessions", n)
	}
	tok := signedIn(t, s, "ada")
	if tok.Subject != adaID || tok.Claim("log") != "r" || tok.Claim("client_id") != "watchword" {
		t.Errorf("the token says %s", tok.Payload())
	}
	if n := sessionsOf(t, s, adaID); n != 1 {
		t.Errorf("there are %d sessions", n)
	}
}

// No session begins for a token that cannot be signed.
func TestNoSessionWithoutToken(t *testing.T) {
	s, p := newService(t)
	p.claims = map[string]string{"much": strings.Repeat("x", accesstoken.DefaultMaxLength)}
	if _, err := s.Begin(t.Context(), Credential{"ada", "right", ""}, "", Client{}); problem.From(err).Code != "claims_too_large" {
		t.Errorf("claims that are too long: %v", err)
	}
	p.claims, s.Rand = nil, failing{}
	if _, err := s.Begin(t.Context(), Credential{"ada", "right", ""}, "", Client{}); err == nil || problem.From(err).Kind != problem.Internal {
		t.Errorf("without randomness: %v", err)
	}
	if n := sessionsOf(t, s, adaID); n != 0 {
		t.Errorf("there are %d sessions", n)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// A user with a second factor gets a challenge and no session; the right answer to it
// completes the login, on another replica too, and once.
func TestChallenge(t *testing.T) {
	s, p := newService(t)
	app := enrolled(t, s, p, "ada")
	step, err := s.Begin(t.Context(), Credential{"ada", "right", ""}, "", Client{})
	if err != nil || step.Challenge == nil || step.Grant != (Grant{}) {
		t.Fatalf("%+v, %v", step, err)
	}
	if n := sessionsOf(t, s, adaID); n != 0 {
		t.Errorf("a challenge leaves %d sessions", n)
	}
	for outcome, want := range map[string]float64{"ok": 0, "challenge": 1} {
		var counted dto.Metric
		if err := s.metrics.total.WithLabelValues("login", outcome).Write(&counted); err != nil || counted.Counter.GetValue() != want {
			t.Errorf("a challenge counts as %v of %s, %v", counted.Counter, outcome, err)
		}
	}
	other := another(s)
	if _, _, err := other.Complete(t.Context(), step.Challenge.Token, app.wrong(), Client{}); !errors.Is(err, mfa.ErrInvalidCode) {
		t.Errorf("a wrong code: %v", err)
	}
	if n := sessionsOf(t, s, adaID); n != 0 {
		t.Errorf("a wrong code leaves %d sessions", n)
	}
	grant, _, err := other.Complete(t.Context(), step.Challenge.Token, app.next(), Client{})
	if err != nil {
		t.Fatal(err)
	}
	if tok, err := s.Verify(t.Context(), grant.AccessToken); err != nil || tok.Subject != adaID {
		t.Errorf("%v, %v", tok, err)
	}
	if n := sessionsOf(t, s, adaID); n != 1 {
		t.Errorf("there are %d sessions", n)
	}
	for _, token := range []string{step.Challenge.Token, "", "challenge", strings.Repeat("A", 43) + "." + adaID} {
		if _, _, err := s.Complete(t.Context(), token, app.next(), Client{}); !errors.Is(err, mfa.ErrInvalidToken) {
			t.Errorf("with the mfa_token %q: %v", token, err)
		}
	}
	if n := sessionsOf(t, s, adaID); n != 1 {
		t.Errorf("there are %d sessions", n)
	}
}

// The use cases themselves decide who may read and end the sessions of a user.
func TestSessionsOfOthers(t *testing.T) {
	s, p := newService(t)
	signedIn(t, s, "ada")
	bob := signedIn(t, s, "bob")
	for _, own := range []string{"", "bob", bobID} {
		if list, _, err := s.ListSessions(t.Context(), bob, own, "", 10, Client{}); err != nil || len(list) != 1 || list[0].UserID != bobID {
			t.Errorf("one's own sessions by %q: %v, %v", own, list, err)
		}
	}
	if list, _, err := s.ListSessions(t.Context(), bob, "ada", "", 10, Client{}); !errors.Is(err, errDenied) {
		t.Errorf("another user's sessions without the right: %v, %v", list, err)
	}
	if err := s.EndAllSessions(t.Context(), bob, "ada", Client{}); !errors.Is(err, errDenied) {
		t.Errorf("ending another user's sessions without the right: %v", err)
	}
	if _, err := s.Revoke(t.Context(), bob, Target{User: "ada"}, Client{}); !errors.Is(err, errDenied) {
		t.Errorf("revoking another user's tokens without the right: %v", err)
	}
	if n := sessionsOf(t, s, adaID); n != 1 {
		t.Errorf("ada has %d sessions", n)
	}
	p.may[bobID] = directory.SessionsRead
	if list, _, err := s.ListSessions(t.Context(), bob, "ada", "", 10, Client{}); err != nil || len(list) != 1 {
		t.Errorf("with the right to read: %v, %v", list, err)
	}
	if err := s.EndAllSessions(t.Context(), bob, "ada", Client{}); !errors.Is(err, errDenied) {
		t.Errorf("the right to read ends sessions: %v", err)
	}
	p.may[bobID] = directory.SessionsWrite
	if err := s.EndAllSessions(t.Context(), bob, "ada", Client{}); err != nil {
		t.Error(err)
	}
	if n := sessionsOf(t, s, adaID); n != 0 {
		t.Errorf("there are %d sessions", n)
	}
}
