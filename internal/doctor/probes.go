package doctor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/canary"
)

var probeChecks = []Check{
	{"shared-records", "What is written through one replica is read through the others", Error,
		"Sessions, second factors that wait and one-time codes must be found by whichever replica is asked next. A replica that writes elsewhere signs people out.", sharedRecords},
	{"shared-counters", "What is counted through one replica counts for all", Error,
		"Limits hold for the whole cluster only if there is one counter. With a counter for each replica, an attacker has as many attempts more.", sharedCounters},
	{"token-recognised", "Each replica accepts the tokens of the others", Error,
		"A token is verified by whichever replica the load balancer chooses. A token that belongs to no user is issued by each and shown to the others.", tokenRecognised},
	{"token-revoked", "What one replica revokes, the others refuse within the bound", Error,
		"Each replica revokes a token that belongs to no user, and the others are asked until they refuse it.", tokenRevoked},
}

const (
	// maxWatchers is how many other replicas are asked about a token: all in most clusters. In
	// a large one each replica is still asked about the tokens of as many others.
	maxWatchers = 8
	// maxProbes bounds how many replicas have a probe under way at the same time.
	maxProbes = 8
	// leastBound is how long a replica may take to hear of a revocation even if
	// revocation.poll is short: it may have to wait for its machine.
	leastBound = 5 * time.Second
)

// sharedRecords has each replica read what the one before it wrote. If they do not all use one
// store, there are two neighbours that use different ones.
func sharedRecords(ctx context.Context, d *Deployment) ([]Finding, error) {
	all, err := d.answered()
	if err != nil {
		return nil, err
	}
	names := make([]string, len(all))
	if err := each(all, func(i int) error {
		names[i] = rand.Text()
		_, err := d.probe(ctx, all[i], Question{Write: names[i]})
		return err
	}); err != nil {
		return nil, err
	}
	found := make([]*Finding, len(all))
	err = each(all, func(i int) error {
		before := (i + len(all) - 1) % len(all)
		facts, err := d.probe(ctx, all[i], Question{Read: names[before]})
		if err == nil && !facts.Found {
			found[i] = &Finding{facts.Instance, "it does not find a record that was written through " + all[before].Facts.Instance,
				"have both use the same shared state: see whether database.url, redis.url and state.backend of the two lead to the same servers and the same database number"}
		}
		return err
	})
	return orElse(present(found), err)
}

func sharedCounters(ctx context.Context, d *Deployment) (found []Finding, err error) {
	all, err := d.answered()
	if err != nil {
		return nil, err
	}
	counter := rand.Text()
	for i, r := range all {
		facts, err := d.probe(ctx, r, Question{Count: counter})
		if err != nil {
			return nil, err
		}
		if facts.Counted != int64(i) {
			found = append(found, Finding{facts.Instance, fmt.Sprintf("%d attempts were counted through other replicas, and by its counter there were %d", i, facts.Counted),
				"have all replicas count in the same store: see whether database.url, redis.url and state.backend lead to the same servers, and whether limits.on_outage is local while the store is away"})
		}
	}
	return found, nil
}

func tokenRecognised(ctx context.Context, d *Deployment) ([]Finding, error) {
	return d.tokens(ctx, func(issuer string, r canary.Result) *Finding {
		if !errors.Is(r.Err, canary.ErrNotAccepted) {
			return nil
		}
		return &Finding{r.Name, fmt.Sprintf("a good token of %s is not accepted: %v", issuer, r.Err),
			"see whether both have the same cluster.secret, database.url, tokens.issuer and, where the key is a shared one, the same secrets; whether their clocks agree; and in its log why it does not have the key"}
	})
}

func tokenRevoked(ctx context.Context, d *Deployment) ([]Finding, error) {
	return d.tokens(ctx, func(issuer string, r canary.Result) *Finding {
		if r.Err == nil || errors.Is(r.Err, canary.ErrNotAccepted) { // which token-recognised says
			return nil
		}
		return &Finding{r.Name, fmt.Sprintf("of a token that was revoked through %s: %v", issuer, r.Err),
			"see whether it uses the same database, and no copy that lags behind, and in its log why it does not read the revocation log"}
	})
}

// tokens has each replica issue a token and revoke it, asks others about it, and returns what is
// found about the answers.
func (d *Deployment) tokens(ctx context.Context, judge func(issuer string, r canary.Result) *Finding) ([]Finding, error) {
	all, err := d.answered()
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(r Replica) bool { return r.Facts.Ready != "" }) // which replica-ready says
	if len(all) < 2 {
		return nil, Skip("fewer than two replicas are ready")
	}
	bound := min(d.Config.Revocation.MaxStaleness, max(leastBound, 3*d.Config.Revocation.Poll))
	found := make([][]*Finding, len(all))
	err = each(all, func(i int) error {
		issuer := all[i]
		var id string
		var watchers []canary.Watcher
		for n := 1; n < len(all) && n <= maxWatchers; n++ {
			at := all[(i+n)%len(all)]
			watchers = append(watchers, canary.Watcher{Name: at.Facts.Instance, Accepts: func(ctx context.Context, token string) (bool, error) {
				return d.Accepts(ctx, at.URL, token)
			}})
		}
		results, err := canary.Run(ctx, canary.Token{
			Issue: func(ctx context.Context) (string, error) {
				facts, err := d.probe(ctx, issuer, Question{Issue: true})
				id = facts.TokenID
				return facts.Token, err
			},
			Revoke: func(ctx context.Context, _ string) error {
				_, err := d.probe(ctx, issuer, Question{Revoke: id})
				return err
			},
		}, bound, watchers)
		for _, r := range results {
			found[i] = append(found[i], judge(issuer.Facts.Instance, r))
		}
		return err
	})
	return orElse(present(slices.Concat(found...)), err)
}

// orElse returns what was found, or, if that is nothing, the error of not having looked
// everywhere.
func orElse(found []Finding, err error) ([]Finding, error) {
	if len(found) > 0 {
		return found, nil
	}
	return nil, err
}

// probe has a replica do something. That it could not is an error.
func (d *Deployment) probe(ctx context.Context, r Replica, q Question) (Facts, error) {
	facts, err := d.Ask(ctx, r.URL, q)
	if err == nil && facts.Problem != "" {
		err = errors.New("it cannot " + facts.Problem)
	}
	if err != nil {
		return facts, fmt.Errorf("%s: %w", r.Facts.Instance, err)
	}
	return facts, nil
}

// each calls f for all replicas, some at the same time, and returns the errors.
func each(all []Replica, f func(i int) error) error {
	errs := make([]error, len(all))
	places := make(chan struct{}, maxProbes)
	var running sync.WaitGroup
	for i := range all {
		places <- struct{}{}
		running.Go(func() {
			defer func() { <-places }()
			errs[i] = f(i)
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

// present returns the findings that are there.
func present(found []*Finding) (list []Finding) {
	for _, f := range found {
		if f != nil {
			list = append(list, *f)
		}
	}
	return list
}
