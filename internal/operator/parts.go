package operator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/passkey"
	"github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/timing"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// Leeway is by how much the clocks of replicas and resource servers may differ.
const Leeway = timing.Leeway

// Parts are the use cases that need no running replica.
type Parts struct {
	DB          *sqldb.DB // nil: the program brings its own store
	Store       store.Store
	Directory   *directory.Service
	Audit       *audit.Trail
	Limits      *limit.Limiter // nil: without a state, as by the command line until OpenLimits
	Factors     *mfa.Service
	Revocations *revocation.Log
}

// Open opens the database that cfg names, migrates it, and puts the use cases on it.
// What is revoked through these parts is in the log when the call returns; running
// replicas read it at their next poll.
func Open(ctx context.Context, cfg *config.Config, logger *slog.Logger) (_ *Parts, err error) {
	db, err := OpenDatabase(ctx, cfg, logger)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	if err := UpdateSchema(ctx, db, logger); err != nil {
		return nil, err
	}
	records := sqlstore.New(db)
	// Before there is a user, because an installation that has one and no id is of a version
	// that made none.
	if _, err := Installation(ctx, records); err != nil {
		return nil, err
	}
	return Assemble(Assembly{
		Config: cfg, DB: db, Store: records,
		Now: time.Now, Logger: logger, Registerer: prometheus.NewRegistry(),
	})
}

// OpenExisting is Open for commands that only read: a SQLite file that is missing is an
// error and not a new, empty database.
func OpenExisting(ctx context.Context, cfg *config.Config, logger *slog.Logger) (*Parts, error) {
	if err := databaseThere(cfg); err != nil {
		return nil, err
	}
	return Open(ctx, cfg, logger)
}

// Close closes the database.
func (p *Parts) Close() error {
	if p.DB == nil {
		return nil
	}
	return p.DB.Close()
}

// OpenFactors gives Factors what it needs to read and write factors. Other commands need no
// storage key.
func (p *Parts) OpenFactors(ctx context.Context, cfg *config.Config) (err error) {
	p.Factors.Box, err = FactorBox(ctx, cfg, p.Store)
	return err
}

// VerifyAudit looks the whole audit trail through, and reports what was changed since it was
// sealed. Noted is a seal that must still be there; the zero Head: none was noted. It makes no key
// file.
func (p *Parts) VerifyAudit(ctx context.Context, cfg *config.Config, noted audit.Head) (audit.Report, error) {
	open := FactorBox
	if cfg.Storage.Key == "" && cfg.Database.IsSQLite() {
		open = StorageBox
	}
	box, err := open(ctx, cfg, nil)
	if err != nil {
		return audit.Report{}, err
	}
	chain, err := audit.NewChain(audit.ChainConfig{Store: p.Store, Box: box, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	if err != nil {
		return audit.Report{}, err
	}
	return chain.Verify(ctx, noted)
}

// LimitAdministration shows and lifts what Limits counts.
func (p *Parts) LimitAdministration() limit.Administration {
	return limit.Administration{Limits: p.Limits, Audit: p.Audit}
}

// An Assembly is what Parts are made of.
type Assembly struct {
	Config *config.Config
	DB     *sqldb.DB // nil: the program brings its own store
	Store  store.Store
	// View is the revocation view of a replica. Nil: this process has none, and a
	// revocation is in force as soon as the replicas have read the log.
	View *revocation.View
	// State counts attempts; nil: none is made, as by the command line. Replicas returns how
	// many replicas there are.
	State    state.Store
	Replicas func() int
	// Box seals second factors and authenticates the seals of the audit trail; nil: nobody can have
	// a factor, and no seal is made.
	Box *seal.Box
	// OnEnded is called for users whose sessions have ended; nil: not called.
	OnEnded    func(ctx context.Context, userID string) error
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Assemble puts the use cases on a store.
func Assemble(a Assembly) (*Parts, error) {
	chain, err := audit.NewChain(audit.ChainConfig{Store: a.Store, Box: a.Box, Logger: a.Logger, Registerer: a.Registerer})
	if err != nil {
		return nil, err
	}
	trail, err := audit.New(audit.Config{Store: a.Store, Chain: chain, Retention: a.Config.Audit.Retention, Now: a.Now, Rand: rand.Reader, Logger: a.Logger, Registerer: a.Registerer})
	if err != nil {
		return nil, err
	}
	hasher, err := password.New(password.Config{
		Memory: int(a.Config.Password.Memory), Iterations: a.Config.Password.Iterations, Parallelism: a.Config.Password.Parallelism,
		Workers: a.Config.Password.Workers, Queue: a.Config.Password.Queue, Rand: rand.Reader, Now: a.Now, Registerer: a.Registerer,
	})
	if err != nil {
		return nil, err
	}
	var limits *limit.Limiter
	if a.State != nil {
		limits = newLimits(a, trail)
	}
	log := &revocation.Log{Store: a.Store, Now: a.Now, Lifetimes: Lifetimes(a.Config), View: a.View}
	var revoker directory.Revoker = log
	if a.View == nil {
		revoker = appendOnly{log}
	}
	people := directory.New(directory.Config{
		Store: a.Store, State: a.State, Hasher: hasher, Audit: trail, Limits: limits, Revocations: revoker, OnEnded: a.OnEnded,
		FreshFor: a.Config.Admin.FreshFor, Now: a.Now, Rand: rand.Reader, Logger: a.Logger,
	})
	party, err := relyingParty(a.Config, a.Logger)
	if err != nil {
		return nil, err
	}
	return &Parts{
		DB: a.DB, Store: a.Store, Audit: trail, Limits: limits, Revocations: log, Directory: people,
		Factors: mfa.New(mfa.Config{
			Store: a.Store, State: a.State, Box: a.Box, People: people, Limits: limits, Audit: trail,
			Policy: mfaPolicy(a.Config.MFA.Required), Party: party, Issuer: a.Config.AuthenticatorName(), RememberDevice: a.Config.MFA.RememberDevice,
			Now: a.Now, Rand: rand.Reader, Logger: a.Logger, Registerer: a.Registerer,
		}),
	}, nil
}

// relyingParty returns what passkeys are made for; nil: there are none. An error is one of what
// the operator has set: what only follows from other settings may be of no use for passkeys.
func relyingParty(cfg *config.Config, logger *slog.Logger) (*passkey.Party, error) {
	id, origins := cfg.RelyingParty()
	if id == "" {
		return nil, nil
	}
	party, err := passkey.New(passkey.Config{ID: id, Name: cfg.AuthenticatorName(), Origins: origins})
	if err != nil && cfg.MFA.Passkeys.RPID == "" && len(cfg.MFA.Passkeys.Origins) == 0 {
		logger.Debug("there are no passkeys, because browsers would not make any for this service; set mfa.passkeys", "err", err)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("mfa.passkeys: %w", err)
	}
	return party, nil
}

// mfaPolicy returns the policy that is configured.
func mfaPolicy(r config.Required) mfa.Policy {
	p := mfa.Policy{Never: r.Mode == config.RequiredNever, Always: r.Mode == config.RequiredAlways}
	for _, c := range r.Claims {
		p.Claims = append(p.Claims, directory.Right{ShortName: c.Name, Value: c.Value})
	}
	return p
}

// newLimits makes a Limiter over the state of an assembly.
func newLimits(a Assembly, trail *audit.Trail) *limit.Limiter {
	return limit.New(limit.Config{
		State: a.State, Rules: LimitRules(a.Config.Limits), Replicas: a.Replicas,
		Audit: trail, Now: a.Now, Logger: a.Logger, Registerer: a.Registerer,
	})
}

// LimitRules returns the rules that are configured.
func LimitRules(c config.Limits) limit.Rules {
	return limit.Rules{
		Policies: policies(c), Lockout: limit.Lockout(c.Lockout),
		Spray: limit.Spray{After: c.Spray.After, Total: rate(c.Spray.Total)},
		Local: c.OnOutage == config.LimitsLocal,
	}
}

// ceremonies is how many sign-ins by passkey may begin from an address for each second factor that
// may be presented from there: people open sign-in pages, and leave them open.
const ceremonies = 10

// policies returns the rates of each class.
func policies(l config.Limits) map[limit.Class]limit.Policy {
	policy := func(one config.Limit) limit.Policy {
		return limit.Policy{PerAddress: rate(one.PerAddress), PerAccount: rate(one.PerAccount)}
	}
	begun := rate(l.MFA.PerAddress)
	begun.Burst *= ceremonies
	return map[limit.Class]limit.Policy{
		limit.Login: policy(l.Login), limit.MFA: policy(l.MFA), limit.Ceremony: {PerAddress: begun}, limit.Renew: policy(l.Renew), limit.API: policy(l.API), limit.Admin: policy(l.Admin),
	}
}

func rate(r config.Rate) state.Rate { return state.Rate{Burst: r.Count, Period: r.Per} }

// appendOnly is the log of a process without a view: the entry is written, and the
// replicas that tail the log find it.
type appendOnly struct{ *revocation.Log }

func (appendOnly) Settle(context.Context, int64) error { return nil }

// Lifetimes returns how long after its issue a token or a session of this configuration may
// be accepted somewhere.
func Lifetimes(cfg *config.Config) revocation.Lifetimes {
	return revocation.Lifetimes{Token: cfg.Tokens.TokenDuration + Leeway, Session: cfg.Sessions.TTL}
}

// Rules returns the rules by which a token of this deployment is checked, whichever of its
// audiences the token is for. A single replica has one clock and needs no leeway.
func Rules(cfg *config.Config) accesstoken.Rules {
	r := accesstoken.Rules{Issuer: cfg.Tokens.Issuer, Audience: slices.Clone(cfg.Tokens.Audience)}
	if !slices.Contains(r.Audience, r.Issuer) {
		r.Audience = append(r.Audience, r.Issuer)
	}
	if cfg.Cluster.Enabled {
		r.Leeway = Leeway
	}
	return r
}
