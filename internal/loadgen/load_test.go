package loadgen

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A service is replicas that do as the API says, but for its faults.
type service struct {
	mu       sync.Mutex
	began    time.Time
	sessions map[string]string // by refresh token
	revoked  map[string]time.Time
	n        int
	logins   map[string][]time.Time // that were allowed, by user
	burst    int                    // of logins for an account, in a minute; 0: no limit

	takes       time.Duration                                            // each request
	known       time.Duration                                            // until a revoked token is refused
	hold        func(r *http.Request, since time.Duration) time.Duration // how long a request that comes then waits
	instead     func(r *http.Request, since time.Duration) (int, string) // status 0: as the API says
	overrun     int                                                      // logins that are allowed beyond burst
	believesAll bool                                                     // signatures are not looked at
}

func newService() *service {
	return &service{began: time.Now(), sessions: map[string]string{}, revoked: map[string]time.Time{}, logins: map[string][]time.Time{}, takes: time.Millisecond}
}

// RoundTrip is the service as seen by a client. There is no network in a bubble.
func (s *service) RoundTrip(r *http.Request) (*http.Response, error) {
	since := time.Since(s.began)
	wait := s.takes
	if s.hold != nil {
		wait += s.hold(r, since)
	}
	select {
	case <-time.After(wait):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	rec := httptest.NewRecorder()
	if s.instead != nil {
		if status, body := s.instead(r, since); status != 0 {
			rec.WriteHeader(status)
			_, _ = rec.WriteString(body)
			return rec.Result(), nil
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r.URL.Path {
	case "/api/login":
		s.login(rec, r)
	case "/api/renew":
		var in struct {
			RefreshToken string `json:"refresh_token"`
		}
		_ = json.NewDecoder(r.Body).Decode(&in)
		id, ok := s.sessions[in.RefreshToken]
		if _, ended := s.revoked[id]; !ok || ended {
			rec.WriteHeader(http.StatusUnauthorized)
			break
		}
		delete(s.sessions, in.RefreshToken)
		s.grant(rec, id)
	case "/api/verify", "/api/logout":
		_, text, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		t, err := readToken(text)
		at, revoked := s.revoked[t.Session]
		switch {
		case err != nil || !strings.HasSuffix(text, ".signature") && !s.believesAll, revoked && time.Since(at) >= s.known:
			rec.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/api/verify":
			_ = json.NewEncoder(rec).Encode(t.claims)
		default:
			s.revoked[t.Session] = time.Now()
			rec.WriteHeader(http.StatusNoContent)
		}
	default:
		rec.WriteHeader(http.StatusNotFound)
	}
	return rec.Result(), nil
}

func (s *service) login(rec *httptest.ResponseRecorder, r *http.Request) {
	var in struct{ Username string }
	body, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(body, &in)
	if s.burst > 0 {
		rec.Header().Set("RateLimit-Policy", fmt.Sprintf(`"login-address";q=100000;w=1, "login-account";q=%d;w=60`, s.burst))
		// The bucket by itself: how full it would be.
		level, last := 0.0, s.began
		for _, at := range s.logins[in.Username] {
			level, last = max(0, level-at.Sub(last).Seconds()*float64(s.burst)/60)+1, at
		}
		if max(0, level-time.Since(last).Seconds()*float64(s.burst)/60)+1 > float64(s.burst+s.overrun) {
			rec.Header().Set("Retry-After", "1")
			rec.WriteHeader(http.StatusTooManyRequests)
			return
		}
		s.logins[in.Username] = append(s.logins[in.Username], time.Now())
	}
	s.n++
	s.grant(rec, fmt.Sprint(in.Username, "/", s.n))
}

func (s *service) grant(rec *httptest.ResponseRecorder, id string) {
	s.n++
	user, _, _ := strings.Cut(id, "/")
	payload, _ := json.Marshal(claims{Subject: "id of " + user, Session: id, ID: fmt.Sprint("token ", s.n), Expiry: time.Now().Add(time.Hour).Unix()})
	refresh := fmt.Sprint("refresh ", s.n)
	s.sessions[refresh] = id
	_ = json.NewEncoder(rec).Encode(map[string]any{
		"access_token": "e30." + base64.RawURLEncoding.EncodeToString(payload) + ".signature", "token_type": "Bearer", "expires_in": 3600,
		"refresh_token": refresh, "session_id": id,
	})
}

// try runs a load of four seconds on a service.
func try(t *testing.T, s *service, change func(*Config)) *Report {
	t.Helper()
	c := Config{
		URLs: []string{"http://a", "http://b", "http://c"}, Mix: Mix{Login: 5, Renew: 20, Verify: 70, Revoke: 5},
		Callers: 20, Sessions: 20, Duration: 4 * time.Second, Timeout: 5 * time.Second, Bound: time.Second,
		Client: &http.Client{Transport: s}, Seed: 1, Rate: 200,
	}
	for i := range 10 {
		c.Users = append(c.Users, User{fmt.Sprint("user", i), "password"})
	}
	if change != nil {
		change(&c)
	}
	rep, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func TestAGoodServiceHasNoViolation(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"open loop":        nil,
		"closed loop":      func(c *Config) { c.Rate, c.Callers = 0, 1 },
		"only logins":      func(c *Config) { c.Mix, c.Users = Mix{Login: 1}, c.Users[:1] }, // more than there is room for
		"only revocations": func(c *Config) { c.Mix = Mix{Revoke: 1} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newService()
				s.known = 500 * time.Millisecond
				rep := try(t, s, change)
				if err := rep.Verdict(); err != nil {
					t.Error(err)
				}
				total, seen := int64(0), int64(0)
				for _, m := range rep.Operations {
					total += m.Done
					if m.Failed() != 0 || m.Done == 0 {
						t.Errorf("%s: %d done, failed %v", m.Operation, m.Done, m.Failures)
					}
					if m.Latency.P50 < 1 || m.Latency.Max > 3 {
						t.Errorf("%s: each takes a millisecond: %+v", m.Operation, m.Latency)
					}
				}
				want := int64(800)
				if rep.Loop == "closed" {
					want = 4000
				}
				if total < want*95/100 || total > want {
					t.Errorf("%d requests, want %d", total, want)
				}
				for _, one := range rep.Revocations.Seen {
					seen += one.Count
					if one.Count > 0 && (one.P50 < 500 || one.Max > 510) {
						t.Errorf("revoked tokens are refused after half a second: %+v", one)
					}
				}
				if v := rep.Revocations; v.Total == 0 || seen == 0 || v.Skipped > 0 || v.Silent > 0 {
					t.Errorf("%+v", v)
				}
				live := 0
				for _, id := range s.sessions {
					if _, ended := s.revoked[id]; !ended {
						live++
					}
				}
				if live > 0 {
					t.Errorf("%d sessions are left", live)
				}
			})
		})
	}
}

// Each fault is seen, and told as what it is.
func TestFaults(t *testing.T) {
	at := func(path string, after time.Duration, status int, body string) func(*http.Request, time.Duration) (int, string) {
		return func(r *http.Request, since time.Duration) (int, string) {
			if r.URL.Path == path && since > after {
				return status, body
			}
			return 0, ""
		}
	}
	onHost := func(host string, f func(*http.Request, time.Duration) (int, string)) func(*http.Request, time.Duration) (int, string) {
		return func(r *http.Request, since time.Duration) (int, string) {
			if r.URL.Host != host {
				return 0, ""
			}
			return f(r, since)
		}
	}
	for name, c := range map[string]struct {
		fault func(*service)
		want  Violation
		run   func(*Config)
	}{
		"a revoked token is accepted a moment after the bound": {func(s *service) { s.known = 1100 * time.Millisecond }, RevokedAccepted, nil},
		"a revoked token is accepted for ever":                 {func(s *service) { s.known = time.Hour }, RevokedAccepted, nil},
		"… seen by one login and one logout": {func(s *service) { s.known = time.Hour }, RevokedAccepted, func(c *Config) {
			c.Mix, c.Rate, c.Callers, c.Sessions = Mix{Login: 1, Revoke: 1}, 0.5, 1, 1
		}},
		"a revoked token comes back": {func(s *service) {
			s.instead = func(r *http.Request, since time.Duration) (int, string) {
				if since > 4100*time.Millisecond { // the load is over
					s.mu.Lock()
					s.known = time.Hour
					s.mu.Unlock()
				}
				return 0, ""
			}
		}, RevokedAccepted, nil},
		"one replica knows no revocation": {func(s *service) {
			s.instead = onHost("b", func(r *http.Request, _ time.Duration) (int, string) {
				_, text, _ := strings.Cut(r.Header.Get("Authorization"), " ")
				token, err := readToken(text)
				if r.URL.Path != "/api/verify" || err != nil || !strings.HasSuffix(text, ".signature") {
					return 0, ""
				}
				body, _ := json.Marshal(token.claims)
				return 200, string(body)
			})
		}, RevokedAccepted, nil},
		"good tokens are rejected":         {func(s *service) { s.instead = at("/api/verify", time.Second, 401, "") }, ValidRejected, nil},
		"good tokens are rejected by one":  {func(s *service) { s.instead = onHost("c", at("/api/verify", time.Second, 401, "")) }, ValidRejected, nil},
		"good refresh tokens are rejected": {func(s *service) { s.instead = at("/api/renew", time.Second, 401, "") }, ValidRejected, nil},
		"right passwords are rejected":     {func(s *service) { s.instead = at("/api/login", time.Second, 401, "") }, ValidRejected, nil},
		"logouts with good tokens":         {func(s *service) { s.instead = at("/api/logout", time.Second, 401, "") }, ValidRejected, nil},
		"forged tokens are accepted":       {func(s *service) { s.believesAll = true }, ForgedAccepted, nil},
		"200 without claims":               {func(s *service) { s.instead = at("/api/verify", time.Second, 200, "{}") }, WrongAnswer, nil},
		"200 and no JSON":                  {func(s *service) { s.instead = at("/api/verify", time.Second, 200, "<html>OK</html>") }, WrongAnswer, nil},
		"200 with the claims of somebody": {func(s *service) {
			s.instead = at("/api/verify", time.Second, 200, `{"sub":"id of user1","sid":"x","jti":"y","exp":1}`)
		}, WrongAnswer, nil},
		"204 for a verification":     {func(s *service) { s.instead = at("/api/verify", time.Second, 204, "") }, WrongAnswer, nil},
		"a login that gives nothing": {func(s *service) { s.instead = at("/api/login", time.Second, 200, "{}") }, WrongAnswer, nil},
		"a renewal that gives nonsense": {func(s *service) {
			s.instead = at("/api/renew", time.Second, 200, `{"access_token":"a.b.c","token_type":"Bearer"}`)
		}, WrongAnswer, nil},
		"a logout that answers a page":        {func(s *service) { s.instead = at("/api/logout", time.Second, 200, "") }, WrongAnswer, nil},
		"a redirection":                       {func(s *service) { s.instead = at("/api/verify", time.Second, 302, "") }, WrongAnswer, nil},
		"a limit is overrun":                  {func(s *service) { s.burst, s.overrun = 30, 2 }, LimitOverrun, func(c *Config) { c.ProbeLimits = true }},
		"each replica has a limit of its own": {func(s *service) { s.burst, s.overrun = 30, 60 }, LimitOverrun, func(c *Config) { c.ProbeLimits = true }},
		"one replica has no limit": {func(s *service) {
			s.burst = 30
			s.instead = onHost("b", func(r *http.Request, _ time.Duration) (int, string) {
				if r.URL.Path != "/api/login" {
					return 0, ""
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				var in struct{ Username string }
				_ = json.NewDecoder(r.Body).Decode(&in)
				rec := httptest.NewRecorder()
				s.n++
				s.grant(rec, fmt.Sprint(in.Username, "/", s.n))
				return 200, rec.Body.String()
			})
		}, LimitOverrun, func(c *Config) { c.ProbeLimits = true }},
		"an expected limit is not there": {func(*service) {}, LimitOverrun, func(c *Config) { c.Rate, c.Limits = 200, []Limit{{"renew-account", 20, time.Minute}} }},
		"no limit to probe":              {func(*service) {}, WrongAnswer, func(c *Config) { c.ProbeLimits = true }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newService()
				c.fault(s)
				rep := try(t, s, func(to *Config) {
					to.Rate = 100
					if c.run != nil {
						c.run(to)
					}
				})
				err := rep.Verdict()
				if !strings.Contains(fmt.Sprint(err), string(c.want)+": ") {
					t.Fatalf("the verdict is %v, want %q", err, c.want)
				}
				// Whatever is answered 200 is accepted, for a proxy that asks.
				if len(rep.Violations) != 1 && !strings.HasPrefix(name, "200") {
					t.Errorf("one fault has several violations: %v", err)
				}
				var text bytes.Buffer
				if err := rep.WriteText(&text); err != nil || !strings.Contains(text.String(), "VIOLATION "+string(c.want)) {
					t.Errorf("%v in %s", err, &text)
				}
			})
		})
	}
}

// A limit that holds has no violation, and the most that it allows is nearly all of it.
func TestALimitThatHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		s.burst = 30
		rep := try(t, s, func(c *Config) {
			c.Mix, c.Users, c.ProbeLimits = Mix{Login: 1, Verify: 9}, c.Users[:1], true
		})
		if err := rep.Verdict(); err != nil {
			t.Error(err)
		}
		for _, l := range rep.Limits {
			if l.Name == "login-account" && l.MostUsed > 0.8 && l.MostUsed <= 1 && l.Refused > 0 {
				return
			}
		}
		t.Errorf("%+v", rep.Limits)
	})
}

// A second in which nothing is answered is seen in the open loop as what it is to clients who
// come all the time: a tenth of ten seconds, though few requests were under way.
func TestAStallIsNotOmitted(t *testing.T) {
	stall := func(_ *http.Request, since time.Duration) time.Duration {
		if since > 5*time.Second && since < 6*time.Second {
			return 6*time.Second - since
		}
		return 0
	}
	quantiles := func(t *testing.T, rate float64) (latency Quantiles, service *Quantiles, rep *Report) {
		s := newService()
		s.hold = stall
		s.takes = 10 * time.Millisecond
		rep = try(t, s, func(c *Config) {
			c.Rate, c.Callers, c.Mix, c.Duration = rate, 4, Mix{Verify: 1}, 10*time.Second
		})
		if err := rep.Verdict(); err != nil {
			t.Error(err)
		}
		return rep.Operations[0].Latency, rep.Operations[0].Service, rep
	}
	synctest.Test(t, func(t *testing.T) {
		latency, service, rep := quantiles(t, 200)
		// It takes a while more until four callers have caught up.
		if latency.P90 < 100 || latency.P99 < 900 || latency.Max < 990 || latency.P50 > 11 {
			t.Errorf("a stall of a second in ten is hidden: %+v", latency)
		}
		if service.P99 > 11 {
			t.Errorf("four requests of two thousand stood: %+v", service)
		}
		slow := 0
		for _, p99 := range rep.Timeline[0].P99 {
			if p99 > 100 {
				slow++
			}
		}
		if slow < 9 || slow > 25 {
			t.Errorf("%d of %d intervals of the timeline are slow", slow, len(rep.Timeline[0].P99))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		if latency, _, _ := quantiles(t, 0); latency.P99 > 11 || latency.Max < 900 {
			t.Errorf("the closed loop waits with its service: %+v", latency)
		}
	})
}

// What a service answers by 429, 503 or not at all is no violation, and no success.
func TestRefusalsAndFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		s.instead = func(r *http.Request, since time.Duration) (int, string) {
			switch {
			case since < time.Second:
			case r.URL.Path == "/api/renew":
				return 503, `{"code":"database_full"}`
			case r.URL.Path == "/api/login":
				return 429, ""
			}
			return 0, ""
		}
		s.hold = func(r *http.Request, since time.Duration) time.Duration {
			if r.URL.Path == "/api/verify" && since > time.Second {
				return time.Hour
			}
			return 0
		}
		rep := try(t, s, func(c *Config) { c.Warmup, c.Timeout, c.Mix[Revoke] = 2*time.Second, 100*time.Millisecond, 0 })
		got, _ := json.Marshal(rep.Operations)
		for _, want := range []string{`"503 database_full":`, `"429 Too Many Requests":`, `"no answer in time":`} {
			if !strings.Contains(string(got), want) {
				t.Errorf("no %s in %s", want, got)
			}
		}
		for _, m := range rep.Operations {
			if m.Done > 0 {
				t.Errorf("%s succeeded %d times", m.Operation, m.Done)
			}
			if m.Operation == Verify && m.Latency.P50 < 100 {
				t.Errorf("what is not answered takes no time: %+v", m.Latency)
			}
		}
		if err := rep.Verdict(); err == nil || err.Error() != "login never succeeded\nrenew never succeeded\nverify never succeeded" {
			t.Error(err)
		}
		if len(rep.Violations) > 0 {
			t.Errorf("%+v", rep.Violations)
		}
	})
}

// A service that falls behind does not keep the run from its end, and what was not sent counts.
func TestAServiceThatFallsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		s.takes = time.Second
		began := time.Now()
		rep := try(t, s, func(c *Config) { c.Mix, c.Sessions, c.Callers = Mix{Verify: 1}, 1, 5 })
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("it took %v", took)
		}
		m := rep.Operations[0]
		if m.Done+m.Failed() < 790 || m.Failures["not sent: the service is behind"] == 0 || m.Latency.P50 < 3000 {
			t.Errorf("%d done, %v, %+v", m.Done, m.Failures, m.Latency)
		}
	})
}

// A renewal whose answer was lost is tried again with the same refresh token.
func TestALostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, lost := newService(), false // one caller: nobody else sees it
		s.instead = func(r *http.Request, since time.Duration) (int, string) {
			if r.URL.Path == "/api/renew" && !lost {
				lost = true
				return 502, ""
			}
			return 0, ""
		}
		rep := try(t, s, func(c *Config) { c.Mix, c.Callers, c.Users = Mix{Renew: 1}, 1, c.Users[:1] })
		if err := rep.Verdict(); err != nil || rep.Operations[0].Failures["502 Bad Gateway"] != 1 {
			t.Error(err, rep.Operations[0].Failures)
		}
	})
}

// A service that ends the oldest session of a user who has a hundred does nothing wrong, also
// if some of these began without an answer.
func TestSessionsWithoutAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, begun := newService(), []string{}
		s.hold = func(r *http.Request, since time.Duration) time.Duration {
			if r.URL.Path != "/api/login" || since < time.Second {
				return 0
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.n++
			begun = append(begun, "")
			if len(begun) > maxSessions { // the first ones are ended
				for _, id := range s.sessions {
					s.revoked[id] = time.Time{}
				}
			}
			return time.Hour
		}
		rep := try(t, s, func(c *Config) {
			c.Users, c.Timeout, c.Sessions, c.Mix = c.Users[:1], 10*time.Millisecond, 10, Mix{Login: 1, Verify: 9}
		})
		if len(rep.Violations) > 0 || len(begun) < 20 || len(begun) > maxSessions {
			t.Errorf("%d sessions began without an answer: %+v", len(begun), rep.Violations)
		}
	})
}

// A run that is interrupted ends soon, ends its sessions, and says what it has.
func TestInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		s.takes = 30 * time.Millisecond
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		began := time.Now()
		rep, err := Run(ctx, Config{
			URLs: []string{"http://a"}, Users: []User{{"user", "password"}}, Mix: Mix{Login: 1, Renew: 1, Verify: 1, Revoke: 1}, Callers: 4, Sessions: 4,
			Duration: time.Hour, Timeout: 5 * time.Second, Bound: time.Second, Client: &http.Client{Transport: s},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := rep.Verdict(); err != nil || !rep.Interrupted || rep.Seconds > 2 || rep.Operations[0].Done == 0 {
			t.Errorf("%v, %+v", err, rep)
		}
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("it took %v", took)
		}
		live := 0
		for _, id := range s.sessions {
			if _, ended := s.revoked[id]; !ended {
				live++
			}
		}
		if live > 4 { // whose beginning or renewal was interrupted: one of each caller
			t.Errorf("%d sessions are left", live)
		}
	})
}

// What a hostile server says is not repeated, and does not fill the memory.
func TestAHostileServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, n, long := newService(), 0, strings.Repeat("x", 2*maxAnswer)
		s.instead = func(r *http.Request, since time.Duration) (int, string) {
			if since < time.Second || r.URL.Path != "/api/verify" {
				return 0, ""
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			n++
			switch n % 10 {
			case 0:
				return 503, `{"code":"\u001b[2J"}`
			case 1:
				return 503, long
			}
			return 503, fmt.Sprintf(`{"code":"%s"}`, strings.Repeat("a", n%49+1)+"_"+string(rune('a'+n/49%26)))
		}
		rep := try(t, s, nil)
		if err := rep.Verdict(); err != nil {
			t.Error(err)
		}
		text, _ := json.Marshal(rep)
		if bytes.Contains(text, []byte("[2J")) {
			t.Error("it repeats what a terminal obeys")
		}
		for _, m := range rep.Operations {
			if m.Operation == Verify && (m.Failures["others"] == 0 || len(m.Failures) > maxFailures+1) {
				t.Errorf("%d kinds of failures, %d others", len(m.Failures), m.Failures["others"])
			}
		}
	})
}

func TestWhatCannotBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		s.instead = func(r *http.Request, _ time.Duration) (int, string) { return 401, `{"code":"mfa_required"}` }
		good := Config{URLs: []string{"http://a"}, Users: []User{{"user", "p"}}, Mix: Mix{Verify: 1}, Callers: 1, Duration: time.Second, Timeout: time.Second, Bound: time.Second, Client: &http.Client{Transport: s}}
		if _, err := Run(t.Context(), good); err == nil || !strings.Contains(err.Error(), "user user needs a second factor") {
			t.Error(err)
		}
		for want, spoil := range map[string]func(*Config){
			"there is no URL to ask": func(c *Config) { c.URLs = nil }, "there is no user to log in": func(c *Config) { c.Users = nil },
			"the mix has no operation": func(c *Config) { c.Mix = Mix{Verify: 0} }, `"pray" with the weight 1 is no operation`: func(c *Config) { c.Mix = Mix{"pray": 1} },
			"callers, duration, timeout and bound have to be more than nothing": func(c *Config) { c.Callers = 0 },
		} {
			c := good
			spoil(&c)
			if _, err := Run(t.Context(), c); err == nil || err.Error() != want {
				t.Errorf("%v, want %s", err, want)
			}
		}
	})
}
