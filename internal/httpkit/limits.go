package httpkit

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/limit"
)

// The headers that say what is counted and what is left of it (draft-ietf-httpapi-ratelimit-headers-11).
const (
	ratePolicy = "RateLimit-Policy"
	rateLeft   = "RateLimit"
)

// rateHeaders describes them.
var rateHeaders = map[string]string{
	ratePolicy: "the rates in which the request was counted: q requests in w seconds",
	rateLeft:   "what is left of each of them: r requests in the next t seconds",
}

// reporting is Budget.Reporting.
func (a *API) reporting(h http.HandlerFunc) http.HandlerFunc {
	return a.budget.Reporting(a.proxies, h)
}

// reportingIf is reporting for a route whose handler counts nothing by itself: nothing is to be
// reported while the class is off.
func (a *API) reportingIf(class limit.Class, h http.HandlerFunc) http.HandlerFunc {
	reporting := a.reporting(h)
	return func(w http.ResponseWriter, r *http.Request) {
		if a.counts(class) {
			reporting(w, r)
			return
		}
		h(w, r)
	}
}

// Reporting has the answers of a handler say in which rates the request was counted, and the
// log say when the address that is refused may be a load balancer's.
func (b *Budget) Reporting(p Proxies, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		counted := quotas{header: w.Header()}
		h(w, r.WithContext(limit.Reporting(r.Context(), counted.add)))
		if rec, ok := w.(*recorder); ok && rec.status == http.StatusTooManyRequests && counted.refusedByAddress() {
			b.warn(r, p.Address(r), p)
		}
	}
}

// quotas are what is left of the rates in which one request was counted.
type quotas struct {
	header http.Header
	list   []limit.Quota
	last   limit.Quota
}

// add notes a quota, and writes all of them into the headers: as one line each, since many
// clients read only the first.
func (q *quotas) add(one limit.Quota) {
	q.last = one
	if i := slices.IndexFunc(q.list, func(other limit.Quota) bool { return other.Policy == one.Policy }); i >= 0 {
		q.list[i] = one
	} else {
		q.list = append(q.list, one)
	}
	policies, left := make([]string, len(q.list)), make([]string, len(q.list))
	for i, one := range q.list {
		// The names are ASCII without quotation marks, so %q makes Strings of RFC 9651 §3.3.3.
		policies[i] = fmt.Sprintf("%q;q=%d;w=%d", one.Policy, one.Limit, max(1, seconds(one.Window)))
		left[i] = fmt.Sprintf("%q;r=%d;t=%d", one.Policy, max(0, one.Remaining), seconds(one.Reset))
	}
	q.header.Set(ratePolicy, strings.Join(policies, ", "))
	q.header.Set(rateLeft, strings.Join(left, ", "))
}

// refusedByAddress reports whether it was a rate of an address that refused a request which
// was refused: nothing is counted after a rate that refuses.
func (q *quotas) refusedByAddress() bool {
	return q.last.Remaining == 0 && strings.HasSuffix(q.last.Policy, "-address")
}

// seconds are whole seconds, rounded up.
func seconds(d time.Duration) int { return max(0, int(math.Ceil(d.Seconds()))) }

// counts reports whether requests with an access token are counted in a class at present.
func (a *API) counts(class limit.Class) bool {
	return a.login.Limits.Counts(class)
}

// counted counts requests with an access token, before its answer says anything about the
// token. While the class is off it costs nothing. A request without a token is not counted.
func (a *API) counted(class limit.Class, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !a.counts(class) {
			h(w, r)
			return
		}
		r, err := a.count(class, r)
		if err != nil {
			WriteProblem(w, err)
			return
		}
		h(w, r)
	}
}

// count counts a request by address before the token is checked, and for an account when the
// token is known to be good: nobody uses up the rate of another user by a token that is forged
// or that the user has revoked.
func (a *API) count(class limit.Class, r *http.Request) (*http.Request, error) {
	if _, err := bearer(r); err != nil {
		return r, nil
	}
	ctx, limits := r.Context(), a.login.Limits
	if err := limits.Count(ctx, class, a.proxies.Address(r), ""); err != nil {
		return nil, err
	}
	r, c := a.check(r)
	if c.err != nil || !a.live(ctx, class, c) {
		return r, nil
	}
	return r, limits.Count(ctx, class, "", limit.UserAccount(c.token.Subject))
}

// live reports whether a token of a class whose accounts are counted is not revoked, as far as
// is known. Authenticate asks again, after the body has been read.
func (a *API) live(ctx context.Context, class limit.Class, c checked) bool {
	return a.login.Limits.Present().Policies[class].PerAccount.Burst > 0 && a.login.View.Check(ctx, c.token) == nil
}
