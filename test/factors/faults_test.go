package factors

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/mfa/mfatest"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// A fault happens to one of the writes of a request.
type fault struct {
	write int  // which; the first is 0
	after bool // it has been written, though it failed
	// gone: nothing fails, and the client hangs up at that moment.
	gone bool

	writes int
	wrote  []string // what was written, in the end
	hit    string   // the write that the fault happened to
	hangUp context.CancelFunc
}

type faultKey struct{}

// errCut is what a database says whose connection was cut, and errAway what the state says.
var (
	errCut  = errors.New("the connection was cut")
	errAway = state.ErrUnavailable.Because(errCut)
)

// strike does a write of a request, to which a fault may happen.
func strike(ctx context.Context, what string, cut error, write func() error) error {
	f, _ := ctx.Value(faultKey{}).(*fault)
	if f == nil {
		return write()
	}
	now := f.writes == f.write
	f.writes++
	if now {
		f.hit = what
		if f.gone && !f.after {
			f.hangUp()
		} else if !f.after {
			return cut
		}
	}
	err := write()
	if err == nil {
		f.wrote = append(f.wrote, what)
	}
	if now && f.after {
		if f.gone {
			f.hangUp()
		} else {
			return cut
		}
	}
	return err
}

// A cutStore and a cutState are those of a replica whose requests have faults.
type cutStore struct{ store.Store }

func (s cutStore) Update(ctx context.Context, f func(store.Records) error) error {
	return strike(ctx, "the database", errCut, func() error { return s.Store.Update(ctx, f) })
}

type cutState struct{ state.Store }

func (s cutState) Take(ctx context.Context, key state.Key) (r state.Record, err error) {
	err = strike(ctx, "take "+key.Kind, errAway, func() error { r, err = s.Store.Take(ctx, key); return err })
	return r, err
}

func (s cutState) Create(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (v int64, err error) {
	err = strike(ctx, "create "+key.Kind, errAway, func() error { v, err = s.Store.Create(ctx, key, value, ttl); return err })
	return v, err
}

func (s cutState) Put(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (v int64, err error) {
	err = strike(ctx, "put "+key.Kind, errAway, func() error { v, err = s.Store.Put(ctx, key, value, ttl); return err })
	return v, err
}

func (s cutState) Swap(ctx context.Context, key state.Key, version int64, value []byte, ttl time.Duration) (v int64, err error) {
	err = strike(ctx, "swap "+key.Kind, errAway, func() error { v, err = s.Store.Swap(ctx, key, version, value, ttl); return err })
	return v, err
}

func (s cutState) Delete(ctx context.Context, key state.Key) error {
	return strike(ctx, "delete "+key.Kind, errAway, func() error { return s.Store.Delete(ctx, key) })
}

// A presenting is one request that spends something, whatever happens to it.
type presenting struct {
	name string
	// prepare returns the request, of a new user.
	prepare func(c *cluster) (p *person, method, path, token string, body any)
	status  int
	// spent is what the same request is answered when it has taken place, or when the part of
	// it has that is done once.
	spent []string
	// again presents what was spent once more, in another request; nil: that is not possible.
	again func(c *cluster, p *person, body any) kit.Answer
	used  string // what that is answered if it was spent
	// session: it begins one.
	session bool
}

// presentings are the requests.
func presentings() []presenting {
	answering := func(method string, has []string, answer func(c *cluster, p *person, r *httpapi.MFARequest)) presenting {
		one := presenting{name: method, status: 200, spent: []string{"401 invalid_mfa_token"}, session: true}
		one.prepare = func(c *cluster) (*person, string, string, string, any) {
			p := c.person(has...)
			r := httpapi.MFARequest{MFAToken: c.begin(p, 1), Method: method}
			answer(c, p, &r)
			return p, "POST", "/api/login/mfa", "", r
		}
		if method != "passkey" {
			one.used = "401 code_used"
			one.again = func(c *cluster, p *person, body any) kit.Answer {
				r := body.(httpapi.MFARequest)
				return c.answer(1, c.begin(p, 1), r.Method, r.Code, nil)
			}
		}
		return one
	}
	withKey := func(c *cluster, p *person, r *httpapi.MFARequest) { r.Credential = p.get(c, c.options(1, r.MFAToken)) }
	counts := answering("passkey", []string{countingKey}, withKey)
	counts.name = "a passkey that counts"
	return []presenting{
		answering("backup_code", []string{app, codes}, func(c *cluster, p *person, r *httpapi.MFARequest) { r.Code = p.codes[2] }),
		answering("totp", []string{app}, func(c *cluster, p *person, r *httpapi.MFARequest) { r.Code = p.next(c) }),
		answering("passkey", []string{key}, withKey),
		counts,
		{
			name: "a passkey alone", status: 200, spent: []string{"401 passkey_refused"}, session: true,
			prepare: func(c *cluster) (*person, string, string, string, any) {
				p := c.person(key)
				options := kit.Decode[json.RawMessage](c.t, c.want(c.do(1, "POST", "/api/login/passkey/options", "", nil), 200, ""))
				return p, "POST", "/api/login/passkey", "", httpapi.PasskeyLogin{Credential: p.get(c, options)}
			},
		},
		{
			name: "an enrolment", status: 200, spent: []string{"401 token_revoked", "409 already_enrolled", "409 nothing_pending"}, session: true,
			prepare: func(c *cluster) (*person, string, string, string, any) {
				p := c.user()
				p.token = c.worlds[1].Login(p.name).AccessToken
				p.secret = kit.Decode[httpapi.Enrolment](c.t, c.want(c.do(1, "POST", "/api/mfa/totp", p.token, nil), 200, "")).Secret
				p.mark()
				return p, "POST", "/api/mfa/totp/confirm", p.token, httpapi.Code{Code: mfatest.Code(c.t, p.secret, p.enrolled)}
			},
		},
		{
			name: "a passkey's enrolment", status: 200, spent: []string{"401 token_revoked", "401 passkey_refused", "409 already_enrolled", "409 nothing_pending"}, session: true,
			prepare: func(c *cluster) (*person, string, string, string, any) {
				p := c.user()
				p.token = c.worlds[1].Login(p.name).AccessToken
				made := p.create(c, kit.Decode[json.RawMessage](c.t, c.want(c.do(1, "POST", "/api/mfa/passkeys", p.token, nil), 200, "")))
				return p, "POST", "/api/mfa/passkeys/confirm", p.token, httpapi.NewPasskey{Credential: made}
			},
		},
		{
			name: "an enrolment at login", status: 200, spent: []string{"401 invalid_mfa_token"}, session: true,
			prepare: func(c *cluster) (*person, string, string, string, any) {
				p := c.user("needs-factor=yes")
				token := c.begin(p, 1)
				p.secret = kit.Decode[httpapi.Enrolment](c.t, c.want(c.do(1, "POST", "/api/login/mfa/enrol", "", httpapi.MFAEnrol{MFAToken: token, Method: "totp"}), 200, "")).Secret
				p.mark()
				return p, "POST", "/api/login/mfa", "", httpapi.MFARequest{MFAToken: token, Method: "totp", Code: mfatest.Code(c.t, p.secret, p.enrolled)}
			},
		},
		{
			name: "a recovery", status: 204, spent: []string{"401 invalid_recovery_token"},
			prepare: func(c *cluster) (*person, string, string, string, any) {
				p := c.person(app)
				admin := c.worlds[1].Login("admin").AccessToken
				r := kit.Decode[httpapi.Recovery](c.t, c.want(c.do(1, "POST", "/api/users/"+p.id+"/recovery", admin, httpapi.NewRecovery{}), 201, ""))
				return p, "POST", "/api/login/recover", "", httpapi.Recover{RecoveryToken: r.RecoveryToken, NewPassword: kit.Password}
			},
		},
		{
			name: "a step-up", status: 200, spent: []string{"401 code_used"},
			prepare: func(c *cluster) (*person, string, string, string, any) {
				p := c.person(app)
				return p, "POST", "/api/login/step-up", p.token, httpapi.StepUp{Method: "totp", Code: p.next(c)}
			},
		},
	}
}

// Whichever write of a request fails, before it was written or after, and whenever the client
// hangs up: the same request is then answered at another replica as if it were the first one, or
// that it has been spent. Over all of them no more than one session begins.
func TestFaults(t *testing.T) {
	t.Parallel()
	database := testenv.Postgres(t)
	c := startOn(t, "postgres", 0, database, nil)
	whole := replica.JoinWith(t, database, replica.Options{Quiet: true}, settings)
	parts := whole.Parts()
	cut := replica.JoinWith(t, database, replica.Options{
		Quiet: true, Store: cutStore{parts.Store}, State: cutState{sqlstate.New(parts.DB, time.Now)},
	}, func(cfg *config.Config) {
		settings(cfg)
		cfg.Cluster = config.Default().Cluster // which needs a store of its own
	})
	c.worlds = []*replica.World{whole, whole}
	for _, one := range presentings() {
		t.Run(one.name, func(t *testing.T) {
			count, repeated := 0, 0
			for _, f := range []fault{{}, {after: true}, {gone: true, after: true}} {
				for f.write = 0; ; f.write++ {
					this := f
					again, over := one.under(t, c, cut, &this)
					if over {
						break
					}
					count++
					if again {
						repeated++
					}
				}
			}
			t.Logf("summary: mfa: %s: %d faults at its writes, after %d of them the same request is accepted at another replica, after the others it was spent", one.name, count, repeated)
			if count == 0 {
				t.Error("nothing was written")
			}
		})
	}
}

// under makes the request with a fault, and then again. It reports whether that was what it took,
// and whether the request has fewer writes.
func (one presenting) under(t *testing.T, c *cluster, cut *replica.World, f *fault) (again, over bool) {
	p, method, path, token, body := one.prepare(c)
	before := c.sessions(p)
	r := cut.Request(method, path, token, body)
	ctx, hangUp := context.WithCancel(context.WithValue(r.Context(), faultKey{}, f))
	defer hangUp()
	f.hangUp = hangUp
	first := cut.Send(r.WithContext(ctx))
	if f.hit == "" {
		c.want(first, one.status, "")
		return false, true
	}
	what := fmt.Sprintf("%s, write %d (%s), after %t, gone %t, wrote %v: %d %s", one.name, f.write, f.hit, f.after, f.gone, f.wrote, first.Status, first.Code())
	if !f.gone && first.Status != one.status && (first.Status != 503 || first.Header.Get("Retry-After") == "") {
		t.Errorf("%s", what)
	}
	second := c.do(1, method, path, token, body)
	said := fmt.Sprintf("%d %s", second.Status, second.Code())
	if second.Status != one.status && !slices.Contains(one.spent, said) {
		t.Errorf("%s; and then %s %s", what, said, second.Body)
	}
	if first.Status == one.status && second.Status == one.status {
		t.Errorf("%s; and then %s: twice", what, said)
	}
	if taken := slices.ContainsFunc(f.wrote, func(w string) bool { return w[:4] == "take" }); one.used != "" && (second.Status == one.status) == taken {
		t.Errorf("%s; and then %s, though it was taken: %t", what, said, taken)
	}
	if len(f.wrote) == 0 && second.Status != one.status {
		t.Errorf("%s; and then %s, though nothing was written", what, said)
	}
	if one.again != nil {
		a := one.again(c, p, body)
		said := fmt.Sprintf("%d %s", a.Status, a.Code())
		if done := first.Status == one.status || second.Status == one.status; said != one.used && (done || a.Status != one.status) && !(one.name == "totp" && said == "401 invalid_code") {
			t.Errorf("%s; in the end %s", what, said)
		}
	}
	if one.session {
		// Those that an enrolment ends do not count.
		began := c.sessions(p)
		if p.token == "" || path == "/api/login/mfa" || path == "/api/login/passkey" {
			began -= before
		}
		if began > 1 || began < 1 && second.Status == one.status {
			t.Errorf("%s; and then %s: %d sessions", what, said, began)
		}
	}
	return second.Status == one.status, false
}
