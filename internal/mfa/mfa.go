package mfa

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/passkey"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

// The methods by which a user authenticates besides the password.
const (
	TOTP       = "totp"
	BackupCode = "backup_code"
	Passkey    = "passkey"
)

var (
	// ErrInvalidToken: there is no login that the mfa_token would complete.
	ErrInvalidToken = problem.New(problem.Unauthenticated, "invalid_mfa_token", "this login has ended or was never begun; log in again")
	// ErrInvalidCode: the code is wrong, or attempts at the account wait.
	ErrInvalidCode = problem.New(problem.Unauthenticated, "invalid_code", "the code is wrong")
	// ErrCodeUsed: the code was right, and has been used before.
	ErrCodeUsed = problem.New(problem.Unauthenticated, "code_used", "this code has been used; wait for the next one, or take another backup code")
	// ErrUnknownMethod: the user has no such factor, or there is none of the name.
	ErrUnknownMethod = problem.New(problem.Invalid, "unknown_method", "this account cannot answer by this method; mfa_required lists those it can")
	errNoCredential  = problem.New(problem.Invalid, "invalid_request", `a passkey is presented as "credential": what navigator.credentials returned, as JSON`)

	errAlreadyEnrolled = problem.New(problem.Conflict, "already_enrolled", "this account has such a factor already; remove it first")
	errNothingPending  = problem.New(problem.Conflict, "nothing_pending", "nothing that this would finish has been begun, or that was too long ago; begin again")
	errNoFactor        = problem.New(problem.Conflict, "no_factor", "backup codes are for users who have another factor; enrol one first")
	errNotEnrolled     = problem.New(problem.NotFound, "factor_not_found", "there is no such factor")
	errTooManyPasskeys = problem.New(problem.Conflict, "too_many_passkeys", "an account has at most %d passkeys; remove one first", MaxPasskeys)
	errNoPasskeys      = problem.New(problem.Conflict, "passkeys_off", "passkeys cannot be used here, because this service has no host name that browsers accept for them (mfa.passkeys)")
	errNoStorageKey    = problem.New(problem.Unavailable, "no_storage_key", "second factors need a storage key, and this service has none (storage.key)")
	errUnreadable      = problem.New(problem.Unavailable, "factor_unreadable", "a second factor of this account cannot be read; an administrator can remove it")
)

const (
	// TokenFor is how long a login waits for its second step.
	TokenFor = 5 * time.Minute
	// PendingFor is how long an enrolment waits for its confirmation.
	PendingFor = 10 * time.Minute
	// MaxWrong is how many wrong codes end a login.
	MaxWrong = 5
	// MaxPasskeys bounds the passkeys of one user.
	MaxPasskeys = 20
	// FewCodes is from how few backup codes on users are warned.
	FewCodes = 2
)

// A Policy says who needs a second factor.
type Policy struct {
	Never  bool // nobody is asked for one
	Always bool // everybody is; a user who has none enrols one at the login
	// Claims are the rights whose holders are treated as by Always; an empty value means
	// each value of the name.
	Claims []directory.Right
}

// People is what mfa asks of the directory.
type People interface {
	ClaimsOf(ctx context.Context, userID string) (map[string]string, error)
	User(ctx context.Context, actor directory.Actor, ref string) (store.User, error)
	MayChangeOwn(ctx context.Context, actor directory.Actor) error
	ChangeOwnFactors(ctx context.Context, actor directory.Actor, epoch int64, action string, end bool, f directory.FactorChange) (store.User, error)
	ChangeFactors(ctx context.Context, actor directory.Actor, user, action string, end bool, f directory.FactorChange) error
	Recover(ctx context.Context, userID, address, next string, f directory.FactorChange) error
}

// Auditor records what users do with factors outside of a transaction.
type Auditor interface {
	RecordOwn(ctx context.Context, e store.AuditEvent)
}

// Config is what a Service needs.
type Config struct {
	Store  store.Store
	State  state.Store // nil: for what needs no login, as the command line
	Box    *seal.Box   // nil: there is no storage key, and nobody can have a factor
	People People
	Limits *limit.Limiter // nil with a State that is nil
	Audit  Auditor
	Policy Policy
	Party  *passkey.Party // nil: there are no passkeys
	Issuer string         // as authenticator apps show it
	// RememberDevice is for how long a device needs no second factor again; 0: it always does.
	RememberDevice time.Duration

	Now        func() time.Time
	Rand       io.Reader
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// A Service has the use cases of this package. It may be used by any number of goroutines.
type Service struct {
	Config
	checks *prometheus.CounterVec
}

// New makes a Service.
func New(c Config) *Service {
	s := &Service{Config: c, checks: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "watchword_mfa_checks_total",
		Help: "Second factors that were presented, by method and outcome: ok, or the code of the refusal.",
	}, []string{"method", "outcome"})}
	for _, method := range []string{TOTP, BackupCode, Passkey} {
		s.checks.WithLabelValues(method, "ok")
	}
	c.Registerer.MustRegister(s.checks)
	return s
}

func (s *Service) counted(method string, err error) {
	outcome := "ok"
	if err != nil {
		outcome = problem.From(err).Code
	}
	if !slices.Contains([]string{TOTP, BackupCode, Passkey}, method) {
		method = "unknown"
	}
	s.checks.WithLabelValues(method, outcome).Inc()
}

// must reports whether the policy asks a user for a factor even if the user has none.
func (s *Service) must(ctx context.Context, userID string) (bool, error) {
	if s.Policy.Always || len(s.Policy.Claims) == 0 {
		return s.Policy.Always, nil
	}
	claims, err := s.People.ClaimsOf(ctx, userID)
	return err == nil && s.Policy.binds(claims), err
}

// binds reports whether the policy asks a user with these claims for a factor even if the user has
// none.
func (p Policy) binds(claims map[string]string) bool {
	return p.Always || slices.ContainsFunc(p.Claims, func(r directory.Right) bool {
		values, ok := claims[r.ShortName]
		return ok && (r.Value == "" || slices.Contains(strings.Split(values, ","), r.Value))
	})
}

// Suffices reports whether a session goes on whose user has these claims by now: one that began
// without a second factor does not, if the user must have one. methods are the session's amr.
// remembered says that the session began on a device that was remembered.
func (s *Service) Suffices(methods []string, remembered bool, claims map[string]string) bool {
	return Class(methods) == TwoFactors || remembered && s.RememberDevice > 0 || !s.Policy.binds(claims)
}

// Methods returns the amr (RFC 8176) of a session after an authentication by further methods.
func Methods(before []string, further ...string) []string {
	all := slices.Concat(before, further)
	if slices.Contains(all, "pwd") && slices.ContainsFunc(all, func(m string) bool { return m == "otp" || m == "hwk" || m == "swk" }) {
		all = append(all, "mfa")
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// The classes of authentication, as acr has them.
const (
	OneFactor  = "aal1"
	TwoFactors = "aal2"
)

// Class returns the acr of a session with these methods; empty: they are not known.
func Class(methods []string) string {
	switch {
	case slices.Contains(methods, "mfa"):
		return TwoFactors
	case len(methods) > 0:
		return OneFactor
	}
	return ""
}

// A secret that a client presents names its user, so that its record can be found under them:
// 256 random bits, a dot, and the user's id.
func (s *Service) newToken(userID string) (string, error) {
	var b [32]byte
	if _, err := io.ReadFull(s.Rand, b[:]); err != nil {
		return "", fmt.Errorf("mfa: randomness: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b[:]) + "." + userID, nil
}

// ownerOf returns the user that a token of newToken claims to be of; "": it is none.
func ownerOf(token string) string {
	secret, owner, _ := strings.Cut(token, ".")
	if len(secret) != base64.RawURLEncoding.EncodedLen(32) || len(owner) > 64 || strings.Trim(owner, ownerAlphabet) != "" {
		return ""
	}
	return owner
}

// ownerAlphabet is what the owner of a state.Key is written in.
const ownerAlphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-"

// digest is the id of the record of what a client presents.
func digest(presented string) string {
	sum := sha256.Sum256([]byte(presented))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// unavailable turns an error of a backend into an answer that says no more than that the client can try
// again. An error that is an answer already is returned as it is.
func unavailable(err error) error {
	var p *problem.Error
	if err == nil || errors.As(err, &p) {
		return err
	}
	return problem.New(problem.Unavailable, "storage_unavailable", "the storage does not answer at the moment").Because(err)
}
