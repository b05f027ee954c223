package httpkit

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

const (
	// patience is how long a request waits for others of its user or address to end. So a
	// burst is answered a little later, and a client that sends without end is slowed down
	// instead of being refused as fast as it can send.
	patience = 500 * time.Millisecond
	// waitingFor bounds how many requests wait: so many for each one that may be served.
	waitingFor = 7
	// warnEvery is how often the log says that an address may be a load balancer's.
	warnEvery = time.Minute
)

// ErrTooManyAtOnce: more requests of one user or address are under way than may be.
var ErrTooManyAtOnce = problem.New(problem.TooMany, "too_many_at_once",
	"too many requests of this user or from this address are being served at once; send fewer side by side").After(time.Second)

// A Budget bounds how many requests that reach the storage are served at once: of each
// user, and from each address or /64 of IPv6. Such a request waits before it has reached
// anything. What is kept is bounded by the requests under way.
type Budget struct {
	users, addresses places
	logger           *slog.Logger
	refused          *prometheus.CounterVec
	warned           atomic.Int64 // when, in Unix nanoseconds
}

// NewBudget returns a Budget of so many requests of a user and from an address.
func NewBudget(perUser, perAddress int, r prometheus.Registerer, logger *slog.Logger) *Budget {
	b := &Budget{
		users: places{most: perUser}, addresses: places{most: perAddress}, logger: logger,
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_http_requests_over_budget_total",
			Help: "Requests refused because too many of their user, or from their address, were under way.",
		}, []string{"budget"}),
	}
	for _, budget := range []string{"user", "address"} {
		b.refused.WithLabelValues(budget)
	}
	r.MustRegister(b.refused)
	return b
}

// Enter waits until a request of the user and from the address may be served, which lasts
// until leave is called. Without a user or an address it is not bounded by that. The user
// comes first: whoever waits for their own requests takes no place from others behind one
// address.
func (b *Budget) Enter(r *http.Request, user, address string, proxies Proxies) (leave func(), err error) {
	leaveUser, ok := b.users.enter(r.Context(), user)
	if !ok {
		b.refused.WithLabelValues("user").Inc()
		return nil, ErrTooManyAtOnce
	}
	leaveAddress, ok := b.addresses.enter(r.Context(), Network(address))
	if !ok {
		leaveUser()
		b.refused.WithLabelValues("address").Inc()
		b.warn(r, address, proxies)
		return nil, ErrTooManyAtOnce
	}
	return func() { leaveAddress(); leaveUser() }, nil
}

// warn tells the operator that an address whose requests are refused may be that of a load
// balancer, which stands for many clients.
func (b *Budget) warn(r *http.Request, address string, proxies Proxies) {
	peer, ok := peerOf(r)
	if !ok || r.Header.Get(xForwardedFor) == "" && r.Header.Get(forwarded) == "" || proxies.trusts(peer) {
		return
	}
	now, last := time.Now().UnixNano(), b.warned.Load()
	if now-last < int64(warnEvery) || !b.warned.CompareAndSwap(last, now) {
		return
	}
	b.logger.WarnContext(r.Context(), "requests from one address are refused, because there are too many, and they carry X-Forwarded-For or Forwarded; "+
		"if the address is that of your load balancer, add it to server.trusted_proxies", "address", address)
}

// places are the requests under way, by name.
type places struct {
	most int // that are served at once

	mu     sync.Mutex
	byName map[string]*place
}

// A place is that of one user or address.
type place struct {
	served chan struct{}
	all    int // that are served or wait
}

// enter returns what ends a request's place, or false if it got none.
func (p *places) enter(ctx context.Context, name string) (leave func(), ok bool) {
	if name == "" {
		return func() {}, true
	}
	one := p.join(name)
	if one == nil {
		return nil, false
	}
	select {
	case one.served <- struct{}{}:
	default:
		patient := time.NewTimer(patience)
		defer patient.Stop()
		select {
		case one.served <- struct{}{}:
		case <-patient.C:
			p.part(name, one)
			return nil, false
		case <-ctx.Done():
			p.part(name, one)
			return nil, false
		}
	}
	return func() { <-one.served; p.part(name, one) }, true
}

// join returns the place of the name, or nil if too many wait there.
func (p *places) join(name string) *place {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.byName[name]
	if one == nil {
		if p.byName == nil {
			p.byName = map[string]*place{}
		}
		one = &place{served: make(chan struct{}, p.most)}
		p.byName[name] = one
	}
	if one.all >= p.most*(1+waitingFor) {
		return nil
	}
	one.all++
	return one
}

func (p *places) part(name string, one *place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one.all--; one.all == 0 {
		delete(p.byName, name)
	}
}

// checked is what became of a request's token before the request was bounded.
type checked struct {
	token *accesstoken.Token
	err   error
}

type checkedKey struct{}

// check checks the signature of the request's token, if it has one, unless that is done. It
// needs no storage.
func (a *API) check(r *http.Request) (*http.Request, checked) {
	if c, ok := r.Context().Value(checkedKey{}).(checked); ok {
		return r, c
	}
	compact, err := bearer(r)
	if err != nil {
		return r, checked{err: err}
	}
	t, err := a.login.Signed(compact)
	c := checked{t, err}
	return r.WithContext(context.WithValue(r.Context(), checkedKey{}, c)), c
}

// enter waits for the budget. It reads the body before that, so that no place is taken by a
// client that sends slowly.
func (a *API) enter(r *http.Request) (*http.Request, func(), error) {
	var user string
	r, c := a.check(r)
	if c.err == nil {
		user = c.token.Subject
	}
	if r.ContentLength != 0 && r.ContentLength <= MaxBody {
		r.Body = readAhead(r.Body)
	}
	leave, err := a.budget.Enter(r, user, a.proxies.Address(r), a.proxies)
	return r, leave, err
}

// readAhead reads up to MaxBody and one more byte, and returns a body that reads the same
// as body would have.
func readAhead(body io.ReadCloser) io.ReadCloser {
	start, err := io.ReadAll(io.LimitReader(body, MaxBody+1))
	rest := io.Reader(body)
	if err != nil {
		rest = failing{err}
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(start), rest), body}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// bounded serves requests within the budget.
func (a *API) bounded(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r, leave, err := a.enter(r)
		if err != nil {
			WriteProblem(w, err)
			return
		}
		defer leave()
		h(w, r)
	}
}
