package sharedsecret_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/sharedsecret"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// text is a secret of that length, which stands for itself.
func text(name string, length int) string {
	return (name + strings.Repeat(" secret of the tests "+name, 10))[:length]
}

func list(texts ...string) []sharedsecret.Secret {
	var l []sharedsecret.Secret
	for _, t := range texts {
		l = append(l, sharedsecret.Secret{Text: t})
	}
	return l
}

func kid(t testing.TB, text, alg string) string {
	t.Helper()
	k, err := accesstoken.NewSecretKey(text, alg)
	if err != nil {
		t.Fatal(err)
	}
	return k.ID
}

// A world is what the Secrets under test are told.
type world struct {
	mu       sync.Mutex
	now      time.Time
	revoked  map[string]bool
	refused  map[string]bool // kids that another replica does not accept
	log      bytes.Buffer
	registry *prometheus.Registry
}

// revoke revokes all keys of a secret, as login.RevokeKeyIn does.
func (w *world) revoke(t *testing.T, text string) {
	t.Helper()
	keys, err := accesstoken.SecretKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		w.set(w.revoked, k.ID, true)
	}
}

func newWorld() *world {
	return &world{now: now, revoked: map[string]bool{}, refused: map[string]bool{}, registry: prometheus.NewRegistry()}
}

func (w *world) config(alg string) sharedsecret.Config {
	return sharedsecret.Config{
		Algorithm: alg,
		Accepted:  func(kid string) bool { w.mu.Lock(); defer w.mu.Unlock(); return !w.refused[kid] },
		Revoked:   func(kid string) bool { w.mu.Lock(); defer w.mu.Unlock(); return w.revoked[kid] },
		Now:       func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now },
		Logger:    slog.New(slog.NewTextHandler(&w.log, nil)), Registerer: w.registry,
	}
}

func (w *world) open(t testing.TB, alg string, l []sharedsecret.Secret) *sharedsecret.Secrets {
	t.Helper()
	s, err := sharedsecret.New(w.config(alg), l)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (w *world) set(kids map[string]bool, kid string, v bool) {
	w.mu.Lock()
	kids[kid] = v
	w.mu.Unlock()
}

// signs checks which key signs; none with the empty kid.
func signs(t *testing.T, s *sharedsecret.Secrets, want string) {
	t.Helper()
	signer, err := s.Signer()
	switch {
	case want == "" && !errors.Is(err, keyring.ErrNoSigningKey):
		t.Errorf("a signer %v, or another error: %v", signer, err)
	case want != "" && (err != nil || signer.KeyID() != want):
		t.Errorf("%v, %v signs, want %s", signer, err, want)
	}
}

func accepts(t *testing.T, s *sharedsecret.Secrets, kid string, want bool) {
	t.Helper()
	k, ok := s.Find(kid)
	if ok != want || ok && k.ID != kid || !ok && k.ID != "" {
		t.Errorf("Find gives %q, %v, want %v", k.ID, ok, want)
	}
	if listed := slices.Contains(s.Kids(), kid); listed != want {
		t.Errorf("Kids has %s: %v, want %v", kid, listed, want)
	}
}

func TestASecretIsAcceptedWithEachAlgorithm(t *testing.T) {
	w := newWorld()
	s := w.open(t, accesstoken.HS384, list(text("new", 64), text("old", 40)))
	signs(t, s, kid(t, text("new", 64), accesstoken.HS384))
	var want []string
	for _, alg := range accesstoken.SecretAlgorithms() {
		want = append(want, kid(t, text("new", 64), alg))
	}
	want = append(want, kid(t, text("old", 40), accesstoken.HS256))
	slices.Sort(want)
	if got := s.Kids(); !slices.Equal(got, want) {
		t.Errorf("the kids are %v, want %v", got, want)
	}
	for _, kid := range want {
		accepts(t, s, kid, true)
	}
	accepts(t, s, "another", false)
	accepts(t, s, "", false)
	// The former secret is too short for the algorithm, and signs all the same.
	w.set(w.refused, kid(t, text("new", 64), accesstoken.HS384), true)
	signs(t, s, kid(t, text("old", 40), accesstoken.HS256))
}

func TestWhichSecretSigns(t *testing.T) {
	a, b, c := text("a", 32), text("b", 32), text("c", 32)
	ka, kb, kc := kid(t, a, "HS256"), kid(t, b, "HS256"), kid(t, c, "HS256")
	for name, tt := range map[string]struct {
		refused, revoked []string
		want             string
	}{
		"the present one":                        {nil, nil, ka},
		"the former one":                         {[]string{ka}, nil, kb},
		"the one before":                         {[]string{ka, kb}, nil, kc},
		"none that every replica accepts":        {[]string{ka, kb, kc}, nil, ""},
		"not a revoked one":                      {nil, []string{ka}, kb},
		"not a revoked one, nor a refused one":   {[]string{kb}, []string{ka}, kc},
		"the first of the others at once":        {[]string{ka, kb}, []string{kc}, ka},
		"the first of those that are left":       {[]string{kb, kc}, []string{ka}, kb},
		"none, since all were revoked":           {nil, []string{ka, kb, kc}, ""},
		"a revoked one that is refused, besides": {[]string{ka}, []string{ka}, kb},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			for _, kid := range tt.refused {
				w.refused[kid] = true
			}
			for _, kid := range tt.revoked {
				w.revoked[kid] = true
			}
			signs(t, w.open(t, "HS256", list(a, b, c)), tt.want)
		})
	}
}

func TestWhyThereIsNoSigner(t *testing.T) {
	a := text("a", 32)
	ended := []sharedsecret.Secret{{Text: a, End: now}}
	for name, tt := range map[string]struct {
		alg      string
		list     []sharedsecret.Secret
		prepare  func(w *world)
		want     string
		accepted bool
	}{
		"waiting":      {"HS256", list(a), func(w *world) { w.refused[kid(t, a, "HS256")] = true }, "not every replica", true},
		"revoked":      {"HS256", list(a), func(w *world) { w.revoked[kid(t, a, "HS256")] = true }, "revoked", false},
		"ended":        {"HS256", ended, func(w *world) {}, "end", false},
		"verify alone": {"", list(a), func(w *world) {}, "no secret to sign with", true},
		"none at all":  {"", nil, func(w *world) {}, "no secret to sign with", false},
	} {
		w := newWorld()
		tt.prepare(w)
		s := w.open(t, tt.alg, tt.list)
		if _, err := s.Signer(); !errors.Is(err, keyring.ErrNoSigningKey) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		if got := len(s.Kids()) > 0; got != tt.accepted {
			t.Errorf("%s: accepts %v", name, s.Kids())
		}
	}
}

func TestAnEndIsOfTheClock(t *testing.T) {
	w := newWorld()
	a, b := text("a", 32), text("b", 32)
	ka, kb := kid(t, a, "HS256"), kid(t, b, "HS256")
	s := w.open(t, "HS256", []sharedsecret.Secret{{Text: a}, {Text: b, End: now.Add(time.Hour)}})
	w.set(w.refused, ka, true)
	w.now = now.Add(time.Hour - 1)
	accepts(t, s, kb, true)
	signs(t, s, kb)
	w.now = now.Add(time.Hour)
	accepts(t, s, kb, false)
	accepts(t, s, ka, true)
	signs(t, s, "")
	w.set(w.refused, ka, false)
	signs(t, s, ka)
}

// A revoked secret signs no more, whichever algorithm it signed with, and is not said to be accepted.
func TestARevokedSecretIsRevokedWithEachAlgorithm(t *testing.T) {
	old, present := text("old", 64), text("present", 64)
	for _, alg := range accesstoken.SecretAlgorithms() {
		w := newWorld()
		s := w.open(t, alg, list(old, present))
		signs(t, s, kid(t, old, alg))
		w.revoke(t, old)
		for _, alg := range accesstoken.SecretAlgorithms() {
			// What judges revocations refuses its tokens, and says why.
			if k, ok := s.Find(kid(t, old, alg)); !ok || k.ID != kid(t, old, alg) {
				t.Error("the key that was revoked is not found")
			}
			if slices.Contains(s.Kids(), kid(t, old, alg)) {
				t.Error("the key that was revoked is among those that are accepted")
			}
		}
		signs(t, s, kid(t, present, alg))
	}
}

func TestListsThatAreRefused(t *testing.T) {
	good, other := text("good", 64), text("other", 64)
	for name, c := range map[string]struct {
		alg  string
		list []sharedsecret.Secret
	}{
		"none":                             {"HS256", nil},
		"an empty one":                     {"HS256", list("")},
		"an empty former one":              {"HS256", list(good, "")},
		"too short":                        {"HS256", list(text("good", 31))},
		"too short for HS384":              {"HS384", list(text("good", 47))},
		"too short for HS512":              {"HS512", list(text("good", 63), other)},
		"a former one too short":           {"HS256", list(good, text("other", 31))},
		"too short to verify":              {"", list(text("good", 31))},
		"twice":                            {"HS256", list(good, good)},
		"twice, with other ends":           {"HS256", []sharedsecret.Secret{{Text: good}, {Text: other}, {Text: good, End: now.Add(time.Hour)}}},
		"twice for an HMAC, whose padding": {"HS256", list(text("good", 32), text("good", 32)+"\x00")},
		"an algorithm of public keys":      {"ES256", list(good)},
		"none as an algorithm":             {"none", list(good)},
	} {
		w := newWorld()
		if _, err := sharedsecret.New(w.config(c.alg), c.list); err == nil || strings.Contains(err.Error(), "of the tests") {
			t.Errorf("%s: %v", name, err)
		}
		if c.alg != "HS256" {
			continue
		}
		s := w.open(t, c.alg, list(text("first", 32)))
		before := w.log.Len()
		if err := s.Replace(c.list); err == nil {
			t.Errorf("%s: taken in place of another", name)
		}
		signs(t, s, kid(t, text("first", 32), "HS256"))
		if got := s.Kids(); len(got) != 1 || strings.Contains(w.log.String()[before:], "changed") {
			t.Errorf("%s: changed to %v", name, got)
		}
	}
}

// The log says once of each change which kids are concerned, and never a secret. Metrics say
// which secret signs.
func TestWhatOperatorsSee(t *testing.T) {
	w := newWorld()
	a, b, c := text("a", 64), text("b", 32), text("c", 32)
	ka, kb, kc := kid(t, a, "HS256"), kid(t, b, "HS256"), kid(t, c, "HS256")
	s := w.open(t, "HS256", list(b))
	lines := func(want int, about string) {
		t.Helper()
		for range 3 {
			_, _ = s.Signer()
		}
		if got := strings.Count(w.log.String(), "\n"); got != want {
			t.Errorf("%s: %d entries, want %d:\n%s", about, got, want, w.log.String())
		}
	}
	metric := func(states map[string]string) {
		t.Helper()
		got := map[string]string{}
		families, err := w.registry.Gather()
		for _, m := range families[0].GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			got[labels["kid"]] = labels["state"]
		}
		if err != nil || families[0].GetName() != "watchword_signing_secrets" || !maps.Equal(got, states) {
			t.Errorf("metrics show %v, %v, want %v", got, err, states)
		}
	}
	lines(2, "at first")
	w.refused[ka] = true
	for range 3 {
		if err := s.Replace([]sharedsecret.Secret{{Text: a}, {Text: b}, {Text: c, End: now}}); err != nil {
			t.Fatal(err)
		}
	}
	lines(4, "another one, for which the others are not ready")
	metric(map[string]string{ka: "waiting", kb: "signing", kc: "ended"})
	w.refused[ka] = false
	lines(5, "the others are ready")
	metric(map[string]string{ka: "signing", kb: "accepted", kc: "ended"})
	w.revoke(t, a)
	lines(6, "it is revoked")
	metric(map[string]string{ka: "revoked", kb: "signing", kc: "ended"})
	w.refused[kb] = true
	lines(6, "the other one signs although it is refused")
	w.revoked[kb] = true
	lines(7, "all are revoked")
	metric(map[string]string{ka: "revoked", kb: "revoked", kc: "ended"})

	former := w.log.String()
	verifier := newWorld()
	if _, err := verifier.open(t, "", list(a)).Signer(); err == nil || strings.Count(verifier.log.String(), "\n") != 1 {
		t.Errorf("where nothing signs: %v, %s", err, verifier.log.String())
	}
	w = verifier
	metric(map[string]string{ka: "accepted"})
	w.log.WriteString(former)
	printed := w.log.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		printed += fmt.Sprintf(verb+verb+verb, list(a), sharedsecret.Secret{Text: a}, s)
	}
	data, err := json.Marshal(list(a))
	if printed += string(data); err != nil || strings.Contains(printed, "of the tests") || strings.Contains(printed, fmt.Sprint([]byte("of the tests"))[1:20]) ||
		strings.Contains(printed, fmt.Sprintf("%x", "of the tests")) {
		t.Errorf("a secret is shown, %v: %s", err, printed)
	}
	for _, kid := range []string{ka, kb} {
		if !strings.Contains(w.log.String(), kid) {
			t.Errorf("the log does not name %s", kid)
		}
	}
}

// With -race: lists are replaced beside those who sign and verify. What was signed is accepted
// whichever list is in force then, since both have it.
func TestReplaceBesideSigners(t *testing.T) {
	w := newWorld()
	cfg := w.config("HS256")
	cfg.Logger = slog.New(slog.DiscardHandler)
	a, b := text("a", 64), text("b", 64)
	s, err := sharedsecret.New(cfg, list(a, b))
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				signer, err := s.Signer()
				if err != nil {
					t.Error(err)
					return
				}
				if k, ok := s.Find(signer.KeyID()); !ok || !k.Equal(signer.Public()) || len(s.Kids()) != 6 {
					t.Errorf("the key that signs is not accepted: %v", ok)
				}
				if _, err := w.registry.Gather(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 300 {
		l := list(a, b)
		if i%2 == 0 {
			slices.Reverse(l)
		}
		if err := s.Replace(l); err != nil {
			t.Error(err)
		}
		if err := s.Replace(list(a, a)); err == nil {
			t.Error("a list with a secret twice is taken")
		}
		w.set(w.refused, kid(t, a, "HS256"), i%3 == 0)
	}
	close(stop)
	group.Wait()
}

// lines counts entries of a log that many write.
type lines struct{ atomic.Int64 }

func (l *lines) Write(p []byte) (int, error) { l.Add(1); return len(p), nil }

// Many who replace the list and sign at the same moment: one entry for each of the two changes.
func TestAChangeIsLoggedOnce(t *testing.T) {
	w := newWorld()
	cfg := w.config("HS256")
	cfg.Accepted = func(string) bool { runtime.Gosched(); return true } // the others come in between
	written := &lines{}
	cfg.Logger = slog.New(slog.NewTextHandler(written, nil))
	s, err := sharedsecret.New(cfg, list(text("0", 32)))
	if err != nil {
		t.Fatal(err)
	}
	signs(t, s, kid(t, text("0", 32), "HS256"))
	for round := range 200 {
		written.Store(0)
		next := list(text(fmt.Sprint(round+1), 32), text(fmt.Sprint(round), 32))
		var group sync.WaitGroup
		begin := make(chan struct{})
		for range 8 {
			group.Go(func() {
				<-begin
				if err := s.Replace(next); err != nil {
					t.Error(err)
				}
				if _, err := s.Signer(); err != nil {
					t.Error(err)
				}
			})
		}
		close(begin)
		group.Wait()
		if n := written.Load(); n != 2 {
			t.Fatalf("round %d: %d entries", round, n)
		}
	}
}
