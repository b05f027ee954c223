package canary

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/verify"
)

const (
	// acceptWithin is how long a watcher may take until it accepts the token.
	acceptWithin = 10 * time.Second
	// every is how often a watcher is asked.
	every = 5 * time.Millisecond
)

// A Token issues one access token and revokes it.
type Token struct {
	Issue func(ctx context.Context) (token string, err error)
	// Revoke returns nil when the token is certainly revoked.
	Revoke func(ctx context.Context, token string) error
}

// A Watcher is asked about the token.
type Watcher struct {
	Name string
	// Accepts reports whether the watcher accepts the token. The error means that it gave
	// no answer.
	Accepts func(ctx context.Context, token string) (bool, error)
}

// A Result is the measurement of one watcher.
type Result struct {
	Name string
	// Refused is the time from the revocation until the watcher's first refusal was
	// received. The watcher may have refused it earlier, by one question at most.
	Refused time.Duration
	Err     error // the watcher never accepted the token, or did not refuse it within the bound
}

// ErrNotAccepted: a watcher never accepted the token, so that nothing was measured.
var ErrNotAccepted = errors.New("it does not accept a good token")

// Run measures once. The token is revoked also if a watcher has not accepted it.
func Run(ctx context.Context, t Token, bound time.Duration, watchers []Watcher) ([]Result, error) {
	token, err := t.Issue(ctx)
	if err != nil {
		return nil, fmt.Errorf("canary: no token was issued: %w", err)
	}
	results := make([]Result, len(watchers))
	each := func(f func(Watcher, *Result)) {
		var asking sync.WaitGroup
		for i, w := range watchers {
			asking.Go(func() { f(w, &results[i]) })
		}
		asking.Wait()
	}
	each(func(w Watcher, r *Result) {
		r.Name = w.Name
		if _, err := until(ctx, w, token, true, acceptWithin); err != nil {
			r.Err = fmt.Errorf("%w: %w", ErrNotAccepted, err)
		}
	})
	if err := t.Revoke(ctx, token); err != nil {
		return nil, fmt.Errorf("canary: the token was not revoked: %w", err)
	}
	each(func(w Watcher, r *Result) {
		if r.Err != nil {
			return
		}
		took, err := until(ctx, w, token, false, bound)
		if r.Refused = took; err != nil {
			r.Err = fmt.Errorf("it does not refuse the revoked token: %w", err)
		}
	})
	return results, nil
}

// until asks a watcher until it answers as wanted, and returns how long after the
// beginning that answer came.
func until(ctx context.Context, w Watcher, token string, want bool, within time.Duration) (time.Duration, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	last := errors.New("there was no answer")
	for {
		accepts, err := w.Accepts(ctx, token)
		switch {
		case err == nil && accepts == want:
			return time.Since(began), nil
		case err == nil && accepts:
			last = errors.New("it accepts it")
		case err == nil:
			last = errors.New("it refuses it")
		case ctx.Err() == nil:
			last = err
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("after %v: %w", time.Since(began).Round(time.Millisecond), last)
		case <-tick.C:
		}
	}
}

// Replica is a watcher that is asked over HTTP and sees the token.
func Replica(base string, client *http.Client) Watcher {
	return Watcher{base, func(ctx context.Context, token string) (bool, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/verify", nil)
		if err != nil {
			return false, err
		}
		r.Header.Set("Authorization", "Bearer "+token)
		answer, err := client.Do(r)
		if err != nil {
			return false, err
		}
		defer answer.Body.Close()
		_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10)) // so that the connection can be used again
		switch answer.StatusCode {
		case http.StatusOK:
			return true, nil
		case http.StatusUnauthorized:
			return false, nil
		}
		return false, fmt.Errorf("it answers %d", answer.StatusCode)
	}}
}

// ResourceServer is a watcher that checks tokens itself.
func ResourceServer(name string, v *verify.Verifier) Watcher {
	return Watcher{name, func(ctx context.Context, token string) (bool, error) {
		_, err := v.Verify(ctx, token)
		if errors.Is(err, verify.ErrRevoked) {
			return false, nil
		}
		return err == nil, err
	}}
}
