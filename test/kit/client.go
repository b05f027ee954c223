package kit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A Log is what a replica wrote.
type Log interface {
	io.Writer
	String() string
	Tail() string
}

// A Client calls one replica. A call that must not fail ends the test when it does.
type Client struct {
	T       testing.TB
	URL     string       // of the replica
	Handler http.Handler // nil: calls go over the network
	HTTP    *http.Client // nil: http.DefaultClient
	Log     Log          // of the replica, for messages; nil: there is none
}

// An Answer is the answer to a request.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Code is the code of a problem, empty for other answers.
func (a Answer) Code() string {
	var p httpkit.Problem
	_ = json.Unmarshal(a.Body, &p)
	return p.Code
}

// Decode reads the JSON of an answer.
func Decode[T any](t testing.TB, a Answer) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(a.Body, &v); err != nil {
		t.Fatalf("%v in %s", err, a.Body)
	}
	return v
}

// Request makes a request. A body that is no string is encoded as JSON; with an empty token
// there is no Authorization.
func (c *Client) Request(method, path, token string, body any) *http.Request {
	c.T.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			c.T.Fatal(err)
		}
		reader = bytes.NewReader(encoded)
	}
	r, err := http.NewRequestWithContext(c.T.Context(), method, c.URL+path, reader)
	if err != nil {
		c.T.Fatal(err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}

// Try sends a request to a replica that may not answer.
func (c *Client) Try(r *http.Request) (Answer, error) {
	learnRequest(r)
	a, err := c.try(r)
	learnAnswer(a)
	return a, err
}

func (c *Client) try(r *http.Request) (Answer, error) {
	if c.Handler != nil {
		r.RequestURI, r.RemoteAddr = r.URL.RequestURI(), "127.0.0.1:50000"
		if r.Body == nil {
			r.Body = http.NoBody
		}
		rec := httptest.NewRecorder()
		c.Handler.ServeHTTP(rec, r)
		return Answer{rec.Code, rec.Header(), rec.Body.Bytes()}, nil
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(r)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return Answer{resp.StatusCode, resp.Header, body}, err
}

// Send sends a request.
func (c *Client) Send(r *http.Request) Answer {
	c.T.Helper()
	a, err := c.Try(r)
	if err != nil {
		c.T.Fatal(err)
	}
	return a
}

// Do makes and sends a request.
func (c *Client) Do(method, path, token string, body any) Answer {
	c.T.Helper()
	return c.Send(c.Request(method, path, token, body))
}

// Want fails the test unless an answer has the status and, if it is a problem, the code.
func (c *Client) Want(a Answer, status int, code string) Answer {
	c.T.Helper()
	if a.Status != status || a.Code() != code {
		log := ""
		if c.Log != nil {
			log = c.Log.Tail()
		}
		c.T.Fatalf("got %d %q, want %d %q\n%s\n%s", a.Status, a.Code(), status, code, a.Body, log)
	}
	return a
}

// Login logs a user in who has the usual password.
func (c *Client) Login(username string) httpapi.Grant {
	c.T.Helper()
	return c.LoginWith(username, Password)
}

// LoginWith logs a user in, again where a busy machine answers 503.
func (c *Client) LoginWith(username, password string) httpapi.Grant {
	c.T.Helper()
	a := Patiently(func() Answer {
		return c.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: username, Password: password})
	}, func(a Answer) int { return a.Status })
	return Decode[httpapi.Grant](c.T, c.Want(a, 200, ""))
}

// Renew spends a refresh token. The grant is empty if the answer is not 200.
func (c *Client) Renew(refreshToken string) (g httpapi.Grant, a Answer) {
	c.T.Helper()
	a = c.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: refreshToken})
	if a.Status == 200 {
		g = Decode[httpapi.Grant](c.T, a)
	}
	return g, a
}

// Verify returns the claims of a token that is accepted.
func (c *Client) Verify(token string) map[string]any {
	c.T.Helper()
	return Decode[map[string]any](c.T, c.Want(c.Do("GET", "/api/verify", token, nil), 200, ""))
}

// Expiry is the exp of a token that is accepted.
func (c *Client) Expiry(token string) time.Time {
	c.T.Helper()
	return time.Unix(int64(c.Verify(token)["exp"].(float64)), 0)
}

// Accepts waits until a token is accepted. A replica that the machine has kept waiting does
// not know for a moment what was revoked, and answers 503.
func (c *Client) Accepts(token string) {
	c.T.Helper()
	Eventually(c.T, func() error {
		a := c.Do("GET", "/api/verify", token, nil)
		if a.Code() == "revocation_stale" {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		c.Want(a, 200, "")
		return nil
	})
}

// Refuses waits until a token is refused with a code. No request that begins later than the
// bound after a moment may be answered 200.
func (c *Client) Refuses(token, code string, since time.Time, bound time.Duration) {
	c.T.Helper()
	Eventually(c.T, func() error {
		began := time.Now()
		a := c.Do("GET", "/api/verify", token, nil)
		if a.Status == 200 && began.Sub(since) > bound {
			c.T.Errorf("accepted %v after it should have been refused with %s", began.Sub(since), code)
		}
		if a.Code() != code {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})
}

// Revoke has an administrator revoke something.
func (c *Client) Revoke(token string, what map[string]any) {
	c.T.Helper()
	c.Want(c.Do("POST", "/api/revocations", token, what), 200, "")
}

// KeyIDs are the sorted ids of the merged key set.
func (c *Client) KeyIDs() (ids []string) {
	c.T.Helper()
	for _, k := range Decode[httpapi.JWKS](c.T, c.Want(c.Do("GET", "/api/pkeys", "", nil), 200, "")).Keys {
		ids = append(ids, k.KeyID)
	}
	slices.Sort(ids)
	return ids
}

// Trail gets all pages of the audit trail that a query selects.
func (c *Client) Trail(token string, query url.Values) (all []httpapi.AuditEvent) {
	c.T.Helper()
	for {
		a := c.Want(c.Do("GET", "/api/audit?"+query.Encode(), token, nil), 200, "")
		page := Decode[httpapi.AuditList](c.T, a)
		if !strings.Contains(string(a.Body), `"events":[`) {
			c.T.Errorf("no array: %s", a.Body)
		}
		all = append(all, page.Events...)
		if page.Next == "" {
			return all
		}
		query.Set("after", page.Next)
	}
}

// WantBackend waits until /health gives a backend the status. A probe may come too late.
func (c *Client) WantBackend(name, status string) {
	c.T.Helper()
	Eventually(c.T, func() error {
		report := Decode[httpapi.HealthReport](c.T, c.Do("GET", "/health", "", nil))
		if report.Backends[name].Status != status {
			return fmt.Errorf("the health of %s is not %s: %+v", name, status, report)
		}
		return nil
	})
}

// SameKeySet fails the test unless replicas serve one key set, with so many keys.
func SameKeySet(t testing.TB, keys int, replicas ...*Client) {
	t.Helper()
	tag := func(c *Client) string {
		return c.Want(c.Do("GET", "/api/pkeys", "", nil), 200, "").Header.Get("ETag")
	}
	for _, c := range replicas[1:] {
		if got, want := c.KeyIDs(), replicas[0].KeyIDs(); !slices.Equal(got, want) || len(got) != keys {
			t.Errorf("key sets differ: %v and %v", got, want)
		}
		if got, want := tag(c), tag(replicas[0]); got != want || got == "" {
			t.Errorf("the same key set has the ETags %s and %s", got, want)
		}
	}
}

// Metric is the sum of a metric over the labels that are not named.
func (c *Client) Metric(name string) float64 {
	c.T.Helper()
	n, found := Sum(c.T, string(c.Do("GET", "/metrics", "", nil).Body), name)
	if !found {
		c.T.Fatalf("no metric %s", name)
	}
	return n
}

// Sum is Metric for the text of /metrics.
func Sum(t testing.TB, metrics, name string) (sum float64, found bool) {
	t.Helper()
	for line := range strings.Lines(metrics) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		fields := strings.Fields(rest)
		n, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			t.Fatal(err)
		}
		sum, found = sum+n, true
	}
	return sum, found
}

// KeyID is the kid of a token.
func KeyID(t testing.TB, token string) string {
	t.Helper()
	rules := accesstoken.Rules{}
	in := rules.Inspect(token, time.Now(), func(string) (accesstoken.Key, error) { return accesstoken.Key{}, accesstoken.ErrUnknownKey })
	kid, _ := in.Header["kid"].(string)
	if kid == "" {
		t.Fatalf("no kid in %s", token)
	}
	return kid
}
