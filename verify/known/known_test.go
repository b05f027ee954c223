package known

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	mathrand "math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

var (
	began = time.Unix(1_800_000_000, 0)
	rules = &accesstoken.Rules{Issuer: "i", Audience: []string{"here"}}
)

// A signer signs tokens under a kid.
type signer struct {
	key     accesstoken.Key
	private *ecdsa.PrivateKey
	signed  int
}

func newSigner(t testing.TB, kid string) *signer {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := accesstoken.NewKey(kid, accesstoken.ES256, &private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{key: key, private: private}
}

func (s *signer) find(kid string) (accesstoken.Key, error) {
	if kid != s.key.ID {
		return accesstoken.Key{}, accesstoken.ErrUnknownKey
	}
	return s.key, nil
}

// token signs one for an audience that is good from and until so many seconds after the
// beginning.
func (s *signer) token(t testing.TB, audience string, from, until int64, more string) string {
	s.signed++
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": "i", "aud": []string{audience, "elsewhere"}, "sub": "u", "amr": []string{"pwd"}, "jti": fmt.Sprint(s.key.ID, s.signed), "more": more,
		"iat": began.Unix(), "nbf": began.Unix() + from, "exp": began.Unix() + until,
	})
	token.Header["typ"], token.Header["kid"] = "at+jwt", s.key.ID
	input, err := token.SigningString()
	if err != nil {
		t.Fatal(err)
	}
	signature, err := token.Method.Sign(input, s.private)
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + token.EncodeSegment(accesstoken.CanonicalSignature(accesstoken.ES256, signature))
}

// remembers reports whether the token is remembered, and does not look at it.
func (k *Tokens) remembers(compact string) bool {
	hash := maphash.String(k.seed, compact)
	s := &k.shards[hash%shards]
	for _, generation := range []map[uint64]*Token{s.young, s.old} {
		if t := generation[hash]; t != nil && t.text == compact {
			return true
		}
	}
	return false
}

func ok(t *testing.T, k *Tokens, s *signer, compact string) *Token {
	t.Helper()
	got, err := k.Check(rules, compact, began, s.find)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// Whatever happens to keys, tokens, audiences and time, the answer is that of the rules.
func TestTheMemoryChangesNoAnswer(t *testing.T) {
	random := mathrand.New(mathrand.NewPCG(testenv.Seed(t), 1))
	var all []*signer // two of each kid
	for i := range 6 {
		all = append(all, newSigner(t, fmt.Sprint("key-", i%3)))
	}
	away := errors.New("the keys cannot be asked")
	current := map[string]int{"key-0": 0, "key-1": 1, "key-2": 2} // by kid; none: it is gone; -1: away
	find := func(kid string) (accesstoken.Key, error) {
		switch i, there := current[kid]; {
		case !there:
			return accesstoken.Key{}, accesstoken.ErrUnknownKey
		case i < 0:
			return accesstoken.Key{}, away
		default:
			// Another pointer to an equal key now and then, as from a set that was read again.
			key := all[i].key
			if public := *key.Public.(*ecdsa.PublicKey); random.IntN(2) == 0 {
				key.Public = &public
			}
			return key, nil
		}
	}
	audiences := []string{"here", "there", "canary"}
	k, now := New(24), began
	var tokens []string
	said := map[string]int{}
	for step := range 4000 {
		switch random.IntN(30) {
		case 0, 1, 2, 3:
			from := int64(now.Sub(began)/time.Second) + int64(random.IntN(10)-3)
			one := all[random.IntN(len(all))].token(t, audiences[random.IntN(3)], from, from+int64(1+random.IntN(60)), "")
			if random.IntN(4) == 0 { // forged: the signature of another
				if n := len(tokens); n > 0 {
					one = one[:strings.LastIndexByte(one, '.')] + tokens[n-1][strings.LastIndexByte(tokens[n-1], '.'):]
				}
			}
			tokens = append(tokens, one)
		case 4:
			now = now.Add(time.Duration(random.IntN(5000)) * time.Millisecond)
		case 5:
			kid, i := random.IntN(3), random.IntN(8)
			switch i {
			case 0:
				delete(current, fmt.Sprint("key-", kid))
			case 1:
				current[fmt.Sprint("key-", kid)] = -1
			default:
				current[fmt.Sprint("key-", kid)] = kid + 3*random.IntN(2)
			}
		}
		if len(tokens) == 0 {
			continue
		}
		one := tokens[max(0, len(tokens)-1-random.IntN(12))]
		r := accesstoken.Rules{Issuer: "i", Audience: audiences[:1+random.IntN(3)], Leeway: time.Duration(random.IntN(3)) * time.Second}
		if random.IntN(20) == 0 {
			r.Issuer = "another"
		}
		want, wantErr := r.Check(one, now, find)
		got, err := k.Check(&r, one, now, find)
		if fmt.Sprint(err) != fmt.Sprint(wantErr) {
			t.Fatalf("step %d: %v with the memory, %v without", step, err, wantErr)
		}
		if err == nil && (got.Own().ID != want.ID || got.Own().Payload() != want.Payload() || got.Own().KeyID != want.KeyID) {
			t.Fatalf("step %d: %s with the memory, %s without", step, got.Own().Payload(), want.Payload())
		}
		code := "accepted"
		if e, ok := errors.AsType[*accesstoken.Error](err); ok {
			code = e.Code
		} else if errors.Is(err, away) {
			code = "away"
		}
		said[code]++
	}
	for _, code := range []string{"accepted", "away", accesstoken.ErrUnknownKey.Code, accesstoken.ErrSignature.Code, accesstoken.ErrExpired.Code,
		accesstoken.ErrNotYetValid.Code, accesstoken.ErrAudience.Code, accesstoken.ErrIssuer.Code} {
		if said[code] < 10 {
			t.Errorf("%s was said only %d times; this shows little: %v", code, said[code], said)
		}
	}
}

// A token that comes again costs no signature: that takes many allocations.
func TestATokenThatComesAgainIsNotVerified(t *testing.T) {
	s, k := newSigner(t, "k"), New(64)
	token := s.token(t, "here", 0, 60, "")
	first := ok(t, k, s, token)
	if got := ok(t, k, s, strings.Clone(token)); got != first {
		t.Error("the token was verified again")
	}
	if n := testing.AllocsPerRun(100, func() { ok(t, k, s, token) }); n > 0 {
		t.Errorf("it takes %v allocations", n)
	}
}

// A hash proves nothing: what has that of a known token, and is another one, is not known.
func TestATokenIsCompared(t *testing.T) {
	s, k := newSigner(t, "k"), New(64)
	token := s.token(t, "here", 0, 60, "")
	ok(t, k, s, token)
	hash := maphash.String(k.seed, token)
	shard := &k.shards[hash%shards]
	if shard.get(hash, strings.Clone(token)) == nil {
		t.Error("the token itself is not known")
	}
	for _, other := range []string{"", token[1:], token + "A", strings.ToLower(token)} {
		if shard.get(hash, other) != nil {
			t.Errorf("%q is taken for it", other)
		}
	}
}

// What one caller does to its token is nothing to the next.
func TestOwnIsACopy(t *testing.T) {
	s, k := newSigner(t, "k"), New(64)
	token := s.token(t, "here", 0, 60, "")
	mine := ok(t, k, s, token).Own()
	mine.Subject, mine.Epoch, mine.Audience[0], mine.AMR[0] = "root", 9, "there", "hwk"
	mine.Claims()["sub"] = "root"
	if got := ok(t, k, s, token).Own(); got.Subject != "u" || got.Epoch != 0 || got.Audience[0] != "here" || got.AMR[0] != "pwd" || got.Claim("sub") != "u" {
		t.Errorf("the token has become %+v", got)
	}
}

// However many tokens come, good or forged, long or short, the memory is bounded, and a
// token that is in use stays in it.
func TestTheMemoryIsBounded(t *testing.T) {
	s := newSigner(t, "k")
	for _, c := range []struct{ size, claim, most int }{
		{1, 0, 32}, {64, 0, 64}, {100, 0, 128},
		{256, 4500, 128}, // some 6 KB each, which count as three or four
	} {
		k := New(c.size)
		busy := s.token(t, "here", 0, 60, "")
		ok(t, k, s, busy)
		for i := range 300 {
			good := s.token(t, "here", 0, 60, strings.Repeat("x", c.claim))
			ok(t, k, s, good)
			for _, bad := range []string{good + "A", good[:len(good)-4] + "AAAA", fmt.Sprint(i)} {
				if _, err := k.Check(rules, bad, began, s.find); err == nil {
					t.Fatalf("%q is accepted", bad)
				}
				if k.remembers(bad) {
					t.Fatalf("%q is remembered", bad)
				}
			}
			if c.size >= 64 && !k.remembers(busy) {
				t.Errorf("with a size of %d, token %d pushed one out that is in use", c.size, i)
			}
			ok(t, k, s, busy)
		}
		if n := k.Len(); n > c.most || n < c.most/4 {
			t.Errorf("of 300 tokens, %d are remembered with a size of %d", n, c.size)
		}
		for i := range k.shards {
			size := 0
			for _, one := range k.shards[i].young {
				size += one.size()
			}
			if size != k.shards[i].size {
				t.Errorf("a generation of %d counts as %d", size, k.shards[i].size)
			}
		}
	}
}

func TestTheMemoryInUseByMany(t *testing.T) {
	s, k := newSigner(t, "k"), New(32)
	var tokens []string
	for range 100 {
		tokens = append(tokens, s.token(t, "here", 0, 60, ""))
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 300 {
				i := mathrand.IntN(len(tokens))
				got, err := k.Check(rules, tokens[i], began, s.find)
				if err != nil || got.Own().ID != fmt.Sprint("k", i+1) {
					t.Errorf("token %d came back as %v, %v", i, got, err)
				}
			}
		})
	}
	wg.Wait()
}
