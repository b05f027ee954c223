package sharedsecret

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// The reasons for which Signer has none. Their code is that of a key ring without a key.
var (
	errNone    = problem.New(problem.Unavailable, "no_signing_key", "this server has no secret to sign with")
	errWaiting = problem.New(problem.Unavailable, "no_signing_key", "not every replica accepts the signing secret yet")
	errRevoked = problem.New(problem.Unavailable, "no_signing_key", "every signing secret has been revoked; the operator has to set another one")
	errEnded   = problem.New(problem.Unavailable, "no_signing_key", "the end of every signing secret has passed; the operator has to set another one")
)

// A Secret is one of those that are configured. Nothing that prints it shows it.
type Secret struct {
	Text string    `json:"-"`
	End  time.Time // accepted before; zero: for as long as it is configured
}

// Format shows that there is a secret, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[secret]") }

// Config is what Secrets are made of. All of it is required, but Accepted, Revoked and
// Registerer.
type Config struct {
	// Algorithm is that of new tokens: one of accesstoken.SecretAlgorithms. Empty: tokens
	// are verified and not signed.
	Algorithm string
	// Accepted reports whether every other live replica has written that it accepts the key.
	// Nil: there are no others.
	Accepted func(kid string) bool
	// Revoked reports whether the key was revoked. Nil: none was.
	Revoked    func(kid string) bool
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Secrets are the signing secrets of this replica. They may be used by many goroutines. Find,
// Kids and Signer never wait for anything but their Config's functions.
//
// A secret is accepted with every algorithm for which it is long enough, so that
// tokens.algorithm may be changed in a rolling restart. All keys of a secret are revoked at once
// (login.RevokeKeyIn): what is compromised is the secret.
type Secrets struct {
	cfg  Config
	view atomic.Pointer[view]
	said atomic.Pointer[choice] // that was logged last

	mu sync.Mutex // held while view or said change
}

// A view never changes.
type view struct {
	list  []*entry // in the order in which they are configured
	byKid map[string]*entry
}

type entry struct {
	Secret
	keys   []accesstoken.Key // of each algorithm for which the secret is long enough
	signer *token.Signer     // nil: with Config.Algorithm empty
}

// New makes Secrets of a list, of which the first is the present secret and the others are
// former ones. A secret that is too short, or stands in the list twice, is an error. So is an
// empty list, unless Config.Algorithm is empty.
func New(cfg Config, list []Secret) (*Secrets, error) {
	if cfg.Accepted == nil {
		cfg.Accepted = func(string) bool { return true }
	}
	if cfg.Revoked == nil {
		cfg.Revoked = func(string) bool { return false }
	}
	s := &Secrets{cfg: cfg}
	v, err := s.viewOf(list)
	if err != nil {
		return nil, err
	}
	s.view.Store(v)
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(collector{s}); err != nil {
			return nil, fmt.Errorf("sharedsecret: %w", err)
		}
	}
	if len(list) > 0 {
		cfg.Logger.Info("signing secrets", "accepted", s.Kids())
	}
	return s, nil
}

// Replace takes another list in place of the present one, such as that of a file that has
// changed. An error, for a list that New would refuse, changes nothing. The caller has the
// cluster write at once what is accepted now.
func (s *Secrets) Replace(list []Secret) error {
	v, err := s.viewOf(list)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	former := s.view.Load()
	if slices.EqualFunc(former.list, v.list, func(a, b *entry) bool { return a.keys[0].Equal(b.keys[0]) && a.End.Equal(b.End) }) {
		return nil
	}
	s.view.Store(v)
	s.cfg.Logger.Info("the signing secrets have changed", "accepted", s.kids(v), "formerly", s.kids(former))
	return nil
}

func (s *Secrets) viewOf(list []Secret) (*view, error) {
	if s.cfg.Algorithm != "" && len(list) == 0 {
		return nil, errors.New("sharedsecret: there is no secret to sign with")
	}
	v := &view{byKid: map[string]*entry{}}
	for i, secret := range list {
		e, err := s.entryOf(secret, i == 0)
		if err != nil {
			return nil, fmt.Errorf("sharedsecret: secret %d of %d: %w", i+1, len(list), err)
		}
		for _, key := range e.keys {
			if _, twice := v.byKid[key.ID]; twice {
				return nil, fmt.Errorf("sharedsecret: secret %d of %d, with the kid %s, is in the list twice", i+1, len(list), key.ID)
			}
			v.byKid[key.ID] = e
		}
		v.list = append(v.list, e)
	}
	return v, nil
}

// entryOf makes an entry that signs with Config.Algorithm. A former secret may be too short
// for that, for example while the algorithm is changed; it signs with its strongest one.
func (s *Secrets) entryOf(secret Secret, present bool) (*entry, error) {
	keys, err := accesstoken.SecretKeys(secret.Text)
	if err != nil {
		return nil, err
	}
	e := &entry{Secret: secret, keys: keys}
	if s.cfg.Algorithm == "" {
		return e, nil
	}
	alg := s.cfg.Algorithm
	if !present && len(secret.Text) < accesstoken.MinSecretLength(alg) {
		alg = keys[len(keys)-1].Algorithm
	}
	e.signer, err = token.NewSecretSigner(secret.Text, alg)
	return e, err
}

// Find returns the key by which tokens with the kid are verified. It also returns one that was
// revoked: what judges revocations refuses its tokens.
func (s *Secrets) Find(kid string) (accesstoken.Key, bool) {
	e, ok := s.view.Load().byKid[kid]
	if !ok || s.ended(e) {
		return accesstoken.Key{}, false
	}
	i := slices.IndexFunc(e.keys, func(k accesstoken.Key) bool { return k.ID == kid })
	return e.keys[i], true
}

// Kids returns the ids of all keys whose tokens are accepted now, in ascending order.
func (s *Secrets) Kids() []string { return s.kids(s.view.Load()) }

func (s *Secrets) kids(v *view) []string {
	var kids []string
	for kid, e := range v.byKid {
		if !s.ended(e) && !s.revoked(e) {
			kids = append(kids, kid)
		}
	}
	slices.Sort(kids)
	return kids
}

// Signer returns that of the first secret in the list that every live replica accepts, and
// that was neither revoked nor has come to its end. If there is none and a secret of the list
// was revoked, the first of the others signs at once: replicas that do not have it yet refuse
// its tokens, but all of them refuse those of the revoked one.
//
// The error is a problem that says why there is none.
func (s *Secrets) Signer() (*token.Signer, error) {
	if s.cfg.Algorithm == "" {
		return nil, errNone
	}
	v := s.view.Load()
	e, err := s.choose(v)
	s.say(choiceOf(v, e, err))
	if err != nil {
		return nil, err
	}
	return e.signer, nil
}

func (s *Secrets) choose(v *view) (*entry, error) {
	var first *entry // that may sign once every replica accepts it
	revoked := false
	for _, e := range v.list {
		switch {
		case s.revoked(e):
			revoked = true
		case s.ended(e):
		case s.cfg.Accepted(e.signer.KeyID()):
			return e, nil
		case first == nil:
			first = e
		}
	}
	switch {
	case first != nil && revoked:
		return first, nil
	case first != nil:
		return nil, errWaiting
	case revoked:
		return nil, errRevoked
	}
	return nil, errEnded
}

// A choice is what Signer answers, as the log says it: once, until it is another one.
type choice struct{ kid, present, reason string }

func choiceOf(v *view, e *entry, err error) choice {
	if err != nil {
		return choice{reason: problem.From(err).Detail}
	}
	return choice{kid: e.signer.KeyID(), present: v.list[0].signer.KeyID()}
}

func (s *Secrets) say(c choice) {
	if said := s.said.Load(); said != nil && *said == c {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.view.Load()
	e, err := s.choose(v) // there may be another one meanwhile, which was logged
	c = choiceOf(v, e, err)
	if said := s.said.Load(); said != nil && *said == c {
		return
	}
	s.said.Store(&c)
	switch {
	case c.kid == "":
		s.cfg.Logger.Warn("no signing secret may sign", "reason", c.reason)
	case c.kid != c.present:
		s.cfg.Logger.Info("a former signing secret signs, because not every replica accepts the present one, or the present one was revoked",
			"kid", c.kid, "present", c.present)
	default:
		s.cfg.Logger.Info("the present signing secret signs", "kid", c.kid)
	}
}

func (s *Secrets) ended(e *entry) bool { return !e.End.IsZero() && !s.cfg.Now().Before(e.End) }

// revoked asks for one of the keys: they are revoked together.
func (s *Secrets) revoked(e *entry) bool { return s.cfg.Revoked(e.keys[0].ID) }

// A collector says at each scrape what the secrets are good for at that moment.
type collector struct{ *Secrets }

var described = prometheus.NewDesc("watchword_signing_secrets",
	"Signing secrets that this replica has, by kid and state: signing, waiting (for all replicas to accept it), accepted, ended, revoked.",
	[]string{"kid", "state"}, nil)

func (c collector) Describe(descs chan<- *prometheus.Desc) { descs <- described }

func (c collector) Collect(metrics chan<- prometheus.Metric) {
	v := c.view.Load()
	var chosen *entry
	waiting := c.cfg.Algorithm != "" // what stands before the chosen one
	if waiting {
		chosen, _ = c.choose(v)
	}
	for _, e := range v.list {
		kid, state := e.keys[0].ID, "accepted"
		if e.signer != nil {
			kid = e.signer.KeyID()
		}
		switch {
		case c.revoked(e):
			state = "revoked"
		case c.ended(e):
			state = "ended"
		case e == chosen:
			state, waiting = "signing", false
		case waiting:
			state = "waiting"
		}
		metrics <- prometheus.MustNewConstMetric(described, prometheus.GaugeValue, 1, kid, state)
	}
}
