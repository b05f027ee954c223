package verify

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/watchword-auth/watchword/verify/revoked"
)

// The cases of keys_over_time.json and feed_over_time.json.

func ptr[T any](v T) *T { return &v }

func keysOverTime(s *signer) vectorFile {
	f := vectorFile{
		name:  "keys_over_time.json",
		about: "How the key set is fetched and kept. Each case is a verifier that begins without keys; its first step is its first fetch. Times are milliseconds since the start.",
		top:   obj{"start": vectorNow},
	}
	set := func(kids ...string) obj {
		keys := []any{}
		for _, kid := range kids {
			keys = append(keys, s.jwk(kid, nil))
		}
		return obj{"keys": keys}
	}
	answer := func(cache string, body any) *stepAnswer {
		a := &stepAnswer{Status: 200, Headers: map[string]string{"Content-Type": "application/jwk-set+json"}, Body: body}
		if cache != "" {
			a.Headers["Cache-Control"] = cache
		}
		return a
	}
	fetched := func(at int64, a *stepAnswer, life float64, kids ...string) step {
		if kids == nil {
			kids = []string{}
		}
		return step{Do: "fetch", AtMS: at, Answer: a, NextMS: []float64{900 * life, 980 * life}, Error: ptr(false), Keys: &kids}
	}
	failed := func(at int64, a *stepAnswer, most float64, kids ...string) step {
		if kids == nil {
			kids = []string{}
		}
		return step{Do: "fetch", AtMS: at, Answer: a, NextMS: []float64{500 * most, 1000 * most}, Error: ptr(true), Keys: &kids}
	}
	find := func(at int64, kid, result string) step {
		return step{Do: "find", AtMS: at, Kid: kid, Result: result, Asks: ptr(false)}
	}
	asks := func(at int64, kid, then string) step {
		return step{Do: "find", AtMS: at, Kid: kid, Result: "fetch", Asks: ptr(true), Then: then}
	}
	look := func(at int64, kids ...string) step {
		if kids == nil {
			kids = []string{}
		}
		return step{Do: "look", AtMS: at, Keys: &kids}
	}
	add := func(name, rule string, steps ...step) {
		f.cases = append(f.cases, overTime{vectorCase: named(name, rule), Steps: steps})
	}
	const how = "docs/protocol.md, The key set over time"
	fails := &stepAnswer{Fails: true}
	secretKid := s.secretKid("HS256")
	for _, c := range []struct {
		cache string
		life  float64
	}{
		{"public, max-age=30, stale-if-error=86400", 30}, {"MAX-AGE=600", 600}, {`max-age="60"`, 60}, {"", 30}, {"public", 30},
		{"max-age=31536000", 3600}, {"max-age=3", 3}, {"max-age=0", 5}, {"no-store", 5}, {"max-age=60, no-cache", 5}, {"max-age=-5", 30}, {"max-age=soon", 30},
		{"max-age=99999999999", 3600},
	} {
		add("Cache-Control: "+c.cache, "RFC 9111 §4.2.1, §5.2.2", fetched(0, answer(c.cache, set("es256")), c.life, "es256"))
	}
	aged := func(age string, life float64) {
		a := answer("max-age=60", set("es256"))
		a.Headers["Age"] = age
		add("max-age=60 with Age: "+age, "RFC 9111 §4.2.3", fetched(0, a, life, "es256"))
	}
	aged("20", 40)
	aged("59", 1)
	aged("60", 5)
	aged("1000", 5)
	aged("soon", 60)
	aged("-5", 60)

	first := fetched(0, answer("max-age=60", set("es256", "eddsa")), 60, "es256", "eddsa")
	for _, c := range []struct {
		name string
		a    *stepAnswer
	}{
		{"no answer", fails},
		{"500", &stepAnswer{Status: 500, Text: "no"}},
		{"500 with a set", &stepAnswer{Status: 500, Body: set("es384")}},
		{"203 with a set", &stepAnswer{Status: 203, Body: set("es384")}},
		{"404", &stepAnswer{Status: 404, Body: obj{}}},
		{"a redirect", &stepAnswer{Status: 302, Headers: map[string]string{"Location": "https://evil.example/"}}},
		{"304 that nobody asked for", &stepAnswer{Status: 304}},
		{"no body", &stepAnswer{Status: 200}},
		{"no JSON", &stepAnswer{Status: 200, Text: "<html>"}},
		{"an empty set", answer("", set())},
		{"a set of keys for others", answer("", obj{"keys": []any{s.jwk("es256", obj{"use": "enc"})}})},
		{"a set with a broken key", answer("", obj{"keys": []any{s.jwk("es256", nil), s.jwk("es384", obj{"x": "AAAA"})}})},
		{"a set that is too large", &stepAnswer{Status: 200, Body: set("es384"), Pad: 1 << 20}},
	} {
		add("a bad answer changes nothing: "+c.name, how, first, failed(55_000, c.a, 1, "es256", "eddsa"), find(55_100, "es256", "found"))
	}
	add("the pause doubles with each failure", how, failed(0, fails, 1), failed(1_000, fails, 2), failed(3_000, fails, 4), failed(7_000, fails, 8), failed(15_000, fails, 16), failed(31_000, fails, 30), failed(61_000, fails, 30),
		fetched(91_000, answer("max-age=60", set("es256")), 60, "es256"), failed(150_000, fails, 1, "es256"))
	add("a key that has left the set is not used", how, first, fetched(55_000, answer("max-age=60", set("eddsa")), 60, "eddsa"), asks(61_000, "es256", "token_key_unknown"), fetched(61_000, answer("max-age=60", set("eddsa")), 60, "eddsa"))
	add("an unknown kid brings the new key", how, first, asks(6_000, "es384", "found"), fetched(6_000, answer("max-age=60", set("es256", "es384")), 60, "es256", "es384"), find(6_001, "es384", "found"))
	add("an unknown kid is asked for once a minute", how, first,
		asks(6_000, "nobody", "token_key_unknown"), fetched(6_000, answer("max-age=600", set("es256")), 600, "es256"),
		find(6_001, "nobody", "token_key_unknown"), find(65_999, "nobody", "token_key_unknown"),
		asks(66_000, "nobody", "token_key_unknown"), fetched(66_000, answer("max-age=600", set("es256")), 600, "es256"))
	add("between two fetches are five seconds", how, first, find(4_999, "nobody", "key_set_unavailable"), asks(5_000, "nobody", "token_key_unknown"), fetched(5_000, answer("max-age=60", set("es256")), 60, "es256"),
		find(9_999, "somebody", "key_set_unavailable"), asks(10_000, "somebody", "token_key_unknown"), fetched(10_000, answer("max-age=60", set("es256")), 60, "es256"))
	add("a fetch that fails says nothing about a kid", how, first, asks(6_000, "es384", "key_set_unavailable"), failed(6_000, fails, 1, "es256", "eddsa"),
		find(6_500, "es384", "key_set_unavailable"), fetched(7_000, answer("max-age=60", set("es384")), 60, "es384"), find(7_001, "es384", "found"))
	add("after a failure the next request does not wait", how, first, failed(55_000, fails, 1, "es256", "eddsa"),
		step{Do: "find", AtMS: 61_000, Kid: "es384", Result: "key_set_unavailable", Asks: ptr(true)}, fetched(61_000, answer("max-age=60", set("es384")), 60, "es384"), find(61_001, "es384", "found"))
	add("a kid of more than 256 bytes is asked for never", how, first, find(6_000, strings.Repeat("k", 257), "token_key_unknown"))
	etag := answer("max-age=60", set("es256"))
	etag.Headers["ETag"] = `"1"`
	plain := fetched(0, etag, 60, "es256")
	plain.Request = &stepRequest{IfNoneMatch: ptr("")}
	confirmed := fetched(55_000, &stepAnswer{Status: 304, Headers: map[string]string{"Cache-Control": "max-age=30"}}, 30, "es256")
	confirmed.Request = &stepRequest{IfNoneMatch: ptr(`"1"`)}
	add("304 confirms the set", "RFC 9110 §15.4.5, RFC 9111 §4.3.4", plain, confirmed, look(55_000+86_400_000, "es256"), look(55_000+86_400_001))
	withoutTag := fetched(55_000, answer("max-age=60", set("es256")), 60, "es256")
	withoutTag.Request = &stepRequest{IfNoneMatch: ptr(`"1"`)}
	untagged := fetched(110_000, answer("max-age=60", set("es256")), 60, "es256")
	untagged.Request = &stepRequest{IfNoneMatch: ptr("")}
	add("an answer without ETag ends the former one", "RFC 9110 §13.1.2", plain, withoutTag, untagged)
	add("a failure does not", "RFC 9110 §13.1.2", plain, failed(55_000, fails, 1, "es256"), func() step { s := confirmed; s.AtMS = 56_000; return s }())
	add("a set is used for 24 hours after its last good answer", how, first, failed(55_000, fails, 1, "es256", "eddsa"), look(86_400_000, "es256", "eddsa"), find(86_400_000, "es256", "found"), look(86_400_001),
		step{Do: "find", AtMS: 86_400_001, Kid: "es256", Result: "key_set_unavailable", Asks: ptr(true)}, fetched(86_400_002, answer("max-age=60", set("es256")), 60, "es256"), find(86_400_003, "es256", "found"))
	old := answer("max-age=60", set("es256"))
	old.Headers["Age"] = "86390"
	add("the age of an answer from a cache counts", "RFC 9111 §5.1", fetched(0, old, 5, "es256"), look(10_000, "es256"), look(10_001))
	// Watchword's key set is empty where the tokens are signed with a secret.
	f.cases = append(f.cases, overTime{named("with a secret, an empty set is a good answer", how), &timeConfig{Secrets: []string{vectorSecret}}, []step{
		fetched(0, answer("max-age=60", set()), 60), find(1_000, secretKid, "found"), asks(6_000, "nobody", "token_key_unknown"), fetched(6_000, answer("max-age=60", set()), 60), look(6_001),
	}})
	f.cases = append(f.cases, overTime{named("a secret does not need the key set", how), &timeConfig{Secrets: []string{vectorSecret}}, []step{
		failed(0, fails, 1), find(100, secretKid, "found"),
	}})
	add("the wall clock is set on", how, first, step{Do: "clock_set", AtMS: 1_000, ByS: 86_400}, look(1_001))
	add("the wall clock is set back", how, first, step{Do: "clock_set", AtMS: 1_000, ByS: -86_400}, look(86_400_000, "es256", "eddsa"), look(86_400_001))
	return f
}

// A serverTime is a moment by the server's clock, which is a year behind.
const serverYear = "2026-01-15T08:"

func feedOverTime() vectorFile {
	f := vectorFile{
		name:  "feed_over_time.json",
		about: "How the feed is read, and what is known of a token. Each case is a verifier that has read nothing. Times are milliseconds since the start, which is in seconds since 1970.",
		top:   obj{"start": vectorNow},
	}
	const exp = vectorNow + 3600
	entry := func(seq int64, kind revoked.Kind, value string, change obj) obj {
		return with(obj{"seq": seq, "kind": string(kind), "id": digest(string(kind), value), "exp": exp}, change)
	}
	page := func(log string, head int64, asOf string, change obj, entries ...any) *stepAnswer {
		if entries == nil {
			entries = []any{}
		}
		body := with(obj{"version": 1, "log": log, "head": head, "as_of": serverYear + asOf + "Z", "age_ms": 0, "heartbeat_ms": 1000, "snapshot": false, "entries": entries, "more": false}, change)
		return &stepAnswer{Status: 200, Headers: map[string]string{"Content-Type": "application/json"}, Body: body}
	}
	state := func(log string, next int64, confirmed int64, entries int) *feedState {
		s := &feedState{Log: log, Next: next, Entries: entries}
		if confirmed > never {
			s.ConfirmedMS = &confirmed
		}
		return s
	}
	read := func(asked, answered int64, request stepRequest, a *stepAnswer, s *feedState) step {
		return step{Do: "page", AtMS: asked, AnsweredMS: answered, Request: &request, Answer: a, Again: ptr(false), Error: ptr(false), State: s}
	}
	after := func(n int64) stepRequest { return stepRequest{After: &n} }
	more := func(s step) step { s.Again = ptr(true); return s }
	bad := func(s step) step { s.Error = ptr(true); return s }
	stream := func(at int64, id string, silence int64) step {
		return step{Do: "stream", AtMS: at, Request: &stepRequest{LastEventID: id}, SilenceMS: silence}
	}
	event := func(at int64, name string, data any, s *feedState) step {
		return step{Do: "event", AtMS: at, Event: name, Data: data, Error: ptr(false), State: s}
	}
	head := func(log string, n int64, asOf string, age int64) obj {
		return obj{"version": 1, "log": log, "head": n, "as_of": serverYear + asOf + "Z", "age_ms": age}
	}
	check := func(at int64, token stepToken, code string) step {
		if token.IAT == 0 {
			token.IAT = vectorNow - 60
		}
		return step{Do: "check", AtMS: at, Token: &token, Code: &code}
	}
	withStaleness := func(seconds float64, name, rule string, steps ...step) {
		f.cases = append(f.cases, overTime{named(name, rule), &timeConfig{MaxStaleness: seconds, OnStale: "refuse"}, steps})
	}
	add := func(name, rule string, steps ...step) { withStaleness(10, name, rule, steps...) }
	how := "docs/protocol.md, The check"
	one := stepToken{JTI: "jti-1", SID: "sid-1", Sub: "user-1", Kid: "kid-1", Epoch: 3}
	first := read(0, 40, after(0), page("log-1", 0, "00:00", nil), state("log-1", 0, 0, 0))

	add("an empty feed", how, first, check(50, one, ""))
	for _, c := range []struct {
		kind  revoked.Kind
		value string
	}{{revoked.Token, "jti-1"}, {revoked.Session, "sid-1"}, {revoked.Key, "kid-1"}} {
		other := one
		other.JTI, other.SID, other.Kid = "jti-2", "sid-2", "kid-2"
		add("an entry of kind "+string(c.kind), how, read(0, 40, after(0), page("log-1", 1, "00:00", nil, entry(1, c.kind, c.value, nil)), state("log-1", 1, 0, 1)),
			check(50, one, "token_revoked"), check(50, other, ""))
	}
	user := func(change obj, steps ...step) []step {
		return append([]step{read(0, 40, after(0), page("log-1", 1, "00:00", nil, entry(1, revoked.User, "user-1", change)), state("log-1", 1, 0, 1))}, steps...)
	}
	of := func(epoch int64, iat float64) stepToken {
		t := one
		t.Epoch, t.IAT = epoch, iat
		return t
	}
	add("a user up to an epoch", how, user(obj{"epoch": 4}, check(50, of(3, vectorNow), "token_revoked"), check(50, of(4, 1), ""), check(50, of(5, 1), ""))...)
	add("a user up to a time", how, user(obj{"issued_before": vectorNow}, check(50, of(9, vectorNow-1), "token_revoked"), check(50, of(9, vectorNow-0.001), "token_revoked"), check(50, of(0, vectorNow), ""), check(50, of(0, vectorNow+1), ""))...)
	add("a user up to both", how, user(obj{"epoch": 4, "issued_before": vectorNow}, check(50, of(4, vectorNow-1), "token_revoked"), check(50, of(3, vectorNow+1), "token_revoked"), check(50, of(4, vectorNow), ""))...)
	add("of two entries for a user the greater bounds hold", how,
		read(0, 40, after(0), page("log-1", 3, "00:00", nil, entry(1, revoked.User, "user-1", obj{"epoch": 4}), entry(2, revoked.User, "user-1", obj{"issued_before": vectorNow}), entry(3, revoked.User, "user-1", obj{"epoch": 2, "issued_before": vectorNow - 100})), state("log-1", 3, 0, 1)),
		check(50, of(3, vectorNow+1), "token_revoked"), check(50, of(4, vectorNow-1), "token_revoked"), check(50, of(4, vectorNow), ""))
	add("a token without a session is not revoked by an entry for an empty name", how,
		read(0, 40, after(0), page("log-1", 1, "00:00", nil, entry(1, revoked.Session, "", nil)), state("log-1", 1, 0, 1)), check(50, stepToken{JTI: "jti-1", Sub: "user-1", Kid: "kid-1"}, ""))

	how = "docs/protocol.md, The feed, pages"
	add("several pages", how,
		more(read(0, 40, after(0), page("log-1", 5, "00:00", obj{"more": true}, entry(1, revoked.Token, "a", nil), entry(2, revoked.Token, "b", nil)), state("log-1", 2, never, 2))),
		read(40, 80, after(2), page("log-1", 5, "00:00", nil, entry(4, revoked.Token, "jti-1", nil)), state("log-1", 5, 40, 3)), check(90, one, "token_revoked"))
	add("more, but it does not go on", how,
		bad(read(0, 40, after(0), page("log-1", 5, "00:00", obj{"more": true}), state("log-1", 0, never, 0))), check(90, one, "revocation_stale"))
	add("the same page again does no harm", how,
		read(0, 40, after(0), page("log-1", 1, "00:00", nil, entry(1, revoked.Token, "a", nil)), state("log-1", 1, 0, 1)),
		read(1000, 1040, after(1), page("log-1", 1, "00:01", nil, entry(1, revoked.Token, "a", nil)), state("log-1", 1, 1000, 1)))
	add("a head that is behind does not take the reader back", how,
		read(0, 40, after(0), page("log-1", 7, "00:00", nil), state("log-1", 7, 0, 0)), read(1000, 1040, after(7), page("log-1", 5, "00:01", nil), state("log-1", 7, 1000, 0)))
	add("unknown members", how,
		read(0, 40, after(0), page("log-1", 1, "00:00", obj{"new": obj{"a": 1}}, entry(1, revoked.Token, "jti-1", obj{"why": "x"})), state("log-1", 1, 0, 1)), check(50, one, "token_revoked"))
	for _, c := range []struct {
		name string
		e    obj
	}{
		{"an unknown kind", entry(2, revoked.Token, "b", obj{"kind": "client"})},
		{"a kind in capitals", entry(2, revoked.Token, "b", obj{"kind": "JTI"})},
		{"a kind that every object of JavaScript has", entry(2, revoked.Token, "b", obj{"kind": "constructor"})},
		{"a number of 0", entry(2, revoked.Token, "b", obj{"seq": 0})},
		{"an id with stray bits", entry(2, revoked.Token, "b", obj{"id": strayBits(digest("jti", "b"))})},
		{"an id with a line break", entry(2, revoked.Token, "b", obj{"id": digest("jti", "b") + "\n"})},
		{"an expiry of 0", entry(2, revoked.Token, "b", obj{"exp": 0})},
		{"a negative time", entry(2, revoked.User, "b", obj{"issued_before": -1})},
		{"no kind", entry(2, revoked.Token, "b", obj{"kind": nil})},
		{"an id that is too short", entry(2, revoked.Token, "b", obj{"id": "AAAA"})},
		{"an id with padding", entry(2, revoked.Token, "b", obj{"id": digest("jti", "b") + "=="})},
		{"a number that is a text", entry(2, revoked.Token, "b", obj{"seq": "2"})},
		{"no number", entry(2, revoked.Token, "b", obj{"seq": nil})},
		{"no expiry", entry(2, revoked.Token, "b", obj{"exp": nil})},
		{"a user without a bound", entry(2, revoked.User, "b", nil)},
		{"a token with an epoch", entry(2, revoked.Token, "b", obj{"epoch": 1})},
		{"a negative epoch", entry(2, revoked.User, "b", obj{"epoch": -1})},
	} {
		add("nothing of a page with a bad entry is applied: "+c.name, how, first,
			bad(read(1000, 1040, after(0), page("log-1", 2, "00:01", nil, entry(1, revoked.Token, "jti-1", nil), c.e), state("log-1", 0, 0, 0))),
			check(1050, one, ""), check(10_000, one, ""), check(10_001, one, "revocation_stale"))
	}
	for _, c := range []struct {
		name string
		a    *stepAnswer
	}{
		{"no answer", &stepAnswer{Fails: true}},
		{"500", &stepAnswer{Status: 500, Text: "no"}},
		{"410, the version has ended", &stepAnswer{Status: 410, Headers: map[string]string{"Content-Type": "application/problem+json"}, Body: obj{"code": "feed_version_gone"}}},
		{"503 with a page", &stepAnswer{Status: 503, Headers: map[string]string{"Content-Type": "application/json"}, Body: page("log-1", 0, "00:01", nil).Body}},
		{"another type", &stepAnswer{Status: 200, Headers: map[string]string{"Content-Type": "text/html"}, Body: page("log-1", 0, "00:01", nil).Body}},
		{"no type", &stepAnswer{Status: 200, Body: page("log-1", 0, "00:01", nil).Body}},
		{"no JSON", &stepAnswer{Status: 200, Headers: map[string]string{"Content-Type": "application/json"}, Text: "{"}},
		{"null", &stepAnswer{Status: 200, Headers: map[string]string{"Content-Type": "application/json"}, Text: "null"}},
		{"another object", &stepAnswer{Status: 200, Headers: map[string]string{"Content-Type": "application/json"}, Body: obj{}}},
		{"no log", page("", 0, "00:01", nil)},
		{"no as_of", page("log-1", 0, "00:01", obj{"as_of": nil})},
		{"as_of is a number", page("log-1", 0, "00:01", obj{"as_of": vectorNow})},
		{"as_of is a date", page("log-1", 0, "00:01", obj{"as_of": "2026-01-15"})},
		{"log is a number", page("log-1", 0, "00:01", obj{"log": 1})},
		{"age_ms is a text", page("log-1", 0, "00:01", obj{"age_ms": "0"})},
		{"as_of is no time", page("log-1", 0, "00:01", obj{"as_of": "yesterday"})},
		{"a negative age", page("log-1", 0, "00:01", obj{"age_ms": -1})},
		{"entries that are no array", page("log-1", 0, "00:01", obj{"entries": "none"})},
		{"a page of more than 16 MiB", func() *stepAnswer { a := page("log-1", 0, "00:01", nil); a.Pad = 16 << 20; return a }()},
	} {
		add("no confirmation: "+c.name, how, first, bad(read(1000, 1040, after(0), c.a, state("log-1", 0, 0, 0))))
	}
	const version = "docs/protocol.md, Versions of the feed"
	add("a page that names no version is of version 1", version,
		read(0, 40, after(0), page("log-1", 1, "00:00", obj{"version": nil}, entry(1, revoked.Token, "jti-1", nil)), state("log-1", 1, 0, 1)), check(50, one, "token_revoked"))
	for _, v := range []any{2, -1, "1"} {
		add("nothing of a page of another version is applied: "+jsonOf(v), version, first,
			bad(read(1000, 1040, after(0), page("log-1", 1, "00:01", obj{"version": v}, entry(1, revoked.Token, "jti-1", nil)), state("log-1", 0, 0, 0))),
			check(1050, one, ""), check(10_001, one, "revocation_stale"))
	}
	add("nor is its log", version, first,
		bad(read(1000, 1040, after(0), page("log-2", 1, "00:01", obj{"version": 2}), state("log-1", 0, 0, 0))))
	add("a later server tells a reader of version 1 each session of a client", version,
		read(0, 40, after(0), page("log-1", 3, "00:00", obj{"kinds": []any{"kid", "user", "sid", "jti"}}, entry(2, revoked.Session, "sid-0", obj{"because": "client"}), entry(3, revoked.Session, "sid-1", obj{"because": "client"})), state("log-1", 3, 0, 2)), check(50, one, "token_revoked"))
	typed := page("log-1", 0, "00:00", nil)
	typed.Headers["Content-Type"] = "Application/JSON; charset=utf-8"
	add("the type of a page may have parameters", "RFC 9110 §8.3.1", read(0, 40, after(0), typed, state("log-1", 0, 0, 0)))

	how = "docs/protocol.md, Time and clocks"
	add("age_ms counts", how, read(5000, 5040, after(0), page("log-1", 0, "00:00", obj{"age_ms": 700}), state("log-1", 0, 4300, 0)))
	add("the clock of the server does not", how, read(0, 40, after(0), page("log-1", 0, "59:59", nil), state("log-1", 0, 0, 0)), read(1000, 1040, after(0), page("log-1", 0, "00:00", nil), state("log-1", 0, 1000, 0)))
	add("a slow answer is as old as its request", how, read(0, 3000, after(0), page("log-1", 0, "00:00", nil), state("log-1", 0, 0, 0)))
	add("a replica that is cut off is used, and another one is asked", how, bad(read(5000, 5040, after(0), page("log-1", 0, "00:00", obj{"age_ms": 2501}), state("log-1", 0, 2499, 0))), check(12_499, one, ""), check(12_500, one, "revocation_stale"))
	const immense = 9_223_372_036_855 // ms, a little above 2^63 ns
	add("an immense age is old", how, first, bad(read(1000, 1040, after(0), page("log-1", 0, "00:01", obj{"age_ms": immense}), state("log-1", 0, 0, 0))), check(10_000, one, ""), check(10_001, one, "revocation_stale"))
	add("an age within the silence is no reason to ask another", how, read(5000, 5040, after(0), page("log-1", 0, "00:00", obj{"age_ms": 2500}), state("log-1", 0, 2500, 0)))
	how = "docs/protocol.md, The feed, long polls"
	wait := func(n int64) stepRequest { return stepRequest{After: &n, Wait: 2} }
	add("a page that was held back is as much younger", how, first, read(1000, 3040, wait(0), page("log-1", 0, "00:03", obj{"waited_ms": 2000}), state("log-1", 0, 3000, 0)))
	add("it was not held back for longer than has passed", how, first, read(1000, 3000, wait(0), page("log-1", 0, "00:03", obj{"waited_ms": 2050}), state("log-1", 0, 3000, 0)))
	add("a server that lies about it is not believed", how, first, read(1000, 1100, wait(0), page("log-1", 0, "00:03", obj{"waited_ms": 20_000}), state("log-1", 0, 1000, 0)))
	add("a negative waited_ms does not count", how, first, read(1000, 1100, wait(0), page("log-1", 0, "00:03", obj{"waited_ms": -1000}), state("log-1", 0, 1000, 0)))
	how = "docs/protocol.md, Time and clocks"
	cached := page("log-1", 0, "00:02", nil)
	cached.Headers["Age"] = "3"
	add("a page from a cache is older by its Age and a second", "RFC 9111 §5.1", first, read(5000, 5040, after(0), cached, state("log-1", 0, 1000, 0)))
	young := page("log-1", 0, "00:05", nil)
	young.Headers["Age"] = "0"
	add("Age: 0 is up to a second", "RFC 9111 §5.1", first, read(5000, 5040, after(0), young, state("log-1", 0, 4000, 0)))
	add("as_of with milliseconds and an offset", how, read(0, 40, after(0), page("log-1", 0, "00:00", obj{"as_of": "2026-01-15T10:00:00.123+02:00"}), state("log-1", 0, 0, 0)))
	add("a confirmation is never taken back", how, first, read(1000, 1040, after(0), page("log-1", 0, "00:01", nil), state("log-1", 0, 1000, 0)), read(2000, 2040, after(0), page("log-1", 0, "00:01", obj{"age_ms": 2400}), state("log-1", 0, 1000, 0)))

	how = "docs/protocol.md, The feed, pages"
	add("another log begins at its beginning, and what was known stays", how,
		read(0, 40, after(0), page("log-1", 9, "00:00", nil, entry(9, revoked.Token, "jti-1", nil)), state("log-1", 9, 0, 1)),
		more(read(1000, 1040, after(9), page("log-2", 12, "00:01", nil, entry(12, revoked.Token, "x", nil)), state("log-2", 0, 0, 1))),
		read(1040, 1080, after(0), page("log-2", 12, "00:01", nil, entry(3, revoked.Token, "b", nil), entry(12, revoked.Token, "x", nil)), state("log-2", 12, 1040, 3)), check(1100, one, "token_revoked"))
	add("a snapshot is the beginning of another log", how,
		read(0, 40, after(0), page("log-1", 9, "00:00", nil, entry(9, revoked.Token, "jti-1", nil)), state("log-1", 9, 0, 1)),
		read(1000, 1040, after(9), page("log-2", 2, "00:01", obj{"snapshot": true}, entry(1, revoked.Token, "b", nil)), state("log-2", 2, 1000, 2)), check(1100, one, "token_revoked"))
	add("an entry that another log has as well is kept once", how,
		read(0, 40, after(0), page("log-1", 9, "00:00", nil, entry(9, revoked.Token, "jti-1", nil)), state("log-1", 9, 0, 1)),
		read(1000, 1040, after(9), page("log-2", 2, "00:01", obj{"snapshot": true}, entry(2, revoked.Token, "jti-1", nil)), state("log-2", 2, 1000, 1)), check(1100, one, "token_revoked"))
	add("a snapshot of the same log", how,
		read(0, 40, after(0), page("log-1", 9, "00:00", nil, entry(9, revoked.Token, "jti-1", nil)), state("log-1", 9, 0, 1)),
		read(1000, 1040, after(9), page("log-1", 2, "00:01", obj{"snapshot": true}, entry(1, revoked.Token, "b", nil)), state("log-1", 2, 1000, 2)))

	how = "docs/protocol.md, The feed, streams"
	begin := []step{read(0, 40, after(0), page("log-1", 5, "00:00", nil), state("log-1", 5, 0, 0)), stream(100, "log-1:5", 2500), event(150, "resume", head("log-1", 5, "10:00", 0), state("log-1", 5, 0, 0))}
	onStream := func(name string, steps ...step) { add(name, how, append(append([]step(nil), begin...), steps...)...) }
	onStream("a stream", event(150, "head", head("log-1", 5, "10:00", 0), state("log-1", 5, 100, 0)),
		event(1160, "revocation", entry(6, revoked.Token, "jti-1", nil), state("log-1", 6, 100, 1)), check(1161, one, "token_revoked"),
		event(1170, "head", head("log-1", 6, "10:01", 0), state("log-1", 6, 1100, 1)))
	for _, v := range []any{2, -1, "1"} {
		onStream("a head of another version: "+jsonOf(v), bad(event(1150, "head", with(head("log-1", 5, "10:01", 0), obj{"version": v}), state("log-1", 5, 0, 0))))
	}
	onStream("a snapshot of another version", bad(event(1150, "snapshot", with(head("log-2", 5, "10:01", 0), obj{"version": 2}), state("log-1", 5, 0, 0))))
	onStream("a head that names no version", event(1150, "head", with(head("log-1", 5, "10:01", 0), obj{"version": nil}), state("log-1", 5, 1100, 0)))
	onStream("an event of another name", event(200, "weather", obj{"rain": true}, state("log-1", 5, 0, 0)), event(210, "weather", "rain", state("log-1", 5, 0, 0)), event(1150, "head", head("log-1", 5, "10:01", 0), state("log-1", 5, 1100, 0)))
	onStream("an entry alone confirms nothing", event(1150, "revocation", entry(6, revoked.Token, "a", nil), state("log-1", 6, 0, 1)))
	onStream("as_of with milliseconds", event(1400, "head", head("log-1", 5, "10:01.250", 0), state("log-1", 5, 1350, 0)))
	onStream("age_ms of a head", event(1150, "head", head("log-1", 5, "10:01", 400), state("log-1", 5, 750, 0)))
	onStream("an event that was long on the way", bad(event(4000, "head", head("log-1", 5, "10:01", 0), state("log-1", 5, 1100, 0))))
	onStream("an event that was on the way for two seconds", event(3100, "head", head("log-1", 5, "10:01", 0), state("log-1", 5, 1100, 0)))
	onStream("the clock of the server runs ahead", event(1150, "head", head("log-1", 5, "10:30", 0), state("log-1", 5, 1150, 0)))
	onStream("the clock of the server was set back", bad(event(5150, "head", head("log-1", 5, "09:00", 0), state("log-1", 5, 0, 0))))
	onStream("the server itself does not know", bad(event(4000, "head", head("log-1", 5, "10:03", 2600), state("log-1", 5, 1400, 0))))
	onStream("a head without a log", bad(event(1150, "head", obj{"head": 5, "as_of": serverYear + "10:01Z", "age_ms": 0}, state("log-1", 5, 0, 0))))
	onStream("a head of another log", bad(event(1150, "head", head("log-2", 5, "10:01", 0), state("log-1", 5, 0, 0))))
	onStream("a resume of another log", bad(event(1150, "resume", head("log-2", 5, "10:01", 0), state("log-1", 5, 0, 0))))
	onStream("a head with an immense age", bad(event(1150, "head", head("log-1", 5, "10:01", immense), state("log-1", 5, 0, 0))))
	onStream("a head with a negative age", bad(event(1150, "head", head("log-1", 5, "10:01", -1), state("log-1", 5, 0, 0))))
	onStream("a head that is no JSON", bad(event(1150, "head", "{", state("log-1", 5, 0, 0))))
	onStream("an entry that is no JSON", bad(event(1150, "revocation", "{", state("log-1", 5, 0, 0))))
	onStream("an entry of an unknown kind", bad(event(1150, "revocation", entry(6, revoked.Token, "a", obj{"kind": "client"}), state("log-1", 5, 0, 0))), check(1160, one, ""))
	onStream("a snapshot in a stream", event(1150, "snapshot", head("log-2", 2, "20:00", 0), state("log-2", 0, 0, 0)), event(1160, "revocation", entry(1, revoked.Token, "jti-1", nil), state("log-2", 1, 0, 1)),
		event(1170, "head", head("log-2", 2, "10:01", 0), state("log-2", 2, 1100, 1)), check(1200, one, "token_revoked"))
	add("an entry before the stream says where it begins", how, read(0, 40, after(0), page("log-1", 5, "00:00", nil), state("log-1", 5, 0, 0)), stream(100, "log-1:5", 2500), bad(event(150, "revocation", entry(6, revoked.Token, "a", nil), state("log-1", 5, 0, 0))))
	add("a stream is resumed where it ended", how, read(0, 40, after(0), page("log-1", 5, "00:00", nil), state("log-1", 5, 0, 0)), stream(100, "log-1:5", 2500), event(150, "resume", head("log-1", 5, "10:00", 0), state("log-1", 5, 0, 0)),
		event(200, "revocation", entry(6, revoked.Token, "a", nil), state("log-1", 6, 0, 1)), step{Do: "end", AtMS: 210}, read(300, 340, after(6), page("log-1", 6, "10:00.200", nil), state("log-1", 6, 300, 1)), stream(400, "log-1:6", 2500))
	onStream("an event without data is none", step{Do: "event", AtMS: 200, Event: "head", Data: "", Error: ptr(false), State: state("log-1", 5, 0, 0)})
	withStaleness(3, "events may be late by half of max_staleness", how, read(0, 40, after(0), page("log-1", 5, "00:00", nil), state("log-1", 5, 0, 0)), stream(100, "log-1:5", 1500),
		event(150, "resume", head("log-1", 5, "10:00", 0), state("log-1", 5, 0, 0)), event(2600, "head", head("log-1", 5, "10:01", 0), state("log-1", 5, 1100, 0)), bad(event(3601, "head", head("log-1", 5, "10:02", 0), state("log-1", 5, 2100, 0))))
	for _, c := range []struct {
		seconds float64
		wait    int
		silence int64
	}{{3, 1, 1500}, {4, 1, 2000}, {9, 2, 2250}, {60, 15, 15_000}, {3600, 20, 900_000}} {
		withStaleness(c.seconds, fmt.Sprintf("how long a page and a stream are waited for with max_staleness %v", c.seconds), how, first,
			read(1000, 1040, stepRequest{After: ptr[int64](0), Wait: c.wait}, page("log-1", 0, "00:01", nil), state("log-1", 0, 1000, 0)), stream(1100, "log-1:0", c.silence))
	}
	how = "docs/protocol.md, Which replica"
	slow := page("log-1", 5, "00:00", obj{"heartbeat_ms": 2000})
	add("the silence is two heartbeats of the server", how, read(0, 40, after(0), slow, state("log-1", 5, 0, 0)), stream(100, "log-1:5", 4000), step{Do: "silence", AtMS: 100})
	slower := page("log-1", 5, "00:00", obj{"heartbeat_ms": 20_000})
	add("the silence is half of max_staleness at most", how, read(0, 40, after(0), slower, state("log-1", 5, 0, 0)), stream(100, "log-1:5", 5000), step{Do: "silence", AtMS: 100})

	how = "docs/protocol.md, Staleness"
	accept := func(s step) step { s.OnStale = "accept"; return s }
	within := func(seconds float64, s step) step { s.MaxStaleness = seconds; return s }
	revokedOne := read(0, 40, after(0), page("log-1", 1, "00:00", nil, entry(1, revoked.Token, "jti-1", nil)), state("log-1", 1, 0, 1))
	two := stepToken{JTI: "jti-2", Sub: "user-2", Kid: "kid-1"}
	add("staleness", how, revokedOne, check(10_000, two, ""), check(10_001, two, "revocation_stale"), check(10_001, one, "token_revoked"),
		within(60, check(60_000, two, "")), within(60, check(60_001, two, "revocation_stale")), within(3, check(60_001, two, "revocation_stale")),
		accept(check(60_001, two, "")), accept(check(60_001, one, "token_revoked")))
	add("a verifier that has never read the feed accepts nothing", how,
		bad(read(0, 40, after(0), &stepAnswer{Status: 500}, state("", 0, never, 0))), check(50, two, "revocation_stale"), accept(check(50, two, "revocation_stale")))
	add("the wall clock is set on: the machine may have slept", how, revokedOne, step{Do: "clock_set", AtMS: 1000, ByS: 3600}, check(1001, two, "revocation_stale"), read(1010, 1050, after(1), page("log-1", 1, "00:01", nil), state("log-1", 1, 1010, 1)), check(1060, two, ""))
	add("the wall clock is set on while a stream is open: the next page is by the clock that now is", how, read(0, 40, after(0), page("log-1", 5, "00:00", nil), state("log-1", 5, 0, 0)), stream(100, "log-1:5", 2500),
		event(150, "resume", head("log-1", 5, "10:00", 0), state("log-1", 5, 0, 0)), event(1150, "head", head("log-1", 5, "10:01", 0), state("log-1", 5, 1100, 0)), step{Do: "clock_set", AtMS: 1200, ByS: 3600}, check(1201, one, "revocation_stale"),
		bad(event(2150, "head", head("log-1", 5, "10:02", 0), state("log-1", 5, 2100, 0))), read(2300, 2340, after(5), page("log-1", 5, "10:02.300", nil), state("log-1", 5, 2300, 0)), check(2350, one, ""))
	add("the wall clock is set back while a stream is open: it goes on", how, read(0, 40, after(0), page("log-1", 5, "00:00", nil), state("log-1", 5, 0, 0)), stream(100, "log-1:5", 2500), event(150, "resume", head("log-1", 5, "10:00", 0), state("log-1", 5, 0, 0)),
		step{Do: "clock_set", AtMS: 1000, ByS: -3600}, event(1150, "head", head("log-1", 5, "10:01", 0), state("log-1", 5, 1100, 0)), check(11_100, one, ""), check(11_101, one, "revocation_stale"))
	add("the wall clock is set back", how, revokedOne, step{Do: "clock_set", AtMS: 1000, ByS: -3600}, check(10_000, two, ""), check(10_001, two, "revocation_stale"))

	how = "docs/protocol.md, The feed, entries"
	forget := func(at int64, entries int) step {
		return step{Do: "expire", AtMS: at, State: state("log-1", 2, 0, entries)}
	}
	add("an entry is kept for ten minutes after its exp", how,
		read(0, 40, after(0), page("log-1", 2, "00:00", nil, entry(1, revoked.Token, "jti-1", obj{"exp": vectorNow + 10}), entry(2, revoked.Token, "b", obj{"exp": vectorNow + 20})), state("log-1", 2, 0, 2)),
		forget(610_000, 2), check(610_000, one, "token_revoked"), forget(611_000, 1), forget(620_999, 1), forget(621_000, 0))
	add("of two entries for a token the later exp counts", how,
		read(0, 40, after(0), page("log-1", 2, "00:00", nil, entry(1, revoked.Token, "jti-1", obj{"exp": vectorNow + 20}), entry(2, revoked.Token, "jti-1", obj{"exp": vectorNow + 10})), state("log-1", 2, 0, 1)),
		forget(620_000, 1), forget(621_000, 0))
	return f
}

func jsonOf(v any) string {
	text, _ := json.Marshal(v)
	return string(text)
}

// never is no confirmation.
const never = -1 << 62
