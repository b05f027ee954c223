package verify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/known"
)

// DefaultMaxStaleness is the default of Config.MaxStaleness. It is twice what a replica of
// the server allows itself, so that the restart of one, or the loss of a connection, goes
// unnoticed.
const DefaultMaxStaleness = 10 * time.Second

// minMaxStaleness is the least Config.MaxStaleness.
const minMaxStaleness = 3 * time.Second

// DefaultCacheSize is the default of Config.CacheSize.
const DefaultCacheSize = 4096

// MaxLeeway bounds Config.Leeway. A revocation is forgotten some minutes after its tokens
// have expired; a token that was accepted for longer would be valid again.
const MaxLeeway = clockSkew / 2

// Config says which tokens a Verifier accepts, and how it fetches what it needs. Issuer is
// required.
type Config struct {
	// Issuer is what the tokens' iss must be, exactly: the public URL of the
	// Watchword cluster.
	Issuer string
	// Audience are the values of which a token's aud must have one. By default it is the
	// Issuer, which is also the default of the server's tokens.audience. A token for any of
	// them is good for every route. Services that are not to accept each other's tokens have a
	// Verifier each, also within one program.
	Audience []string

	// Resource is the URL under which clients reach this resource server (RFC 9728 §1.2), such
	// as https://ships.example/api. It uses https and has no fragment. With it, Metadata tells
	// clients which issuer they need, and every challenge tells them where that is said. A
	// client then asks the issuer for a token for this Resource (RFC 8707), so it should be one
	// of the Audience. A strict client compares it with the URL of its request (RFC 9728 §3.3).
	// Empty: there are no metadata.
	Resource string
	// ResourceName is the resource's name for people, and ScopesSupported are scopes that
	// requests to it need. Both are for the metadata, and may be left out.
	ResourceName    string
	ScopesSupported []string

	// KeySetURL is where the public keys are; by default Issuer/.well-known/jwks.json.
	// An attacker who can change its answers can pass as any user, so use https.
	KeySetURL string
	// Secrets are for a deployment that signs with a shared secret (HS256, HS384, HS512): the
	// secrets themselves, of at least 32, 48 or 64 bytes, as the replicas have them. Several
	// are accepted at a time, so that the secret can be changed: give the new one and the
	// former one before the replicas get the new one. Tokens of public keys are accepted all
	// the same.
	//
	// With the secret a resource server can issue tokens as any user, with any rights, for
	// every other service; so can an attacker who reads its configuration or its memory. With
	// public keys it could only verify. Prefer those, unless the resource server is as
	// trusted as the server itself.
	Secrets []string
	// RevocationsURL is where the feed of revocations is; by default
	// Issuer/api/revocations.
	RevocationsURL string
	// WithoutRevocations accepts tokens until they expire, even if they were revoked.
	WithoutRevocations bool
	// MaxStaleness is the bound. When the Verifier has had no confirmation for that long
	// that it knows all revocations, it does what OnStale says. As long as it is connected
	// it learns of a revocation in well under a second. It is three seconds at least; zero
	// means DefaultMaxStaleness.
	MaxStaleness time.Duration
	// OnStale by default refuses.
	OnStale OnStale
	// CacheSize is about how many verified tokens are remembered, so that a token that
	// comes again is checked in a microsecond. Whether it has expired or was revoked is
	// checked every time. A token takes some 3 KB. Zero means DefaultCacheSize; a negative
	// number means none.
	CacheSize int

	// Leeway is by how much clocks may differ: exp and nbf are judged that much in the
	// token's favour. A few seconds are plenty. It is zero by default, and at most
	// MaxLeeway.
	Leeway time.Duration
	// HTTPClient fetches the keys and the feed. Nil: a client of the Verifier's own. It
	// must not have a Timeout, because the feed is one long answer; requests have their own
	// deadlines.
	HTTPClient *http.Client
	// Now is the clock, with a monotonic reading; nil: time.Now.
	Now func() time.Time
	// Logger gets an entry when the keys or the feed go out of reach, once for each outage.
	// Nil: slog.Default().
	Logger *slog.Logger

	// secrets are the keys of Secrets, by kid.
	secrets map[string]accesstoken.Key
	// closeIdle closes the idle connections of the Verifier's own client. A given client
	// may be in use elsewhere; then it does nothing.
	closeIdle func()
}

// The errors of Verify, in addition to those of package accesstoken.
var (
	// ErrRevoked: the token was revoked.
	ErrRevoked = &accesstoken.Error{Code: "token_revoked", Detail: "this token has been revoked"}
	// ErrStale: it is not known whether the token was revoked (503).
	ErrStale = &accesstoken.Error{Code: "revocation_stale", Detail: "it is not known at the moment which tokens have been revoked"}
	// ErrForbidden: the token is good, but does not meet a Requirement.
	ErrForbidden = &accesstoken.Error{Code: "forbidden", Detail: "the token does not give the right to this request"}
	// ErrReauthenticate: the token is good, and would meet every Requirement if its user
	// authenticated again (RFC 9470). It wraps a *Reauthentication, which says how.
	ErrReauthenticate = &accesstoken.Error{Code: "reauthentication_required", Detail: "the user has to authenticate again, or by another method"}
	// ErrKeysUnavailable: it is not known whether the token's key exists (503).
	ErrKeysUnavailable = &accesstoken.Error{Code: "key_set_unavailable", Detail: "the key that the token names cannot be looked up at the moment"}
)

var errClosed = errors.New("the verifier is closed")

// A Verifier checks access tokens in memory. In the background it keeps the key
// set fresh and follows the feed of revocations.
type Verifier struct {
	cfg   Config
	rules accesstoken.Rules
	keys  *keySource
	feed  *follower     // nil: without revocations
	known *known.Tokens // nil: none are remembered
	usual conditions    // of a call that has none of its own

	metadata      []byte // nil: without a Resource
	whereMetadata string // the last parameter of a challenge, or empty

	stop       context.CancelFunc
	background sync.WaitGroup
}

// New makes a Verifier and starts it. The server need not be reachable yet. The caller
// calls Close when it no longer uses the Verifier.
func New(cfg Config) (*Verifier, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	metadata, where, err := cfg.describe()
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	v := &Verifier{
		cfg:   cfg,
		rules: accesstoken.Rules{Issuer: cfg.Issuer, Audience: cfg.Audience, Leeway: cfg.Leeway},
		keys:  newKeySource(cfg),

		metadata: metadata, whereMetadata: where,
	}
	ctx, stop := context.WithCancel(context.Background())
	v.stop = stop
	v.usual = *v.conditions(nil)
	v.background.Go(func() { v.keys.run(ctx) })
	if cfg.CacheSize > 0 {
		v.known = known.New(cfg.CacheSize)
	}
	if !cfg.WithoutRevocations {
		v.feed = newFollower(cfg)
		v.background.Go(func() { v.feed.run(ctx) })
	}
	return v, nil
}

// Verify accepts or refuses a token. An error is an *accesstoken.Error. ErrStale and
// ErrKeysUnavailable say nothing about the token; ErrForbidden says that the token is good
// and does not meet a Requirement, ErrReauthenticate that it would meet all of them if its user
// authenticated again. With every other error the token is not good.
//
// Verify waits for the network in two cases: until the first key set and the first page of
// the feed are there, and for a key that is not known yet.
func (v *Verifier) Verify(ctx context.Context, token string, conditions ...Condition) (*accesstoken.Token, error) {
	if len(conditions) == 0 {
		return v.verify(ctx, token, &v.usual)
	}
	return v.verify(ctx, token, v.conditions(conditions))
}

func (v *Verifier) verify(ctx context.Context, token string, c *conditions) (*accesstoken.Token, error) {
	n, err := v.known.Check(&v.rules, token, v.cfg.Now(), func(kid string) (accesstoken.Key, error) {
		return v.keys.find(ctx, kid)
	})
	if err != nil {
		return nil, err
	}
	if v.feed != nil {
		if err := v.feed.check(ctx, n.Shared(), &n.IDs, c); err != nil {
			return nil, err
		}
	}
	t := n.Own()
	if err := c.judge(t, clock{v.cfg.Now(), v.cfg.Leeway}); err != nil {
		return nil, err
	}
	return t, nil
}

// Status is what a Verifier knows, for a health page.
type Status struct {
	Keys        int       // public keys; those of Secrets are not counted
	Revocations int       // entries of the feed that have not expired
	Confirmed   time.Time // when it last knew all revocations; zero: never
	Fresh       bool      // Confirmed is within MaxStaleness, or there is WithoutRevocations
}

// Status returns what the Verifier knows at this moment.
func (v *Verifier) Status() Status {
	s := Status{Keys: v.keys.current().Len(), Fresh: true}
	if v.feed != nil {
		s.Revocations = v.feed.list.Len()
		s.Confirmed = v.feed.lastConfirmed()
		s.Fresh = v.feed.within(s.Confirmed, v.cfg.MaxStaleness)
	}
	return s
}

// Close ends what runs in the background, and returns when it has ended.
func (v *Verifier) Close() {
	v.stop()
	v.background.Wait()
	v.cfg.closeIdle()
}

// complete checks the Config and fills in what was left out.
func (c *Config) complete() error {
	if strings.ContainsFunc(c.Issuer, func(r rune) bool { return r == '"' || r == '\\' || unicode.IsControl(r) }) {
		return errors.New("the issuer holds a quote, a backslash or a control character")
	}
	c.Audience = slices.Clone(c.Audience)
	if len(c.Audience) == 0 {
		c.Audience = []string{c.Issuer}
	}
	base := strings.TrimSuffix(c.Issuer, "/")
	if c.KeySetURL == "" {
		c.KeySetURL = base + "/.well-known/jwks.json"
	}
	if c.RevocationsURL == "" {
		c.RevocationsURL = base + "/api/revocations"
	}
	if c.MaxStaleness == 0 {
		c.MaxStaleness = DefaultMaxStaleness
	}
	if c.MaxStaleness < minMaxStaleness {
		return fmt.Errorf("max staleness is %v; below %v the feed would seem broken between two heartbeats", c.MaxStaleness, minMaxStaleness)
	}
	if c.CacheSize == 0 {
		c.CacheSize = DefaultCacheSize
	}
	if c.Leeway < 0 || c.Leeway > MaxLeeway {
		return fmt.Errorf("leeway is %v; it is from 0 to %v", c.Leeway, MaxLeeway)
	}
	var err error
	if c.secrets, err = secretKeys(c.Secrets); err != nil {
		return err
	}
	c.Secrets = nil // nothing that prints the Verifier shows them
	c.closeIdle = func() {}
	if c.HTTPClient == nil {
		c.HTTPClient = newClient()
		c.closeIdle = c.HTTPClient.CloseIdleConnections
	}
	if c.HTTPClient.Timeout != 0 {
		return errors.New("the HTTP client has a timeout, which would cut off the feed")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	for name, address := range map[string]string{"key set": c.KeySetURL, "feed of revocations": c.RevocationsURL} {
		u, err := url.Parse(address)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || c.Issuer == "" {
			return fmt.Errorf("the issuer (%q) or the address of the %s (%q) is not an http or https URL", c.Issuer, name, address)
		}
		if u.Scheme == "http" && !isLoopback(u.Hostname()) {
			c.Logger.Warn("the "+name+" is fetched without TLS: an attacker on the network can change it", "url", address)
		}
	}
	return nil
}

// newClient makes a client that speaks HTTP/1.1, in which a request that times out also
// ends its dead connection. The client follows no redirect, because the keys come from
// the URL in the Config and nowhere else.
func newClient() *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			Protocols:           protocols,
			TLSHandshakeTimeout: keyTimeout,
			IdleConnTimeout:     time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// because returns a copy of one of the errors above, with its cause.
func because(e *accesstoken.Error, cause error) error {
	return &accesstoken.Error{Code: e.Code, Detail: e.Detail, Cause: cause}
}

// An outage is logged when it begins and when it ends.
type outage struct {
	logger *slog.Logger
	what   string
	on     bool
}

func (o *outage) note(err error) {
	switch {
	case err != nil && !o.on:
		o.logger.Warn(o.what+" is out of reach; trying again until it is there", "err", err)
	case err == nil && o.on:
		o.logger.Info(o.what + " is there again")
	}
	o.on = err != nil
}
