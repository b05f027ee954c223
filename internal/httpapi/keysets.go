package httpapi

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// KeySets serves the public keys from bytes that are prepared once for each set.
type KeySets struct {
	// Keys returns the keys of all replicas as they are now; the same pointer as
	// long as they are the same.
	Keys func() *accesstoken.KeySet
	// Local returns the keys of this replica.
	Local func() []keyring.PublicKey
	// Answer returns the keys of this replica for a peer that chose the nonce, and what
	// authenticates them (package cluster), or an error for the peer.
	Answer func(nonce string) (body []byte, instance, mac string, err error)
	// MutualTLS: a peer is answered only if it has shown a certificate that the
	// listener has verified.
	MutualTLS bool
	// MayBeEmpty: tokens are signed with a secret, so a set without keys is an answer.
	MayBeEmpty bool
	// MaxAge is how long a cache may go without asking again, and StaleFor how long
	// it may answer with what it has while it asks (RFC 5861 §3).
	MaxAge, StaleFor time.Duration

	merged atomic.Pointer[keySetAnswer] // prepared
	local  atomic.Pointer[localAnswer]  // prepared
}

// A localAnswer is the key set of this replica alone. Each key has its end as the
// member exp, in Unix time: the last moment at which a token of it can be valid.
type localAnswer struct {
	keys []keyring.PublicKey
	keySetAnswer
}

const (
	keySetType = "application/jwk-set+json"
	jwksPath   = "/.well-known/jwks.json"

	// pemType is what servers and clients use: no type is registered for a public key in PEM.
	// application/pem-certificate-chain (RFC 8555 §9.1) is for certificates.
	pemType = "application/x-pem-file"
)

var (
	errNoKeys = problem.New(problem.Unavailable, "no_keys", "this replica does not know any key yet").After(time.Second)
)

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
func (k *KeySets) Mount(api *httpkit.API) {
	route := httpkit.Route{
		Method: http.MethodGet, Tag: "keys", Errors: []int{http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound},
		Parameters: []*huma.Param{
			{Name: "local", In: "query", Description: "true: the keys of this replica alone", Schema: &huma.Schema{Type: "boolean"}},
			{Name: "If-None-Match", In: "header", Description: "the ETag of the set that is known", Schema: &huma.Schema{Type: "string"}},
			httpkit.NonceHeader,
		},
		Status: http.StatusOK, Answer: JWKS{}, Type: keySetType,
		OtherAnswers: []httpkit.Other{{Status: http.StatusNotModified}},
	}
	route.Path, route.ID, route.Summary = "/api/pkeys", "public-keys", "The merged key set of all replicas (RFC 7517)"
	api.Handle(route, k.serve)
	route.Path, route.ID, route.Summary = jwksPath, "jwks", "The same as /api/pkeys"
	api.Handle(route, k.serve)
	api.Handle(httpkit.Route{
		Method: http.MethodGet, Path: "/api/pkeys/{kid}.pem", Pattern: "/api/pkeys/{file}", ID: "public-key", Tag: "keys",
		Summary: "One key of the set as PEM (RFC 7468 §13)", Errors: []int{http.StatusNotFound},
		Parameters: []*huma.Param{
			{Name: "kid", In: "path", Required: true, Description: "the kid of the key", Schema: &huma.Schema{Type: "string"}},
			{Name: "local", In: "query", Description: "true: of the keys of this replica alone", Schema: &huma.Schema{Type: "boolean"}},
			{Name: "If-None-Match", In: "header", Description: "the ETag of the key that is known", Schema: &huma.Schema{Type: "string"}},
		},
		Status: http.StatusOK, Answer: &huma.Schema{Type: "string"}, Type: pemType,
		OtherAnswers: []httpkit.Other{{Status: http.StatusNotModified}},
	}, k.servePEM)
}

// serve answers both paths with the same bytes; with ?local=true, with the keys of
// this replica.
func (k *KeySets) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.RawQuery != "" && r.URL.Query().Get("local") == "true" {
		k.serveLocal(w, r)
		return
	}
	a, err := k.answer()
	if err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	a.write(w, r)
}

// serveLocal answers a peer, which asks with a nonce, and anybody else.
func (k *KeySets) serveLocal(w http.ResponseWriter, r *http.Request) {
	a, err := k.localAnswer()
	if err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	nonce := r.Header.Get(cluster.HeaderNonce)
	if nonce == "" {
		a.write(w, r)
		return
	}
	if k.MutualTLS && !httpkit.ShowedCertificate(r) {
		httpkit.WriteProblem(w, httpkit.ErrNoCertificate)
		return
	}
	body, instance, mac, err := k.Answer(nonce)
	if err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	writePeer(w, keySetType, body, instance, mac)
}

// servePEM answers with one key. Only the keys that are at hand are looked through: a kid that
// nobody knows costs neither a look at the registry nor memory, so a flood needs no bound here.
func (k *KeySets) servePEM(w http.ResponseWriter, r *http.Request) {
	kid, isPEM := strings.CutSuffix(r.PathValue("file"), ".pem")
	if !isPEM {
		httpkit.WriteProblem(w, errNoRoute)
		return
	}
	a, err := k.pemAnswer(kid, r.URL.Query().Get("local") == "true")
	if err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	a.write(w, r)
}

// pemAnswer makes the answer for one key of the merged set or, with local, of this replica.
func (k *KeySets) pemAnswer(kid string, local bool) (*keySetAnswer, error) {
	set := k.Keys()
	if local {
		var keys []accesstoken.Key
		for _, key := range k.Local() {
			keys = append(keys, key.Key)
		}
		var err error
		if set, err = accesstoken.NewKeySet(keys...); err != nil {
			return nil, fmt.Errorf("httpapi: key set: %w", err)
		}
	}
	key, known := set.Key(kid)
	switch {
	case set.Len() == 0 && !k.MayBeEmpty:
		return nil, errNoKeys
	case !known:
		return nil, keyring.ErrUnknownKey
	}
	body, err := token.PublicPEM(key)
	if err != nil {
		return nil, fmt.Errorf("httpapi: public key: %w", err)
	}
	a := k.prepare(body, pemType)
	return &a, nil
}

func (a *keySetAnswer) write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	for _, f := range a.header {
		h[f.name] = f.values
	}
	if matches(r.Header.Get("If-None-Match"), a.etag) {
		delete(h, "Content-Length")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(a.body) // an error means that the client is gone
}

// answer makes the bytes of the merged set, unless they are prepared. Unless MayBeEmpty, an
// empty set is no answer: a cache would refuse every token by it.
func (k *KeySets) answer() (*keySetAnswer, error) {
	set := k.Keys()
	if a := k.merged.Load(); a != nil && a.set == set {
		return a, nil
	}
	if set.Len() == 0 && !k.MayBeEmpty {
		return nil, errNoKeys
	}
	body, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("httpapi: key set: %w", err)
	}
	a := k.prepare(body, keySetType)
	a.set = set
	k.merged.Store(&a)
	return &a, nil
}

// localAnswer is answer for the keys of this replica.
func (k *KeySets) localAnswer() (*localAnswer, error) {
	keys := k.Local()
	same := func(a, b keyring.PublicKey) bool { return a.ID == b.ID && a.Row.RemoveAt.Equal(b.Row.RemoveAt) }
	if a := k.local.Load(); a != nil && slices.EqualFunc(a.keys, keys, same) {
		return a, nil
	}
	if len(keys) == 0 && !k.MayBeEmpty {
		return nil, errNoKeys
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	set.Keys = []json.RawMessage{}
	for _, key := range keys {
		jwk, err := key.MarshalJSON()
		if err != nil {
			return nil, fmt.Errorf("httpapi: key set: %w", err)
		}
		end := key.Row.RemoveAt.Add(time.Second - 1).Unix() // rounded up
		set.Keys = append(set.Keys, fmt.Appendf(jwk[:len(jwk)-1], `,"exp":%d}`, end))
	}
	body, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("httpapi: key set: %w", err)
	}
	a := &localAnswer{keys, k.prepare(body, keySetType)}
	k.local.Store(a)
	return a, nil
}

// prepare makes an answer of a body of a type.
func (k *KeySets) prepare(body []byte, kind string) keySetAnswer {
	sum := sha256.Sum256(body)
	a := keySetAnswer{body: body, etag: `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`}
	a.header = [4]headerField{
		{"Content-Type", []string{kind}},
		{"Content-Length", []string{strconv.Itoa(len(body))}},
		{"Etag", []string{a.etag}},
		// A set that cannot be refreshed is better than none: keys leave it only
		// when all that they signed has expired, or through the revocation feed.
		{"Cache-Control", []string{fmt.Sprintf("public, max-age=%d, stale-while-revalidate=%d, stale-if-error=%d",
			k.MaxAge/time.Second, k.StaleFor/time.Second, login.KeySetOutage/time.Second)}},
	}
	return a
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
