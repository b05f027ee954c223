package verify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

var record = flag.Bool("record", false, "write the test vectors in testdata/verifier")

// The test vectors are what the code makes. They are for verifiers in other languages, and this
// package is held to the files, too.
func TestVectorsAreRecorded(t *testing.T) {
	for _, f := range vectorFiles(newSigner(t)) {
		path, made := filepath.Join(vectorDirectory, f.name), f.bytes(newSigner(t))
		if *record {
			if err := os.WriteFile(path, made, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if had, err := os.ReadFile(path); err != nil || !bytes.Equal(had, made) {
			t.Errorf("%s is not what the code makes (%v); record it: go test -run TestVectorsAreRecorded -record ./verify", path, err)
		}
	}
}

// vectorsOf reads a file of vectors: the members of the whole file, and its cases.
func vectorsOf[Top, Case any](t *testing.T, name string) (top Top, cases []Case) {
	data, err := os.ReadFile(filepath.Join(vectorDirectory, name))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Cases []Case }
	if err := errors.Join(json.Unmarshal(data, &file), json.Unmarshal(data, &top)); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d cases", name, len(file.Cases))
	if len(file.Cases) == 0 {
		t.Error("no cases")
	}
	return top, file.Cases
}

// codeOf is the code of an error; empty: no error.
func codeOf(err error) string {
	if e := (&accesstoken.Error{}); errors.As(err, &e) {
		return e.Code
	}
	if err != nil {
		return "?"
	}
	return ""
}

func seconds(n float64) time.Time { return time.UnixMilli(int64(n*1000 + 0.5)) }

func TestDigestVectors(t *testing.T) {
	_, cases := vectorsOf[struct{}, digestCase](t, "digests.json")
	for _, c := range cases {
		got, err := revoked.Digest(revoked.Kind(c.Kind), c.Value).MarshalText()
		if err != nil || string(got) != c.ID {
			t.Errorf("%s: %s, %v, want %s", c.Name, got, err, c.ID)
		}
	}
}

func TestKeySetVectors(t *testing.T) {
	_, cases := vectorsOf[struct{}, keySetCase](t, "keysets.json")
	for _, c := range cases {
		set, err := accesstoken.ParseKeySet([]byte(c.Body + strings.Repeat(" ", c.Pad)))
		got := []keyInASet{}
		for _, k := range set.Keys() {
			got = append(got, keyInASet{k.ID, k.Algorithm})
		}
		if (err != nil) != c.Error || !slices.Equal(got, c.Keys) {
			t.Errorf("%s: %v, %v, want %v, error %v", c.Name, got, err, c.Keys, c.Error)
		}
	}
}

func TestTokenVectors(t *testing.T) {
	type top struct {
		Config  ruleConfig
		Now     float64
		Secrets []string
		KeySet  json.RawMessage `json:"key_set"`
	}
	common, cases := vectorsOf[top, tokenCase](t, "tokens.json")
	for _, c := range cases {
		config, now := common.Config, common.Now
		if c.Config != nil {
			config = *c.Config
		}
		if c.Now != 0 {
			now = c.Now
		}
		for _, size := range []int{DefaultCacheSize, -1} {
			var clock atomic.Pointer[time.Time]
			clock.Store(new(seconds(now - 10))) // the first key set is so old that an unknown kid is asked for
			var served atomic.Pointer[string]
			served.Store(new(string(common.KeySet)))
			v, err := New(Config{
				Issuer: config.Issuer, Audience: config.Audience, Leeway: time.Duration(config.Leeway * float64(time.Second)),
				Secrets: common.Secrets, WithoutRevocations: true, CacheSize: size, Now: func() time.Time { return *clock.Load() },
				Logger: slog.New(slog.DiscardHandler), HTTPClient: &http.Client{Transport: answers(func(*http.Request) (*http.Response, error) {
					return response(stepAnswer{Status: 200, Text: *served.Load()}), nil
				})},
			})
			if err != nil {
				t.Fatal(err)
			}
			<-v.keys.tried
			clock.Store(new(seconds(now)))
			for range 2 { // the second time it may be remembered
				token, err := v.Verify(t.Context(), c.Token)
				if codeOf(err) != c.Code {
					t.Errorf("%s: %v, want %q", c.Name, err, c.Code)
				}
				if err != nil {
					continue
				}
				var claims map[string]any
				d := json.NewDecoder(bytes.NewReader(c.Claims))
				d.UseNumber()
				if err := d.Decode(&claims); err != nil || !reflect.DeepEqual(token.Claims(), claims) {
					t.Errorf("%s: the claims are %v, %v", c.Name, token.Claims(), err)
				}
				if c.IssuedAt != 0 && !token.IssuedAt.Equal(seconds(c.IssuedAt)) {
					t.Errorf("%s: issued at %v", c.Name, token.IssuedAt)
				}
			}
			if c.Later != nil {
				if c.Later.KeySet != nil {
					body, err := json.Marshal(c.Later.KeySet)
					if err != nil {
						t.Fatal(err)
					}
					set, err := accesstoken.ParseKeySet(body)
					if err != nil {
						t.Fatal(err)
					}
					served.Store(new(string(body)))
					v.keys.set.Store(set)
				}
				clock.Store(new(seconds(c.Later.Now)))
				if _, err := v.Verify(t.Context(), c.Token); codeOf(err) != c.Later.Code {
					t.Errorf("%s, later: %v, want %q", c.Name, err, c.Later.Code)
				}
			}
			v.Close()
		}
	}
}

// answers is a transport.
type answers func(*http.Request) (*http.Response, error)

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) { return a(r) }

// response is the answer of a step that does not fail.
func response(a stepAnswer) *http.Response {
	body := a.Text
	if a.Body != nil {
		text, err := json.Marshal(a.Body)
		if err != nil {
			panic(err)
		}
		body = string(text)
	}
	res := &http.Response{StatusCode: a.Status, Status: http.StatusText(a.Status), Header: http.Header{}}
	for name, value := range a.Headers {
		res.Header.Set(name, value)
	}
	res.Body = io.NopCloser(io.MultiReader(strings.NewReader(body), io.LimitReader(spaces{}, int64(a.Pad))))
	return res
}

type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestBearerVectors(t *testing.T) {
	_, cases := vectorsOf[struct{}, bearerCase](t, "bearer.json")
	for _, c := range cases {
		token, err := Bearer(c.Authorization)
		if token != c.Token || codeOf(err) != c.Code {
			t.Errorf("%s: %q, %v, want %q, %q", c.Name, token, err, c.Token, c.Code)
		}
	}
}

// requirementOf makes the requirement that a case describes.
func requirementOf(t *testing.T, data json.RawMessage) Requirement {
	var d struct {
		Claim     []string
		Any, All  []json.RawMessage
		FreshAuth *float64 `json:"fresh_auth"`
		AMR, ACR  []string
		Scope     []string
	}
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	several := func(list []json.RawMessage) (of []Requirement) {
		for _, one := range list {
			of = append(of, requirementOf(t, one))
		}
		return of
	}
	switch {
	case d.Claim != nil:
		return Claim(d.Claim[0], d.Claim[1])
	case d.Any != nil:
		return Any(several(d.Any)...)
	case d.All != nil:
		return All(several(d.All)...)
	case d.FreshAuth != nil:
		return FreshAuth(time.Duration(*d.FreshAuth * float64(time.Second)))
	case d.AMR != nil:
		return AMR(d.AMR...)
	case d.ACR != nil:
		return ACR(d.ACR...)
	case d.Scope != nil:
		return Scope(d.Scope...)
	}
	t.Fatalf("no requirement: %s", data)
	return Requirement{}
}

func TestRequirementVectors(t *testing.T) {
	_, cases := vectorsOf[struct{}, requirementCase](t, "requirements.json")
	s := newSigner(t)
	private := s.private["es256"]
	key, err := accesstoken.NewKey("es256", accesstoken.ES256, private.Public())
	if err != nil {
		t.Fatal(err)
	}
	rules := accesstoken.Rules{Issuer: vectorIssuer, Audience: []string{vectorAudience}, Leeway: MaxLeeway}
	for _, c := range cases {
		token, err := rules.Check(s.token("ES256", "es256", vectorHeader("ES256", "es256"), c.Claims), seconds(c.Now), func(string) (accesstoken.Key, error) { return key, nil })
		if err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		r := requirementOf(t, c.Requirement)
		if r.String() != c.Text {
			t.Errorf("%s: it says %q", c.Name, r)
		}
		err = (&conditions{required: []Requirement{r}}).judge(token, clock{seconds(c.Now), time.Duration(c.Leeway * float64(time.Second))})
		if codeOf(err) != c.Code {
			t.Errorf("%s: %v, want %q", c.Name, err, c.Code)
		}
		again, lacking := &Reauthentication{}, &InsufficientScope{}
		if !errors.As(err, &again) {
			errors.As(err, &lacking)
			again.Scope = lacking.Scope
		}
		if int64(again.MaxAge/time.Second) != c.MaxAge || !slices.Equal(again.ACRValues, c.ACRValues) || strings.Join(again.Scope, " ") != c.Scope {
			t.Errorf("%s: %v", c.Name, again)
		}
	}
}

func TestChallengeVectors(t *testing.T) {
	_, cases := vectorsOf[struct{}, challengeCase](t, "challenges.json")
	for _, c := range cases {
		v := newOffline(t, Config{Issuer: c.Config.Issuer, Resource: c.Config.Resource})
		refusal := &accesstoken.Error{Code: c.Code, Detail: c.Detail}
		scope := strings.Fields(c.Scope)
		switch {
		case c.Again != nil:
			refusal.Cause = &Reauthentication{MaxAge: time.Duration(c.Again.MaxAge) * time.Second, ACRValues: c.Again.ACRValues, Scope: scope}
		case len(scope) > 0:
			refusal.Cause = &InsufficientScope{scope}
		}
		w := httptest.NewRecorder()
		v.refuse(w, refusal)
		var body obj
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != c.Status || !reflect.DeepEqual(body, c.Body) {
			t.Errorf("%s: %d %s, %v", c.Name, w.Code, w.Body, err)
		}
		for name, want := range c.Headers {
			if got := w.Header().Values(name); !slices.Equal(got, []string{want}) {
				t.Errorf("%s: %s is %q, want %q", c.Name, name, got, want)
			}
		}
		for _, name := range c.Absent {
			if got := w.Header().Values(name); len(got) > 0 {
				t.Errorf("%s: %s is %q", c.Name, name, got)
			}
		}
	}
}

// newOffline makes a Verifier that reaches nothing.
func newOffline(t *testing.T, cfg Config) *Verifier {
	v, err := offline(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

func offline(cfg Config) (*Verifier, error) {
	cfg.WithoutRevocations, cfg.Logger = true, slog.New(slog.DiscardHandler)
	cfg.HTTPClient = &http.Client{Transport: answers(func(*http.Request) (*http.Response, error) { return nil, errors.New("no answer") })}
	return New(cfg)
}

func TestMetadataVectors(t *testing.T) {
	_, cases := vectorsOf[struct{}, metadataCase](t, "metadata.json")
	for _, c := range cases {
		cfg := Config{Issuer: c.Config.Issuer, Resource: c.Config.Resource, ResourceName: c.Config.ResourceName, ScopesSupported: c.Config.ScopesSupported}
		if c.Error {
			if v, err := offline(cfg); err == nil {
				t.Errorf("%s: it is accepted", c.Name)
				v.Close()
			}
			continue
		}
		v := newOffline(t, cfg)
		w, refused := httptest.NewRecorder(), httptest.NewRecorder()
		v.Metadata().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		v.refuse(refused, accesstoken.ErrNoToken)
		var body obj
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || !reflect.DeepEqual(body, c.Body) || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s, %v", c.Name, w.Body, err)
		}
		if path := MetadataPath(c.Config.Resource); path != c.Path {
			t.Errorf("%s: the path is %q", c.Name, path)
		}
		if challenge := refused.Header().Get("WWW-Authenticate"); !strings.HasSuffix(challenge, ` resource_metadata="`+c.URL+`"`) {
			t.Errorf("%s: the challenge is %s", c.Name, challenge)
		}
	}
}

// The constants are those of this package, and of the table in the contract.
func TestConstantVectors(t *testing.T) {
	_, cases := vectorsOf[struct{}, constantCase](t, "constants.json")
	contract, err := os.ReadFile(vectorContract)
	if err != nil {
		t.Fatal(err)
	}
	ours := map[string]float64{
		"token_length": accesstoken.DefaultMaxLength, "kid_length": accesstoken.MaxKeyID, "key_set_length": accesstoken.MaxKeySetLength,
		"rsa_bits_least": accesstoken.MinRSABits, "rsa_bits_most": accesstoken.MaxRSABits, "leeway_most": MaxLeeway.Seconds(),
		"key_life_default": defaultKeyLife.Seconds(), "key_life_least": minKeyLife.Seconds(), "key_life_stale": staleKeyLife.Seconds(), "key_life_most": maxKeyLife.Seconds(),
		"key_cooldown": keyCooldown.Seconds(), "key_timeout": keyTimeout.Seconds(), "key_retry_first": minKeyRetry.Seconds(), "key_retry_most": maxKeyRetry.Seconds(),
		"unknown_kid_kept": unknownLife.Seconds(), "unknown_kids": maxUnknown, "key_outage": keyOutage.Seconds(),
		"max_staleness_default": DefaultMaxStaleness.Seconds(), "max_staleness_least": minMaxStaleness.Seconds(),
		"page_limit": pageLimit, "page_length": maxPage, "page_timeout": pageTimeout.Seconds(), "patience_least": minPatience.Seconds(),
		"wait_most": maxWait.Seconds(), "poll_every": pollEvery.Seconds(), "page_retry_first": minFeedRetry.Seconds(), "page_retry_most": maxFeedRetry.Seconds(),
		"reattach_most": maxReattach.Seconds(), "event_length": maxEvent, "stream_life_most": streamLife.Seconds(), "stream_lag": streamLag.Seconds(),
		"without_stream": withoutStream.Seconds(), "without_stream_most": maxWithoutStream.Seconds(), "clock_drift": clockDrift.Seconds(), "expired_kept": clockSkew.Seconds(),
	}
	for _, c := range cases {
		value, known := ours[c.Name]
		delete(ours, c.Name)
		if !known || value != c.Value {
			t.Errorf("%s is %v here", c.Name, value)
		}
		row := strings.TrimSuffix("\n| `"+c.Name+"` | "+strconv.FormatFloat(c.Value, 'f', -1, 64)+" "+c.Unit, " ") + " |"
		if !strings.Contains(string(contract), row) {
			t.Errorf("docs/protocol.md lacks %q", row)
		}
	}
	for name := range ours {
		t.Errorf("%s is not in the vectors", name)
	}
}

const vectorContract = "../docs/protocol.md"

// Each case names the section of the contract, or of an RFC, that it comes from, and the contract
// says of each file what it holds.
func TestVectorsNameTheirRules(t *testing.T) {
	contract, err := os.ReadFile(vectorContract)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range vectorFiles(newSigner(t)) {
		_, cases := vectorsOf[struct{}, vectorCase](t, f.name)
		if !strings.Contains(string(contract), "\n| `"+f.name+"` | ") {
			t.Errorf("docs/protocol.md does not say what %s holds", f.name)
		}
		seen := map[string]bool{}
		for _, c := range cases {
			section, ours := strings.CutPrefix(c.Rule, "docs/protocol.md, ")
			if c.Name == "" || seen[c.Name] || !ours && !strings.HasPrefix(c.Rule, "RFC ") && !strings.HasPrefix(c.Rule, "WHATWG ") {
				t.Errorf("%s: the case %q has no rule, or its name is there twice", f.name, c.Name)
			}
			if seen[c.Name] = true; ours && !strings.Contains(string(contract), "# "+section+"\n") {
				t.Errorf("%s: docs/protocol.md has no section %q", f.name, section)
			}
		}
	}
}

func TestEventVectors(t *testing.T) {
	_, cases := vectorsOf[struct{}, eventCase](t, "events.json")
	for _, c := range cases {
		for i := range c.Events {
			c.Events[i].Data = piece(c.Events[i].Data)
		}
		for _, reader := range []func(io.Reader) io.Reader{iotest.DataErrReader, iotest.OneByteReader} {
			var pieces []io.Reader
			for _, chunk := range c.Chunks {
				pieces = append(pieces, strings.NewReader(piece(chunk)))
			}
			events := newEventReader(reader(io.MultiReader(pieces...)))
			got := []oneEvent{}
			e, err := events.next()
			for ; err == nil; e, err = events.next() {
				got = append(got, oneEvent{e.name, string(e.data)})
			}
			if !slices.Equal(got, c.Events) || (err != io.ErrUnexpectedEOF) != c.Error {
				t.Errorf("%s: %.200v, %v, want error %v", c.Name, got, err, c.Error)
			}
		}
	}
}

// piece is a text of events.json.
func piece(v any) string {
	if v, ok := v.(obj); ok {
		text, _ := v["text"].(string)
		n, _ := v["repeat"].(float64)
		return strings.Repeat(text, int(n))
	}
	text, _ := v.(string)
	return text
}

// A stepClock is the clock of a case. It shows the time of the present step.
type stepClock struct {
	t    *testing.T
	base time.Time // with a monotonic reading
	at   atomic.Int64
	byS  atomic.Int64 // by how much the wall clock was set
}

// newStepClock is called outside of simulated time, in which there is no monotonic clock.
func newStepClock(t *testing.T, start int64) *stepClock {
	now := time.Now()
	return &stepClock{t: t, base: now.Add(time.Unix(start, 0).Sub(now))}
}

func (c *stepClock) set(ms int64) { c.at.Store(ms) }

func (c *stepClock) now() time.Time {
	return suspended(c.t, c.base.Add(revoked.Milliseconds(c.at.Load())), time.Duration(c.byS.Load())*time.Second)
}

// sinceStart returns a time in milliseconds since the start.
func (c *stepClock) sinceStart(t time.Time) int64 { return t.Sub(c.base).Milliseconds() }

type startOfSteps struct{ Start int64 }

func TestKeysOverTimeVectors(t *testing.T) {
	top, cases := vectorsOf[startOfSteps, overTime](t, "keys_over_time.json")
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			clock := newStepClock(t, top.Start)
			synctest.Test(t, func(t *testing.T) { followKeys(t, clock, c) })
		})
	}
}

// followKeys runs a keySource in simulated time. Its timers go by that time, and what it decides
// goes by the time of the step.
func followKeys(t *testing.T, clock *stepClock, c overTime) {
	requests, replies := make(chan *http.Request), make(chan stepAnswer)
	cfg := Config{Issuer: vectorIssuer, Now: clock.now, Logger: slog.New(slog.DiscardHandler), HTTPClient: &http.Client{
		CheckRedirect: newClient().CheckRedirect,
		Transport: answers(func(r *http.Request) (*http.Response, error) {
			select {
			case requests <- r:
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
			a := <-replies
			if a.Fails {
				return nil, errors.New("no answer")
			}
			return response(a), nil
		}),
	}}
	if c.Config != nil {
		cfg.Secrets = c.Config.Secrets
	}
	if err := cfg.complete(); err != nil {
		t.Fatal(err)
	}
	k := newKeySource(cfg)
	ctx, stop := context.WithCancel(t.Context())
	go k.run(ctx)
	defer func() { stop(); <-k.stopped }()

	var asked *http.Request // a fetch that find began
	var found chan string   // the result of a find that waits for it
	then := ""
	ended, next := time.Now(), []float64{0, 0}
	scheduled := func(name string) *http.Request {
		r := <-requests
		if waited := float64(time.Since(ended)) / float64(time.Millisecond); waited < next[0] || waited > next[1] {
			t.Errorf("%s: the next fetch comes after %v ms, want %v", name, waited, next)
		}
		return r
	}
	for i, s := range c.Steps {
		name := fmt.Sprintf("step %d (%s)", i, s.Do)
		clock.set(s.AtMS)
		switch s.Do {
		case "fetch":
			r := asked
			if asked = nil; r == nil {
				r = scheduled(name)
			}
			if s.Request != nil && s.Request.IfNoneMatch != nil && r.Header.Get("If-None-Match") != *s.Request.IfNoneMatch {
				t.Errorf("%s: If-None-Match is %q", name, r.Header.Get("If-None-Match"))
			}
			replies <- *s.Answer
			synctest.Wait()
			k.mu.Lock()
			failed := k.failed
			k.mu.Unlock()
			if (failed != nil) != *s.Error {
				t.Errorf("%s: %v, want error %v", name, failed, *s.Error)
			}
			if found != nil {
				if got := <-found; got != then {
					t.Errorf("%s: the find that waited gives %q, want %q", name, got, then)
				}
				found = nil
			}
			ended, next = time.Now(), s.NextMS
		case "find":
			result := make(chan string, 1)
			go func() {
				_, err := k.find(ctx, s.Kid)
				result <- codeOf(err)
			}()
			synctest.Wait()
			select {
			case asked = <-requests:
			default:
			}
			if (asked != nil) != *s.Asks {
				t.Fatalf("%s: asks: %v", name, asked != nil)
			}
			got := "fetch"
			select {
			case got = <-result:
				if got == "" {
					got = "found"
				}
			default:
			}
			if got != s.Result {
				t.Fatalf("%s: %q, want %q", name, got, s.Result)
			}
			if got == "fetch" {
				if found, then = result, s.Then; then == "found" {
					then = ""
				}
			}
		case "clock_set":
			clock.byS.Store(s.ByS)
		case "look":
		default:
			t.Fatalf("%s is unknown", name)
		}
		if s.Keys != nil {
			got := []string{}
			for _, key := range k.current().Keys() {
				got = append(got, key.ID)
			}
			if !slices.Equal(got, *s.Keys) {
				t.Errorf("%s: the keys are %v, want %v", name, got, *s.Keys)
			}
		}
	}
	scheduled("the end")
	stop()
	replies <- stepAnswer{Fails: true}
}

func TestFeedOverTimeVectors(t *testing.T) {
	top, cases := vectorsOf[startOfSteps, overTime](t, "feed_over_time.json")
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			clock := newStepClock(t, top.Start)
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				r := &feedRun{t: t, clock: clock, steps: c.Steps}
				cfg := Config{
					Issuer: vectorIssuer, MaxStaleness: time.Duration(c.Config.MaxStaleness * float64(time.Second)), OnStale: onStale[c.Config.OnStale],
					Now: r.clock.now, Logger: slog.New(slog.DiscardHandler), HTTPClient: &http.Client{Transport: r},
				}
				if err := cfg.complete(); err != nil {
					t.Fatal(err)
				}
				r.follower = newFollower(cfg)
				close(r.tried)
				for len(r.steps) > 0 {
					r.step(ctx)
				}
				stop()
				if r.ended != nil {
					<-r.ended
				}
			})
		})
	}
}

var onStale = map[string]OnStale{"refuse": FailClosed, "accept": FailOpen}

// A feedRun drives a follower through the steps of a case. It is the transport, too.
type feedRun struct {
	*follower
	t      *testing.T
	clock  *stepClock
	steps  []step // from the present one on
	done   int
	paging *step // the page that was answered last, whose state has not been compared

	body    *io.PipeWriter // of the stream
	ended   chan error     // gets how the stream ended
	silence time.Duration  // what the stream should allow
}

func (r *feedRun) take() step {
	s := r.steps[0]
	r.steps = r.steps[1:]
	r.done++
	return s
}

func (r *feedRun) errorf(format string, args ...any) {
	r.t.Helper()
	r.t.Errorf("step %d: %s", r.done-1, fmt.Sprintf(format, args...))
}

// compare compares what the follower knows after a step.
func (r *feedRun) compare(want *feedState) {
	r.t.Helper()
	if want == nil {
		return
	}
	got := feedState{Log: r.log, Next: r.next, Entries: r.list.Len()}
	if c := r.lastConfirmed(); !c.IsZero() {
		got.ConfirmedMS = ptr(r.clock.sinceStart(c))
	}
	if !reflect.DeepEqual(&got, want) {
		g, _ := json.Marshal(got)
		w, _ := json.Marshal(want)
		r.errorf("%s, want %s", g, w)
	}
}

func (r *feedRun) step(ctx context.Context) {
	s := r.steps[0]
	r.clock.set(s.AtMS)
	switch s.Do {
	case "page": // RoundTrip takes this step, and those of the pages that are read at once
		_, err := r.poll(ctx, s.Request.Wait > 0)
		last := *r.paging
		r.paging = nil
		if *last.Again || (err != nil) != *last.Error {
			r.errorf("poll ends with %v, want again %v, error %v", err, *last.Again, *last.Error)
		}
		r.compare(last.State)
		return
	case "stream":
		r.silence = revoked.Milliseconds(s.SilenceMS)
		if got := r.follower.silence(); got != r.silence {
			r.errorf("the silence is %v", got)
		}
		ended := make(chan error, 1)
		r.ended = ended
		go func() {
			_, err := r.stream(ctx)
			ended <- err
		}()
		synctest.Wait() // RoundTrip takes the step
		return
	}
	r.take()
	switch s.Do {
	case "event":
		data, isText := s.Data.(string)
		if !isText {
			text, err := json.Marshal(s.Data)
			if err != nil {
				r.t.Fatal(err)
			}
			data = string(text)
		}
		if _, err := fmt.Fprintf(r.body, "event: %s\ndata: %s\n\n", s.Event, data); err != nil {
			r.errorf("the stream has ended: %v", err)
		}
		synctest.Wait()
		if err := r.over(); (err != nil) != *s.Error {
			r.errorf("the stream ends with %v, want error %v", err, *s.Error)
		}
	case "end":
		r.body.Close()
		synctest.Wait()
		if r.over() == nil {
			r.errorf("the stream has not ended")
		}
	case "silence":
		begun := time.Now()
		<-r.ended
		r.ended = nil
		if got := time.Since(begun); got != r.silence {
			r.errorf("the stream ends after %v", got)
		}
	case "check":
		token := &accesstoken.Token{ID: s.Token.JTI, SessionID: s.Token.SID, Subject: s.Token.Sub, KeyID: s.Token.Kid, Epoch: s.Token.Epoch, IssuedAt: seconds(s.Token.IAT)}
		ids := revoked.IDsOf(token)
		c := &conditions{maxStaleness: MaxStaleness(r.cfg.MaxStaleness), onStale: r.cfg.OnStale}
		if s.MaxStaleness > 0 {
			c.maxStaleness = MaxStaleness(s.MaxStaleness * float64(time.Second))
		}
		if s.OnStale != "" {
			c.onStale = onStale[s.OnStale]
		}
		if err := r.check(ctx, token, &ids, c); codeOf(err) != *s.Code {
			r.errorf("check gives %v, want %q", err, *s.Code)
		}
	case "clock_set":
		r.clock.byS.Store(s.ByS)
	case "expire":
		r.swept = time.Time{}
		r.sweep()
	default:
		r.t.Fatalf("step %d (%s) is unknown", r.done-1, s.Do)
	}
	r.compare(s.State)
}

// over returns how the stream ended, or nil if it goes on.
func (r *feedRun) over() error {
	select {
	case err := <-r.ended:
		r.ended = nil
		return err
	default:
		return nil
	}
}

func (r *feedRun) RoundTrip(req *http.Request) (*http.Response, error) {
	if r.paging != nil { // another page at once
		if !*r.paging.Again {
			r.errorf("another page is read")
		}
		r.compare(r.paging.State)
	}
	if len(r.steps) == 0 || r.steps[0].Request == nil {
		r.errorf("nothing should be asked for")
		return nil, errors.New("no step")
	}
	s := r.take()
	if version := req.URL.Query().Get("version"); version != "1" {
		r.errorf("the request names the version %q", version)
	}
	if s.Do == "stream" {
		if got := req.Header.Get("Last-Event-ID"); got != s.Request.LastEventID || req.Header.Get("Accept") != "text/event-stream" {
			r.errorf("Last-Event-ID is %q", got)
		}
		body, pipe := io.Pipe()
		context.AfterFunc(req.Context(), func() { body.CloseWithError(req.Context().Err()) })
		r.body = pipe
		return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: body}, nil
	}
	query, wait := req.URL.Query(), ""
	if s.Request.Wait > 0 {
		wait = strconv.Itoa(s.Request.Wait)
	}
	if query.Get("after") != strconv.FormatInt(*s.Request.After, 10) || query.Get("wait") != wait || query.Get("limit") != "10000" || req.Header.Get("Accept") != "application/json" {
		r.errorf("the request is %s", req.URL.RawQuery)
	}
	r.paging = &s
	r.clock.set(s.AnsweredMS)
	if s.Answer.Fails {
		return nil, errors.New("no answer")
	}
	return response(*s.Answer), nil
}
