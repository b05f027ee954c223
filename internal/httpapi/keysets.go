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
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// KeySets serves the public keys from bytes that are prepared once for each set.
type KeySets struct {
	// Keys returns the set as it is now; the same pointer as long as it is the same.
	Keys func() *accesstoken.KeySet
	// MaxAge is how long a cache may go without asking again.
	MaxAge time.Duration

	prepared atomic.Pointer[keySetAnswer]
}

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

// serve answers both paths, and ?local=true, with the same bytes: with one
// replica, its own keys are everybody's.
func (k *KeySets) serve(w http.ResponseWriter, r *http.Request) {
	a, err := k.answer()
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

func (k *KeySets) answer() (*keySetAnswer, error) {
	set := k.Keys()
	if a := k.prepared.Load(); a != nil && a.set == set {
		return a, nil
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
		{"Cache-Control", []string{fmt.Sprintf("public, max-age=%d, stale-if-error=%d", k.MaxAge/time.Second, login.KeySetOutage/time.Second)}},
	}
	k.prepared.Store(a)
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
