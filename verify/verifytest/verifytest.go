// Package verifytest is for the tests of resource servers. It has an issuer of tokens within
// the test, with a key set, and a feed to which the test adds revocations.
//
//	issuer := verifytest.New(t)
//	v, err := verify.New(issuer.Config())
//	…
//	request.Header.Set("Authorization", "Bearer "+issuer.Token("user-1", map[string]string{"ship": "acc"}))
package verifytest

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// Audience is the aud of the tokens.
const Audience = "https://resource.example"

const (
	heartbeat = 100 * time.Millisecond
	pageLimit = 1000
	logID     = "verifytest"
)

// An Issuer stands in for a Watchword cluster. It is safe for concurrent use.
type Issuer struct {
	// URL is the tokens' iss, where the key set and the feed are served.
	URL string

	t      testing.TB
	closed <-chan struct{}
	close  func()

	mu      sync.Mutex        // guards everything below
	keys    []accesstoken.Key // published; the last one signs
	signing *ecdsa.PrivateKey
	tokens  int
	list    *revoked.List
	head    int64
	news    chan struct{} // closed and replaced by every revocation
}

// New starts an issuer with one key. It ends with the test.
func New(t testing.TB) *Issuer {
	i := NewAt(t, "")
	server := httptest.NewServer(i)
	i.URL = server.URL
	t.Cleanup(func() {
		i.close() // ends the streams, which server.Close waits for
		server.Close()
	})
	return i
}

// NewAt makes an issuer that the test itself serves under the URL, as an http.Handler:
// behind a proxy, or without a network in a testing/synctest bubble.
func NewAt(t testing.TB, url string) *Issuer {
	closed := make(chan struct{})
	i := &Issuer{
		URL: url, t: t, list: new(revoked.List), news: make(chan struct{}),
		closed: closed, close: sync.OnceFunc(func() { close(closed) }),
	}
	t.Cleanup(i.close)
	i.Rotate()
	return i
}

// Config returns that of a Verifier that trusts this issuer.
func (i *Issuer) Config() verify.Config {
	return verify.Config{Issuer: i.URL, Audience: []string{Audience}}
}

// Rotate publishes a new key, which signs from now on.
func (i *Issuer) Rotate() {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	key, err := accesstoken.NewKey("key-"+strconv.Itoa(len(i.keys)+1), accesstoken.ES256, &private.PublicKey)
	if err != nil {
		i.t.Fatal(err)
	}
	i.keys, i.signing = append(i.keys, key), private
}

// Token issues an access token with the claims for a subject. It is valid for half an hour, and
// says nothing of an authentication (see TokenAfter).
func (i *Issuer) Token(subject string, claims map[string]string) string {
	return i.TokenAfter(Authentication{}, subject, claims)
}

// An Authentication is when and how a user authenticated.
type Authentication struct {
	At  time.Time // auth_time; left out when zero
	AMR []string  // amr, such as "pwd" and "otp"; left out when empty
	ACR string    // acr; left out when empty
}

// TokenAfter issues what Token does, after an authentication: for the tests of routes with
// verify.FreshAuth, verify.AMR or verify.ACR.
func (i *Issuer) TokenAfter(a Authentication, subject string, claims map[string]string) string {
	members := make(map[string]any, len(claims)+3)
	for name, value := range claims {
		members[name] = value
	}
	if !a.At.IsZero() {
		members["auth_time"] = a.At.Unix()
	}
	if len(a.AMR) > 0 {
		members["amr"] = a.AMR
	}
	if a.ACR != "" {
		members["acr"] = a.ACR
	}
	return i.Sign(subject, members)
}

// Sign issues an access token with what Token puts into it, and with the members, which
// replace those of the same name. A nil leaves one out. So a test can make a token that has
// expired.
func (i *Issuer) Sign(subject string, members map[string]any) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.tokens++
	now := time.Now().Unix()
	payload := jwt.MapClaims{
		"iss": i.URL, "aud": Audience, "sub": subject, "client_id": "watchword", "epoch": 0,
		"jti": "token-" + strconv.Itoa(i.tokens), "sid": "session-" + subject,
		"iat": now, "exp": now + 1800,
	}
	maps.Copy(payload, members)
	maps.DeleteFunc(payload, func(_ string, v any) bool { return v == nil })
	token := jwt.NewWithClaims(jwt.SigningMethodES256, payload)
	token.Header["typ"], token.Header["kid"] = "at+jwt", i.keys[len(i.keys)-1].ID
	input, err := token.SigningString()
	if err != nil {
		i.t.Fatal(err)
	}
	signature, err := token.Method.Sign(input, i.signing)
	if err != nil {
		i.t.Fatal(err)
	}
	return input + "." + token.EncodeSegment(accesstoken.CanonicalSignature(accesstoken.ES256, signature))
}

// Revoke revokes a token by its jti, a session by its id, or a key by its kid.
func (i *Issuer) Revoke(kind revoked.Kind, name string) {
	i.push(revoked.Entry{Kind: kind, ID: revoked.Digest(kind, name)})
}

// RevokeUser revokes those tokens of a user that have a lower epoch.
func (i *Issuer) RevokeUser(subject string, epoch int64) {
	i.push(revoked.Entry{Kind: revoked.User, ID: revoked.Digest(revoked.User, subject), Epoch: epoch})
}

func (i *Issuer) push(e revoked.Entry) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.head++
	e.Seq, e.ExpiresAt = i.head, time.Now().Add(time.Hour).Unix()
	if err := i.list.Apply(e); err != nil {
		i.t.Fatal(err)
	}
	close(i.news)
	i.news = make(chan struct{})
}

// ServeHTTP serves the key set and the feed.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/.well-known/jwks.json", "/api/pkeys":
		i.serveKeys(w)
	case "/api/revocations":
		i.serveFeed(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (i *Issuer) serveKeys(w http.ResponseWriter) {
	i.mu.Lock()
	set, err := accesstoken.NewKeySet(i.keys...)
	i.mu.Unlock()
	if err != nil {
		i.t.Error(err)
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "public, max-age=30")
	i.write(w, set)
}

func (i *Issuer) serveFeed(w http.ResponseWriter, r *http.Request) {
	after, _ := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64)
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		after, _ = strconv.ParseInt(strings.TrimPrefix(id, logID+":"), 10, 64)
	}
	w.Header().Set("Cache-Control", "no-store")
	if r.Header.Get("Accept") == "text/event-stream" {
		i.stream(w, r, after)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	wait, _ := strconv.Atoi(r.URL.Query().Get("wait"))
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	i.write(w, i.await(r, after, cmp.Or(limit, pageLimit), time.Duration(wait)*time.Second))
}

// await holds the page back until it has something new, or the reader's time is over.
func (i *Issuer) await(r *http.Request, after int64, limit int, wait time.Duration) revoked.Page {
	began := time.Now()
	page, news := i.page(after, limit)
	if wait == 0 {
		return page
	}
	enough := time.NewTimer(wait)
	defer enough.Stop()
	for over := false; page.Head <= after && !over; page, news = i.page(after, limit) {
		select {
		case <-news:
		case <-enough.C:
			over = true
		case <-r.Context().Done():
			over = true
		case <-i.closed:
			over = true
		}
	}
	waited := time.Since(began).Milliseconds()
	page.Waited = &waited
	return page
}

func (i *Issuer) page(after int64, limit int) (revoked.Page, <-chan struct{}) {
	i.mu.Lock()
	defer i.mu.Unlock()
	p := revoked.Page{Version: revoked.Version, Log: logID, Head: i.head, AsOf: time.Now().UTC(), Heartbeat: heartbeat.Milliseconds(), Entries: i.list.After(after, limit)}
	p.More = len(p.Entries) == limit
	return p, i.news
}

func (i *Issuer) stream(w http.ResponseWriter, r *http.Request, after int64) {
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	event := "resume"
	if after == 0 {
		event = "snapshot"
	}
	for {
		page, news := i.page(after, pageLimit)
		if event != "" {
			i.event(w, event, page)
			event = ""
		}
		for _, e := range page.Entries {
			i.event(w, "revocation", e)
		}
		if after = page.Next(); page.More {
			continue
		}
		i.event(w, "head", page)
		if control.Flush() != nil {
			return
		}
		select {
		case <-news:
		case <-time.After(heartbeat):
		case <-r.Context().Done():
			return
		case <-i.closed:
			return
		}
	}
}

func (i *Issuer) event(w http.ResponseWriter, name string, data any) {
	fmt.Fprintf(w, "event: %s\ndata: ", name)
	i.write(w, data)
	fmt.Fprint(w, "\n")
}

// write writes JSON and a newline. It is no error if the reader has gone.
func (i *Issuer) write(w http.ResponseWriter, data any) {
	_ = json.NewEncoder(w).Encode(data)
}
