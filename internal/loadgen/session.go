package loadgen

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// expiryLeeway is how long before its expiry, and after it, a token is not judged: clocks of
// client and replicas may differ by as much.
const expiryLeeway = 10 * time.Second

// A token is an access token, and what it says of itself.
type token struct {
	text    string
	session *session
	claims
	expires time.Time
}

// claims are the members of a token that tell whose it is.
type claims struct {
	Subject string `json:"sub"`
	Session string `json:"sid"`
	ID      string `json:"jti"`
	Expiry  int64  `json:"exp"`
}

// lives reports whether the token has certainly not expired.
func (t *token) lives() bool { return time.Now().Add(expiryLeeway).Before(t.expires) }

var errNoToken = errors.New("it is no JWT with sub, sid, jti and exp")

// readToken reads what a token says of itself. Its signature is for the service to check.
func readToken(text string) (*token, error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 || parts[2] == "" {
		return nil, errNoToken
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	t := &token{text: text}
	if err != nil || json.Unmarshal(payload, &t.claims) != nil || t.Subject == "" || t.Session == "" || t.ID == "" || t.Expiry == 0 {
		return nil, errNoToken
	}
	t.expires = time.Unix(t.Expiry, 0)
	return t, nil
}

// forged returns the token with another signature.
func (t *token) forged() string {
	at := strings.LastIndexByte(t.text, '.') + 5 // no padding bits there
	if at >= len(t.text) {
		at = len(t.text) - 1
	}
	other := byte('A')
	if t.text[at] == other {
		other = 'B'
	}
	return t.text[:at] + string(other) + t.text[at+1:]
}

// A session is one of a user. Whoever renews or ends it has taken it out of the pool.
type session struct {
	id      string
	user    int
	refresh string // belongs to whoever has taken the session
	first   *token // of the login: a logout revokes it as well
	latest  atomic.Pointer[token]

	// ending: a revocation was sent. What the service says of the tokens is right from then
	// on, until the bound after revoked.
	ending  atomic.Bool
	revoked atomic.Pointer[time.Time] // when the revocation was answered
}

func (s *session) current() *token { return s.latest.Load() }

// revokedAt is when the revocation of the session was answered; zero: it was not.
func (s *session) revokedAt() time.Time {
	if at := s.revoked.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// A pool has the sessions that live and are in nobody's hands.
type pool struct {
	mu    sync.Mutex
	free  []*session
	count []int // of each user's sessions, those in somebody's hands as well
}

func newPool(users []User) *pool { return &pool{count: make([]int, len(users))} }

// take returns a session, nil if there is none, and whether it is the caller's alone until
// they put it back. That is so on demand, and where its token is about to expire.
func (p *pool) take(random *rand.Rand, alone bool) (*session, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) == 0 {
		return nil, false
	}
	i := random.IntN(len(p.free))
	s := p.free[i]
	if alone = alone || !s.current().lives(); alone {
		p.free[i] = p.free[len(p.free)-1]
		p.free = p.free[:len(p.free)-1]
	}
	return s, alone
}

func (p *pool) put(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, s)
}

// reserve makes room for one more session and returns its user: any one, or the one with the
// fewest sessions where that one has too many. Without room it returns false.
func (p *pool) reserve(random *rand.Rand) (user int, ok bool) {
	user = random.IntN(len(p.count))
	if p.reserveFor(user) {
		return user, true
	}
	p.mu.Lock()
	user = slices.Index(p.count, slices.Min(p.count))
	p.mu.Unlock()
	return user, p.reserveFor(user)
}

func (p *pool) reserveFor(user int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count[user] >= maxSessions {
		return false
	}
	p.count[user]++
	return true
}

// release gives the room of one session back.
func (p *pool) release(user int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count[user]--
}
