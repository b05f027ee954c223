package mfa

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/passkey"
	"github.com/watchword-auth/watchword/internal/passkey/passkeytest"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

const origin = "https://example.org"

// passkeys makes two replicas with passkeys.
func passkeys(t *testing.T) (w *world, a, b *replica) {
	t.Helper()
	w, a = newWorld(t)
	b = w.replica(limit.Config{})
	for _, r := range []*replica{a, b} {
		party, err := passkey.New(passkey.Config{ID: "example.org", Name: "Example", Origins: []string{origin}})
		if err != nil {
			t.Fatal(err)
		}
		r.Party = party
	}
	return w, a, b
}

// made has an authenticator make a passkey of a user.
func (r *replica) made(u store.User, key *passkeytest.Authenticator, name string) error {
	r.w.t.Helper()
	options, err := r.BeginPasskey(r.w.t.Context(), r.w.as(u))
	if err != nil {
		return err
	}
	_, _, err = r.ConfirmPasskey(r.w.t.Context(), r.w.as(u), r.w.epoch(u), name, created(r.w.t, key, options))
	return err
}

func created(t testing.TB, key *passkeytest.Authenticator, options json.RawMessage) json.RawMessage {
	t.Helper()
	response, err := key.Create(options)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// shown is the answer of an authenticator to options.
func shown(t testing.TB, key *passkeytest.Authenticator, options json.RawMessage, err error) Answer {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	response, err := key.Get(options)
	if err != nil {
		t.Fatal(err)
	}
	return Answer{Method: Passkey, Credential: response}
}

// answer has an authenticator answer a login's challenge.
func (r *replica) answer(token string, key *passkeytest.Authenticator) Answer {
	r.w.t.Helper()
	options, err := r.PasskeyOptions(r.w.t.Context(), token, home)
	return shown(r.w.t, key, options, err)
}

// A passkey answers the challenge of one login, once, whichever replica began it.
func TestAPasskeyAsSecondFactor(t *testing.T) {
	w, a, b := passkeys(t)
	replicas := []*replica{a, b}
	ada, eve := a.user("ada"), a.user("eve")
	for name, key := range map[string]*passkeytest.Authenticator{
		"counting": {Origin: origin}, "verifying": {Origin: origin, Verifies: true}, "synced": {Origin: origin, Verifies: true, Synced: true},
	} {
		w.want(name+": enrolled", a.made(ada, key, name), "")
		kind := map[bool]string{true: "swk", false: "hwk"}[key.Synced]
		token, other := a.challenged(ada), a.challenged(ada)
		w.want(name+": before the options", errOf(a.complete(token, a.answer(other, key))), "nothing_pending")
		stale := a.answer(token, key)
		answer := b.answer(token, key)
		w.want(name+": of options that were replaced", errOf(a.complete(token, stale)), "passkey_refused")
		var done Done
		counts := together(100, func(i int) error {
			d, err := replicas[i%2].complete(token, answer)
			if err == nil {
				done = d
			}
			return err
		})
		w.wantOnce(name+": at the same moment", counts, gone)
		if want := slices.Sorted(slices.Values([]string{kind, "mfa", "pwd", "user"})); !slices.Equal(done.Methods, want) {
			t.Errorf("%s: amr %q", name, done.Methods)
		}
		w.want(name+": again", errOf(b.complete(token, answer)), gone)
		w.want(name+": in another login", errOf(b.complete(other, answer)), "passkey_refused")
	}
	w.want("eve's", a.made(eve, &passkeytest.Authenticator{Origin: origin}, ""), "")
	token := a.challenged(eve)
	key := &passkeytest.Authenticator{Origin: origin}
	w.want("ada's third", a.made(ada, key, ""), "")
	if _, err := a.PasskeyOptions(t.Context(), token, home); err != nil {
		t.Fatal(err)
	}
	w.want("ada's passkey for eve's login", errOf(a.complete(token, a.answer(a.challenged(ada), key))), "passkey_refused")
	if log := w.log.String(); strings.Contains(log, "has not grown") {
		t.Error("a passkey is noted as a copy that is none")
	}
	o, err := a.Overview(t.Context(), w.as(ada), ada.ID)
	if err != nil || len(o.Factors) != 4 {
		t.Fatalf("%+v, %v", o, err)
	}
	for _, f := range o.Factors {
		if f.Cloned || f.Synced != (f.Name == "synced") || f.UsedAt.IsZero() != (f.Name == "Passkey 4") {
			t.Errorf("%+v", f)
		}
	}
}

// A counter that has not grown is refused, and leaves a warning: once, and not when the same call is
// made again.
func TestACopiedPasskey(t *testing.T) {
	w, a, b := passkeys(t)
	ada := a.user("ada")
	key := &passkeytest.Authenticator{Origin: origin, Verifies: true}
	w.want("enrolled", a.made(ada, key, ""), "")
	copied := *key.Held[0]
	clone := &passkeytest.Authenticator{Origin: origin, Verifies: true, Held: []*passkeytest.Credential{&copied}}

	token := a.challenged(ada)
	answer := a.answer(token, key)
	a.faults.set(func(op string) (bool, bool) { return op == "take", false })
	w.want("the state is away", errOf(a.complete(token, answer)), "state_unavailable")
	a.faults.set(nil)
	w.want("the same call again", errOf(b.complete(token, answer)), "")
	if strings.Contains(w.log.String(), "has not grown") {
		t.Error("the same call again is noted as that of a copy")
	}
	for range 2 {
		token = a.challenged(ada)
		w.want("the copy", errOf(a.complete(token, a.answer(token, clone))), "passkey_counter")
		clone.Held[0].Counter = 0
	}
	options, err := a.PasskeyLoginOptions(t.Context(), home)
	w.want("the copy, alone", errOf(a.PasskeyLogin(t.Context(), shown(t, clone, options, err).Credential, home)), "passkey_counter")
	o, err := a.Overview(t.Context(), w.as(ada), ada.ID)
	if err != nil || !o.Factors[0].Cloned {
		t.Errorf("%+v, %v", o, err)
	}
	noted := slices.DeleteFunc(w.events(ada.ID), func(e string) bool { return e != "mfa.passkey denied the counter has not grown" })
	if len(noted) != 1 || strings.Count(w.log.String(), "has not grown, so that there may be a copy") != 1 {
		t.Errorf("the trail says %q", w.events(ada.ID))
	}
	w.want("the genuine one", errOf(b.complete(token, b.answer(token, key))), "")
}

// The answer to a ceremony is accepted once, also if another one is begun meanwhile.
func TestACeremonyOnce(t *testing.T) {
	w, a, b := passkeys(t)
	replicas := []*replica{a, b}
	ada := a.user("ada")
	key := &passkeytest.Authenticator{Origin: origin, Verifies: true, Synced: true} // it does not count
	w.want("enrolled", a.made(ada, key, ""), "")
	const sid = "0198c8c4-2f5e-7a63-9f3e-6b1d2f0c9a11"
	begin := func() Answer {
		t.Helper()
		options, err := a.StepUpOptions(t.Context(), w.stored(ada), sid)
		return shown(t, key, options, err)
	}
	stepUp := func(r *replica, session string, answer Answer) error {
		return errOf(r.StepUp(t.Context(), w.stored(ada), session, answer, home))
	}
	answer := begin()
	w.want("another session", stepUp(a, "0198c8c4-2f5e-7a63-9f3e-6b1d2f0c9a12", answer), "nothing_pending")
	counts := together(100, func(i int) error { return stepUp(replicas[i%2], sid, answer) })
	w.wantOnce("a step-up at the same moment", counts, "nothing_pending", "passkey_refused")

	// Between the look at the ceremony and its end, another one takes its place.
	answer, accepted := begin(), 0
	for range 2 {
		a.faults.set(func(op string) (bool, bool) {
			if op == "take" {
				a.faults.choose = nil
				options, ceremony, err := a.Party.BeginLogin(passkey.User{ID: ada.ID, Name: "ada", DisplayName: "ada", Credentials: a.must(ada).credentials()})
				if err != nil || options == nil {
					t.Error(err)
				}
				if _, err := w.state.Put(t.Context(), state.Key{Kind: kindStepUp, Owner: ada.ID, ID: sid}, ceremony, time.Minute); err != nil {
					t.Error(err)
				}
			}
			return false, true
		})
		if stepUp(a, sid, answer) == nil {
			accepted++
		}
	}
	a.faults.set(nil)
	if accepted > 0 {
		t.Errorf("an answer is accepted that ends another ceremony")
	}

	options, err := a.PasskeyLoginOptions(t.Context(), home)
	alone := shown(t, key, options, err).Credential
	token := a.challenged(ada)
	a.answer(token, key)
	w.want("as a second factor", errOf(a.complete(token, Answer{Method: Passkey, Credential: alone})), "passkey_refused")
	counts = together(100, func(i int) error { return errOf(replicas[i%2].PasskeyLogin(t.Context(), alone, home)) })
	w.wantOnce("a login at the same moment", counts, "passkey_refused")
	options, err = a.PasskeyLoginOptions(t.Context(), home)
	alone = shown(t, key, options, err).Credential
	w.clock.pass(TokenFor)
	w.want("too late", errOf(a.PasskeyLogin(t.Context(), alone, home)), "passkey_refused")
	options, err = a.PasskeyLoginOptions(t.Context(), home)
	alone = shown(t, key, options, err).Credential
	if err := disable(a, ada); err != nil {
		t.Fatal(err)
	}
	w.want("of a disabled user", errOf(a.PasskeyLogin(t.Context(), alone, home)), "passkey_refused")
}

func (r *replica) must(u store.User) factors {
	r.w.t.Helper()
	f, err := r.factorsOf(r.w.t.Context(), r.w.store, u.ID)
	if err != nil {
		r.w.t.Fatal(err)
	}
	return f
}

// A user has several passkeys with names, at most so many, and each is of one user.
func TestPasskeysOfAUser(t *testing.T) {
	w, a, _ := passkeys(t)
	ada, eve := a.user("ada"), a.user("eve")
	key := &passkeytest.Authenticator{Origin: origin, Verifies: true}
	w.want("the first", a.made(ada, key, " my phone "), "")
	for i := 2; i <= MaxPasskeys; i++ {
		w.want(fmt.Sprint(i), a.made(ada, &passkeytest.Authenticator{Origin: origin}, ""), "")
	}
	w.want("one too many", a.made(ada, key, ""), "too_many_passkeys")
	rows := w.rows(ada, kindPasskey)
	for name, want := range map[string]string{
		"": "invalid_request", " ": "invalid_request", strings.Repeat("x", 65): "invalid_request", "a\x00": "invalid_request", "a\u202e": "invalid_request",
		"\xff": "invalid_request", strings.Repeat("é", 64): "", "your phone": "",
	} {
		w.want(fmt.Sprintf("renamed to %q", name), a.RenamePasskey(t.Context(), w.as(ada), w.epoch(ada), rows[0].ID, name), want)
	}
	w.want("another's renamed", a.RenamePasskey(t.Context(), w.as(eve), w.epoch(eve), rows[0].ID, "x"), "factor_not_found")
	w.want("another's removed", errOf(a.RemovePasskey(t.Context(), w.as(eve), w.epoch(eve), rows[0].ID)), "factor_not_found")
	before := w.stored(ada)
	w.want("removed", errOf(a.RemovePasskey(t.Context(), w.as(ada), w.epoch(ada), rows[1].ID)), "")
	if now := w.stored(ada); now.SessionEpoch <= before.SessionEpoch || len(w.rows(ada, kindPasskey)) != MaxPasskeys-1 {
		t.Error("removing a passkey ends nothing, or more than one is gone")
	}
	w.want("removed again", errOf(a.RemovePasskey(t.Context(), w.as(ada), w.epoch(ada), rows[1].ID)), "factor_not_found")

	// An authenticator that gives the id of another user's passkey gets nothing by it.
	thief := &passkeytest.Authenticator{Origin: origin, Change: func(an *passkeytest.Answer) { an.ID = key.Held[0].ID }}
	w.want("the id of another's", a.made(eve, thief, ""), "already_enrolled")
	w.want("nothing begun", errOf3(a.ConfirmPasskey(t.Context(), w.as(eve), w.epoch(eve), "", created(t, &passkeytest.Authenticator{Origin: origin}, mustBegin(t, a, ada)))), "nothing_pending")
	w.want("no credential", errOf3(a.ConfirmPasskey(t.Context(), w.as(eve), w.epoch(eve), "", nil)), "invalid_request")

	options := mustBegin(t, a, eve)
	response := created(t, &passkeytest.Authenticator{Origin: origin}, options)
	epoch := w.epoch(eve)
	counts := together(100, func(int) error { return errOf3(a.ConfirmPasskey(t.Context(), w.as(eve), epoch, "", response)) })
	w.wantOnce("confirmed at the same moment", counts, "nothing_pending", "passkey_refused", "already_enrolled", "token_revoked")

	// Where passkeys are off, one that is enrolled is still not nothing.
	a.Party = nil
	w.want("passkeys are off", errOf(a.begin(eve, home, "", "")), "passkeys_off")
	w.want("passkeys are off, options", errOf(a.PasskeyLoginOptions(t.Context(), home)), "passkeys_off")
	w.want("passkeys are off, enrolling", errOf(a.BeginPasskey(t.Context(), w.as(eve))), "passkeys_off")
}

func mustBegin(t *testing.T, r *replica, u store.User) json.RawMessage {
	t.Helper()
	options, err := r.BeginPasskey(t.Context(), r.w.as(u))
	if err != nil {
		t.Fatal(err)
	}
	return options
}

// A passkey is enrolled in the course of a login by a user who must have a factor.
func TestEnrolAPasskeyAtLogin(t *testing.T) {
	w, a, b := passkeys(t)
	a.Policy.Always, b.Policy.Always = true, true
	ada := a.user("ada")
	key := &passkeytest.Authenticator{Origin: origin, Verifies: true}
	c, err := a.begin(ada, home, "", "")
	if err != nil || !slices.Equal(c.Enrol, []string{TOTP, Passkey}) {
		t.Fatalf("%+v, %v", c, err)
	}
	options, err := a.EnrolPasskey(t.Context(), c.Token, home)
	if err != nil {
		t.Fatal(err)
	}
	made := Answer{Method: Passkey, Credential: created(t, key, options)}
	w.want("in another login", errOf(b.complete(b.challenged(ada), made)), "nothing_pending")
	w.want("as a login by passkey alone", errOf(b.PasskeyLogin(t.Context(), made.Credential, home)), "malformed_passkey")
	done, err := b.complete(c.Token, made)
	if err != nil || !slices.Equal(done.Methods, []string{"hwk", "mfa", "pwd", "user"}) {
		t.Fatalf("%+v, %v", done, err)
	}
	w.want("again", errOf(a.complete(c.Token, made)), gone)
	token := a.challenged(ada)
	w.want("the next login", errOf(b.complete(token, a.answer(token, key))), "")
}
