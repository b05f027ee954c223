package loadgen

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"regexp"
	"time"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/limit"
)

// maxAnswer bounds what is read of an answer.
const maxAnswer = 64 << 10

// NewClient returns a client for so many requests at once, which trusts the authorities; nil:
// the system's. It follows no redirection, because credentials are for the service alone.
func NewClient(callers int, roots *x509.CertPool) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSClientConfig:     &tls.Config{RootCAs: roots},
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: callers,
			IdleConnTimeout:     90 * time.Second,
			DisableCompression:  true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// An outcome is what became of a request.
type outcome struct {
	failure  string // "" for what was answered as wanted
	refused  bool   // 429
	noAnswer bool   // in time
	unsure   bool   // nobody knows whether the service has done it
}

// An answer is one to a request.
type answer struct {
	began, ended time.Time
	status       int
	header       http.Header
	body         []byte
	block        string // of the client's address
	err          error
}

// codes are what the code of a problem looks like. Nothing else that a server says is told.
var codes = regexp.MustCompile(`^[a-z][a-z_]{0,49}$`)

// code is the code of a problem.
func (a *answer) code() string {
	var p httpkit.Problem
	_ = json.Unmarshal(a.body, &p) // a proxy's has none
	if !codes.MatchString(p.Code) {
		return ""
	}
	return p.Code
}

func (a *answer) String() string {
	if code := a.code(); code != "" {
		return fmt.Sprint(a.status, " ", code)
	}
	return fmt.Sprint(a.status, " ", http.StatusText(a.status))
}

// A caller sends requests and judges the answers.
type caller struct {
	client  *http.Client
	timeout time.Duration
	judge   *judge
}

func (c *caller) send(ctx context.Context, method, url, bearer string, body any) *answer {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	a := &answer{}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if host, _, err := net.SplitHostPort(info.Conn.LocalAddr().String()); err == nil {
			a.block = limit.Block(host)
		}
	}})
	var content []byte
	if body != nil {
		if content, a.err = json.Marshal(body); a.err != nil {
			return a
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(content))
	if err != nil {
		a.err = err
		return a
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	a.began = time.Now()
	resp, err := c.client.Do(r)
	if err == nil {
		a.status, a.header = resp.StatusCode, resp.Header
		a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		resp.Body.Close()
	}
	a.ended, a.err = time.Now(), err
	return a
}

// unwanted returns the outcome of an answer with another status than the wanted one. It
// reports false for a status that has to be judged.
func (a *answer) unwanted(want int) (outcome, bool) {
	var timeout net.Error
	switch {
	case errors.Is(a.err, context.DeadlineExceeded), errors.As(a.err, &timeout) && timeout.Timeout():
		return outcome{failure: "no answer in time", noAnswer: true, unsure: true}, true
	case a.err != nil:
		return outcome{failure: "no answer: the connection failed", noAnswer: true, unsure: true}, true
	case a.status == want:
		return outcome{}, false
	case a.status == http.StatusTooManyRequests:
		return outcome{failure: a.String(), refused: true}, true
	case a.status >= 500: // perhaps of a proxy
		return outcome{failure: a.String(), unsure: true}, true
	}
	return outcome{failure: a.String()}, false
}

// login returns the session that has begun; nil: none.
func (c *caller) login(ctx context.Context, base string, number int, u User) (*session, outcome) {
	known := c.judge.isKnown(number)
	a := c.send(ctx, http.MethodPost, base+"/api/login", "", httpapi.LoginRequest{Username: u.Username, Password: u.Password})
	c.judge.count("login", number, known, a)
	o, done := a.unwanted(http.StatusOK)
	switch {
	case done:
		return nil, o
	case a.status == http.StatusUnauthorized && a.code() == "mfa_required":
		return nil, c.judge.wrong(WrongAnswer, o, base, "user %s needs a second factor, which cannot be tested so", u.Username)
	case a.status == http.StatusUnauthorized:
		return nil, c.judge.wrong(ValidRejected, o, base, "the right password of user %s is answered %v", u.Username, a)
	case a.status != http.StatusOK:
		return nil, c.judge.wrong(WrongAnswer, o, base, "a login is answered %v", a)
	}
	t, refresh, err := readGrant(a.body)
	if err == nil {
		err = c.judge.sameSubject(number, t.Subject)
	}
	if err != nil {
		return nil, c.judge.wrong(WrongAnswer, o, base, "the answer to a login of user %s: %v", u.Username, err)
	}
	c.judge.setKnown(number, a.block)
	s := &session{id: t.Session, user: number, refresh: refresh, first: t}
	t.session = s
	s.latest.Store(t)
	return s, o
}

// renew spends the refresh token of a session. It stays what it is if there is no answer: the
// service takes it again then.
func (c *caller) renew(ctx context.Context, base string, s *session) outcome {
	a := c.send(ctx, http.MethodPost, base+"/api/renew", "", httpapi.RenewRequest{RefreshToken: s.refresh})
	c.judge.count("renew", s.user, true, a)
	o, done := a.unwanted(http.StatusOK)
	switch {
	case done:
		return o
	case a.status == http.StatusUnauthorized:
		return c.judge.wrong(ValidRejected, o, base, "a good refresh token is answered %v (session %s)", a, s.id)
	case a.status != http.StatusOK:
		return c.judge.wrong(WrongAnswer, o, base, "a renewal is answered %v", a)
	}
	t, refresh, err := readGrant(a.body)
	if err == nil && (t.Session != s.id || t.Subject != s.first.Subject) {
		err = errors.New("it is of another session or user")
	}
	if err != nil {
		return c.judge.wrong(WrongAnswer, o, base, "the answer to a renewal of session %s: %v", s.id, err)
	}
	t.session = s
	s.refresh = refresh
	s.latest.Store(t)
	return o
}

// verify asks about a token.
func (c *caller) verify(ctx context.Context, base string, t *token, bound time.Duration) outcome {
	before := t.session.revokedAt()
	a := c.send(ctx, http.MethodGet, base+"/api/verify", t.text, nil)
	c.judge.count("api", t.session.user, true, a)
	o, done := a.unwanted(http.StatusOK)
	switch {
	case done:
		return o
	case a.status == http.StatusUnauthorized:
		if t.session.ending.Load() || !t.lives() {
			return outcome{} // as it should be
		}
		return c.judge.wrong(ValidRejected, o, base, "a good token is answered %v (jti %s)", a, t.ID)
	case a.status != http.StatusOK:
		return c.judge.wrong(WrongAnswer, o, base, "a verification is answered %v", a)
	}
	var got claims
	if err := json.Unmarshal(a.body, &got); err != nil || got != t.claims {
		return c.judge.wrong(WrongAnswer, o, base, "a verification is answered 200 without the claims of the token (jti %s)", t.ID)
	}
	if !before.IsZero() && a.began.Sub(before) > bound {
		return c.judge.tooLate(o, base, t, a.began.Sub(before))
	}
	return o
}

// logout ends a session. It sets when that was answered, if it was.
func (c *caller) logout(ctx context.Context, base string, s *session) outcome {
	t := s.current()
	s.ending.Store(true)
	a := c.send(ctx, http.MethodPost, base+"/api/logout", t.text, nil)
	c.judge.count("api", s.user, true, a)
	o, done := a.unwanted(http.StatusNoContent)
	switch {
	case done: // nobody knows whether the session has ended
		return o
	case a.status == http.StatusNoContent:
		s.revoked.Store(&a.ended)
		return o
	case a.status == http.StatusUnauthorized && t.lives():
		return c.judge.wrong(ValidRejected, o, base, "a logout with a good token is answered %v (jti %s)", a, t.ID)
	case a.status == http.StatusUnauthorized:
		return o
	}
	return c.judge.wrong(WrongAnswer, o, base, "a logout is answered %v", a)
}

// end is a logout that nobody judges.
func (c *caller) end(ctx context.Context, base string, s *session) {
	s.ending.Store(true)
	c.send(ctx, http.MethodPost, base+"/api/logout", s.current().text, nil)
}

// accepts asks about a token that may be revoked.
func (c *caller) accepts(ctx context.Context, base string, t *token) (accepted bool, a *answer) {
	a = c.send(ctx, http.MethodGet, base+"/api/verify", t.text, nil)
	return a.err == nil && a.status == http.StatusOK, a
}

// forged asks about a token whose signature was changed.
func (c *caller) forged(ctx context.Context, base string, t *token) {
	a := c.send(ctx, http.MethodGet, base+"/api/verify", t.forged(), nil)
	if a.err == nil && a.status == http.StatusOK {
		c.judge.wrong(ForgedAccepted, outcome{}, base, "a token with another signature is accepted (jti %s)", t.ID)
	}
}

// readGrant reads the answer to a login or a renewal.
func readGrant(body []byte) (t *token, refresh string, err error) {
	var g httpapi.Grant
	if err := json.Unmarshal(body, &g); err != nil {
		return nil, "", errors.New("it is not the JSON of a grant")
	}
	t, err = readToken(g.AccessToken)
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("access_token: %w", err)
	case g.TokenType != "Bearer" || g.ExpiresIn <= 0 || g.RefreshToken == "":
		return nil, "", errors.New("token_type, expires_in or refresh_token is missing")
	case t.Session != g.SessionID:
		return nil, "", errors.New("the access token is of another session")
	}
	return t, g.RefreshToken, nil
}
