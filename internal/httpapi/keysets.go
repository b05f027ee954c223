package httpapi

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// KeySets serves the public keys from bytes that are prepared once for each set.
type KeySets struct {
	// Keys returns the keys of all replicas as they are now; the same pointer as
	// long as they are the same.
	Keys func() *accesstoken.KeySet
	// Local returns the keys of this replica in the same way.
	Local func() *accesstoken.KeySet
	// MaxAge is how long a cache may go without asking again, and StaleFor how long
	// it may answer with what it has while it asks (RFC 5861 §3).
	MaxAge, StaleFor time.Duration

	merged, local atomic.Pointer[keySetAnswer] // prepared
}

var errNoKeys = problem.New(problem.Unavailable, "no_keys", "this replica does not know any key yet").After(time.Second)

type keySetAnswer struct {
	set    *accesstoken.KeySet
	body   []byte
	header [4]headerField
	etag   string
}

type headerField struct {
	name   string
	values []string
}

// Mount adds the routes.
func (k *KeySets) Mount(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/pkeys", k.serve)
	mux.HandleFunc("GET /.well-known/jwks.json", k.serve)
}

// serve answers both paths with the same bytes; with ?local=true, those of this
// replica's keys.
func (k *KeySets) serve(w http.ResponseWriter, r *http.Request) {
	set, prepared := k.Keys, &k.merged
	if r.URL.RawQuery != "" && r.URL.Query().Get("local") == "true" {
		set, prepared = k.Local, &k.local
	}
	a, err := k.answer(set(), prepared)
	if err != nil {
		WriteProblem(w, r, err)
		return
	}
	h := w.Header()
	for _, f := range a.header {
		h[f.name] = f.values
	}
	if matches(r.Header.Get("If-None-Match"), a.etag) {
		delete(h, "Content-Length")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(a.body) // the client is gone: there is nobody to tell
}

// answer makes the bytes of a set, unless they are prepared. An empty set is no
// answer: a cache would refuse every token by it.
func (k *KeySets) answer(set *accesstoken.KeySet, prepared *atomic.Pointer[keySetAnswer]) (*keySetAnswer, error) {
	if a := prepared.Load(); a != nil && a.set == set {
		return a, nil
	}
	if set.Len() == 0 {
		return nil, errNoKeys
	}
	body, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("httpapi: key set: %w", err)
	}
	sum := sha256.Sum256(body)
	a := &keySetAnswer{set: set, body: body, etag: `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`}
	a.header = [4]headerField{
		{"Content-Type", []string{"application/jwk-set+json"}},
		{"Content-Length", []string{strconv.Itoa(len(body))}},
		{"Etag", []string{a.etag}},
		// A set that cannot be refreshed is better than none: keys leave it only
		// when all that they signed has expired, or through the revocation feed.
		{"Cache-Control", []string{fmt.Sprintf("public, max-age=%d, stale-while-revalidate=%d, stale-if-error=%d",
			k.MaxAge/time.Second, k.StaleFor/time.Second, login.KeySetOutage/time.Second)}},
	}
	prepared.Store(a)
	return a, nil
}

// matches is the weak comparison of RFC 9110 §13.1.2.
func matches(ifNoneMatch, etag string) bool {
	if ifNoneMatch == "" {
		return false
	}
	for candidate := range strings.SplitSeq(ifNoneMatch, ",") {
		candidate = strings.TrimSpace(candidate)
		if candidate == "*" || strings.TrimPrefix(candidate, "W/") == etag {
			return true
		}
	}
	return false
}
