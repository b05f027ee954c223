package mfa

import (
	"context"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

// What is left of a login where nothing of it can be used any more.
const gone = "invalid_mfa_token"

// A code is accepted in its step, in the one before and in the one after, and neither it nor an
// older one is accepted after it: not at another login, not at another replica, and not after
// the one that has confirmed the enrolment.
func TestAStepOnce(t *testing.T) {
	w, a := newWorld(t)
	b := w.replica(limit.Config{})
	ada := a.user("ada")
	app := a.enrolled(ada)
	answer := func(r *replica, code Answer) error {
		_, err := r.complete(a.challenged(ada), code)
		return err
	}
	w.want("the code of the confirmation", answer(a, app.at(0)), "code_used")
	w.want("one before it", answer(a, app.at(-1)), "code_used")
	early := app.at(1)
	w.want("the next one, by a clock that is ahead", answer(a, early), "")
	w.clock.pass(30 * time.Second)
	w.want("the same one in its own step", answer(b, early), "code_used")
	w.want("an older one", answer(b, app.at(-1)), "code_used")
	w.clock.pass(30 * time.Second)
	late := app.at(0)
	w.clock.pass(44 * time.Second) // it is 15 seconds after the middle, and 44 more
	w.want("one whose step was the last one", answer(b, late), "")
	w.want("the same one again", answer(a, late), "code_used")
	w.want("one too early", answer(a, app.at(2)), "invalid_code")
	w.want("one too late", answer(a, app.at(-2)), "invalid_code")
	w.want("the next one", answer(a, app.at(0)), "")
}

// Of a hundred uses of one code at the same moment one is accepted, with one mfa_token and with
// many, on two replicas.
func TestAStepOnceAtTheSameMoment(t *testing.T) {
	w, a := newWorld(t)
	replicas := []*replica{a, w.replica(limit.Config{})}
	ada := a.user("ada")
	app := a.enrolled(ada)
	codes := a.backupCodes(ada)
	for name, answer := range map[string]func() Answer{
		"a step":        app.next,
		"a backup code": func() Answer { return codes[0] },
	} {
		tokens := make([]string, 100)
		for i := range tokens {
			tokens[i] = a.challenged(ada)
		}
		code := answer()
		counts := together(100, func(i int) error { _, err := replicas[i%2].complete(tokens[i], code); return err })
		w.wantOnce(name+" in 100 logins", counts, "code_used")
	}
	codes = codes[1:]
	for name, answer := range map[string]func() Answer{
		"a step":        app.next,
		"a backup code": func() Answer { return codes[0] },
	} {
		token, code := a.challenged(ada), answer()
		counts := together(100, func(i int) error { _, err := replicas[i%2].complete(token, code); return err })
		w.wantOnce(name+" in one login", counts, gone)
		w.want(name+" with the same mfa_token", errOf(a.complete(token, app.next())), gone)
		w.want(name+" in another login", errOf(a.complete(a.challenged(ada), code)), "code_used")
	}
}

func errOf[T any](_ T, err error) error { return err }

// Five wrong codes end a login, whatever the right one is worth after that. A code that was used,
// one that cannot be one, and a method that the user has not are no wrong codes.
func TestFiveWrongCodesEndALogin(t *testing.T) {
	w, a := newWorld(t)
	b := w.replica(limit.Config{})
	ada := a.user("ada")
	app := a.enrolled(ada)
	wrong := app.wrong(6)
	used := app.at(0)

	token := a.challenged(ada)
	for range 10 {
		w.want("a used code", errOf(a.complete(token, used)), "code_used")
		w.want("a malformed code", errOf(b.complete(token, Answer{Method: TOTP, Code: "12345"})), "malformed_code")
		w.want("a long code", errOf(b.complete(token, Answer{Method: TOTP, Code: strings.Repeat("1", 1<<20)})), "malformed_code")
		w.want("no code", errOf(b.complete(token, Answer{Method: BackupCode})), "malformed_code")
		w.want("another factor", errOf(b.complete(token, Answer{Method: BackupCode, Code: "0123456789abcdef"})), "unknown_method")
		w.want("no method", errOf(b.complete(token, Answer{Code: used.Code})), "unknown_method")
		w.want("no credential", errOf(b.complete(token, Answer{Method: Passkey})), "invalid_request")
	}
	for _, code := range wrong[:4] {
		w.want("a wrong code", errOf(b.complete(token, code)), "invalid_code")
	}
	w.want("the right code after four wrong ones", errOf(a.complete(token, app.next())), "")

	token = a.challenged(ada)
	for _, code := range wrong[:5] {
		w.want("a wrong code", errOf(a.complete(token, code)), "invalid_code")
	}
	right := app.next()
	w.want("the right code after five wrong ones", errOf(a.complete(token, right)), gone)
	w.want("one more wrong code", errOf(b.complete(token, wrong[5])), gone)
	w.want("the right code in another login", errOf(b.complete(b.challenged(ada), right)), "")
}

// Of a hundred guesses at the same moment no more than five are answered as wrong, and the right
// one among them is of use only as one of them that come before.
func TestGuessesAtTheSameMoment(t *testing.T) {
	w, a := newWorld(t)
	replicas := []*replica{a, w.replica(limit.Config{})}
	ada := a.user("ada")
	app := a.enrolled(ada)
	for round := range 10 {
		guesses := append(app.wrong(99), app.next())
		token := a.challenged(ada)
		counts := together(100, func(i int) error { _, err := replicas[i%2].complete(token, guesses[(i*7+round)%100]); return err })
		w.wantAtMost("guesses", counts, "invalid_code", gone)
		if n := counts["invalid_code"]; n > MaxWrong || n < MaxWrong && counts[""] == 0 {
			t.Errorf("%d guesses are answered as wrong: %v", n, counts)
		}
		if _, err := a.State.Get(t.Context(), state.Key{Kind: kindToken, Owner: ada.ID, ID: digest(token)}); err == nil {
			w.want("the right code after all of them", errOf(a.complete(token, app.next())), gone)
		}
	}
}

// Beginning anew gains nothing: the failures of all logins are counted together, with those of the
// password. While the account waits, the right code is a wrong one, and neither spent nor
// distinguishable.
func TestLockoutHoldsAtBothSteps(t *testing.T) {
	w, _ := newWorld(t)
	a, b := w.replica(locking), w.replica(locking)
	ada := a.user("ada")
	app := a.enrolled(ada)
	tokens := make([]string, 6)
	for i := range tokens {
		c, err := a.begin(ada, foreign, "", "")
		if err != nil {
			t.Fatal(err)
		}
		tokens[i] = c.Token
	}
	wrong := app.wrong(5)
	for i := range 5 {
		w.want("a wrong code in a new login", errOf(b.Complete(t.Context(), tokens[i], wrong[i], foreign)), "invalid_code")
	}
	right := app.next()
	w.want("the right code then", errOf(a.Complete(t.Context(), tokens[5], right, foreign)), "invalid_code")
	w.want("the right password then", errOf(a.begin(ada, foreign, "", "")), "invalid_credentials")
	w.want("a step-up then", errOf(a.StepUp(t.Context(), w.stored(ada), "0198c8c4-2f5e-7a63-9f3e-6b1d2f0c9a11", right, foreign)), "invalid_code")
	w.want("the right code at home", errOf(b.complete(b.challenged(ada), right)), "")

	// A login that is complete resets what was counted.
	carl := a.user("carl")
	app = a.enrolled(carl)
	for range 3 {
		token := a.challenged(carl)
		for _, wrong := range app.wrong(4) {
			w.want("a wrong code", errOf(b.complete(token, wrong)), "invalid_code")
		}
		w.want("the right code after four wrong ones", errOf(a.complete(token, app.next())), "")
	}

	bob := a.user("bob")
	app = a.enrolled(bob)
	token := a.challenged(bob)
	for range 5 {
		attempt, err := a.Limits.Attempt(t.Context(), limit.Login, home, limit.Account("bob"))
		if err != nil {
			t.Fatal(err)
		}
		w.want("a wrong password", errOf(a.people.Authenticate(t.Context(), attempt, "bob", "wrong")), "invalid_credentials")
	}
	w.want("the right code after five wrong passwords", errOf(a.complete(token, app.next())), "invalid_code")
}

// A login in the second step is over as soon as the user's sessions are, or the user is.
func TestWhatEndsALogin(t *testing.T) {
	w, a := newWorld(t)
	root := a.user("root", "admin=all")
	for name, end := range map[string]func(u store.User) error{
		"another password":   func(u store.User) error { return a.people.SetPassword(t.Context(), w.as(root), u.ID, secret+"!") },
		"disabled":           func(u store.User) error { return disable(a, u) },
		"deleted":            func(u store.User) error { return a.people.DeleteUser(t.Context(), w.as(root), u.ID) },
		"removed factor":     func(u store.User) error { return errOf(a.RemoveTOTP(t.Context(), w.as(u), w.epoch(u))) },
		"reset factors":      func(u store.User) error { return a.Reset(t.Context(), w.as(root), u.ID, "") },
		"logged out for all": func(u store.User) error { return errOf(w.store.NextEpoch(t.Context(), u.ID, true)) },
		"recovered": func(u store.User) error {
			rec, err := a.IssueRecovery(t.Context(), w.as(root), u.ID, true, 0)
			if err != nil {
				return err
			}
			return a.Recover(t.Context(), rec.Token, secret+"!", home)
		},
	} {
		u := a.user(strings.ReplaceAll(name, " ", "_"))
		app := a.enrolled(u)
		token := a.challenged(u)
		code := app.next()
		if err := end(u); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		w.want(name, errOf(a.complete(token, code)), gone)
		w.want(name+", options", errOf(a.PasskeyOptions(t.Context(), token, home)), gone)
	}
	u := a.user("ada")
	app := a.enrolled(u)
	token := a.challenged(u)
	w.clock.pass(TokenFor - time.Second)
	if _, err := a.begun(t.Context(), token); err != nil {
		t.Errorf("just before its end: %v", err)
	}
	w.clock.pass(time.Second)
	w.want("after five minutes", errOf(a.complete(token, app.at(0))), gone)
}

func disable(r *replica, u store.User) error {
	yes := true
	_, err := r.people.UpdateUser(r.w.t.Context(), directory.System(), u.ID, directory.UserPatch{Disabled: &yes})
	return err
}

// A wrong code moves the end of a login by nothing, also on a replica whose clock runs behind.
func TestNothingProlongsALogin(t *testing.T) {
	w, a := newWorld(t)
	behind := w.replica(limit.Config{})
	behind.Now = func() time.Time { return w.clock.now().Add(-5 * time.Second) }
	ada := a.user("ada")
	app := a.enrolled(ada)
	token := a.challenged(ada)
	for range 4 {
		w.clock.pass(time.Minute)
		w.want("a wrong code", errOf(behind.complete(token, app.wrong(1)[0])), "invalid_code")
	}
	w.clock.pass(59 * time.Second)
	l, err := behind.begun(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // as the options of a passkey do
		if err := behind.change(t.Context(), l, func(w *waiting) { w.Ceremony = []byte("x") }); err != nil {
			break
		}
		w.clock.pass(900 * time.Millisecond)
	}
	w.want("after its end", errOf(behind.begun(t.Context(), token)), gone)
}

// An mfa_token is good for the login that it was given to, and for nothing else; nothing else
// stands in for it.
func TestAnMFATokenHasOnePurpose(t *testing.T) {
	w, a := newWorld(t)
	a.RememberDevice = time.Hour
	ada, bob, root := a.user("ada"), a.user("bob"), a.user("root", "admin=all")
	adas, bobs := a.enrolled(ada), a.enrolled(bob)
	code := adas.next()
	code.RememberDevice = true
	done, err := a.complete(a.challenged(ada), code)
	if err != nil || done.Device == "" {
		t.Fatalf("%+v, %v", done, err)
	}
	recovery, err := a.IssueRecovery(t.Context(), w.as(root), "ada", false, 0)
	if err != nil {
		t.Fatal(err)
	}
	token := a.challenged(ada)
	secretPart, _, _ := strings.Cut(token, ".")
	right := adas.next()
	for name, presented := range map[string]string{
		"a device_token": done.Device, "a recovery_token": recovery.Token, "bob's id": secretPart + "." + bob.ID, "no user": secretPart,
		"an empty user": secretPart + ".", "nothing": "", "longer": token + "0", "a digest": digest(token) + "." + ada.ID,
		"pending": pending, "a path": secretPart + ".../" + ada.ID, "bytes": secretPart + ".\xff\x00", "another case": strings.ToUpper(token), "10 MB": strings.Repeat("A", 10<<20),
	} {
		w.want(name+" as an mfa_token", errOf(a.complete(presented, right)), gone)
		w.want(name+" as an mfa_token, enrolling", errOf(a.EnrolTOTP(t.Context(), presented, home)), gone)
	}
	for name, presented := range map[string]string{"an mfa_token": token, "a device_token": done.Device} {
		w.want(name+" as a recovery_token", a.Recover(t.Context(), presented, secret+"!", home), "invalid_recovery_token")
	}
	for name, presented := range map[string]string{"an mfa_token": token, "a recovery_token": recovery.Token} {
		if c, err := a.begin(ada, home, "", presented); err != nil || c == nil {
			t.Errorf("%s as a device_token: %+v, %v", name, c, err)
		}
	}
	w.want("enrolling where a factor is", errOf(a.EnrolTOTP(t.Context(), token, home)), "unknown_method")
	w.want("enrolling a passkey where a factor is", errOf(a.EnrolPasskey(t.Context(), token, home)), "unknown_method")
	bobs.next()
	w.want("ada's mfa_token with bob's code", errOf(a.complete(token, bobs.at(0))), "invalid_code")
	w.want("ada's mfa_token with ada's code", errOf(a.complete(token, adas.at(0))), "")
}

// What another program has written into the state logs nobody in.
func TestForgedRecords(t *testing.T) {
	w, a := newWorld(t)
	a.RememberDevice = time.Hour
	ada := a.user("ada")
	app := a.enrolled(ada)
	forge := func(kind, owner, id string, value []byte) {
		t.Helper()
		if _, err := w.state.Put(t.Context(), state.Key{Kind: kind, Owner: owner, ID: id}, value, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	right := app.next()
	now := w.stored(ada).SessionEpoch
	until := w.clock.now().Add(time.Hour).Format(time.RFC3339)
	for _, value := range []string{
		"", "null", "{}", "[]", "true", "x", `{"session_epoch":"1"}`, fmt.Sprintf(`{"session_epoch":%d}`, now),
		fmt.Sprintf(`{"session_epoch":%d,"until":%q}`, now+1, until), fmt.Sprintf(`{"session_epoch":%d,"until":%q,"wrong":5}`, now, until),
		fmt.Sprintf(`{"session_epoch":%d,"until":%q,"wrong":"x"}`, now, until),
	} {
		token, err := a.newToken(ada.ID)
		if err != nil {
			t.Fatal(err)
		}
		forge(kindToken, ada.ID, digest(token), []byte(value))
		w.want("a login of "+value, errOf(a.complete(token, right)), gone)
		forge(kindDevice, ada.ID, digest(token), []byte(value))
		if c, err := a.begin(ada, home, "", token); err != nil || c == nil {
			t.Errorf("a device of %s: %+v, %v", value, c, err)
		}
	}

	// A pending secret of another user, of another kind, or of nobody is none.
	bob := a.user("bob")
	if _, err := a.BeginTOTP(t.Context(), w.as(bob)); err != nil {
		t.Fatal(err)
	}
	bobs, err := w.state.Get(t.Context(), state.Key{Kind: kindPendingTOTP, Owner: bob.ID, ID: pending})
	if err != nil {
		t.Fatal(err)
	}
	eve := a.user("eve")
	known := make([]byte, secretLength)
	for name, value := range map[string][]byte{"bob's": bobs.Value, "plain": known, "sealed for another place": w.box.Seal(known, "x")} {
		forge(kindPendingTOTP, eve.ID, pending, value)
		w.want("a pending secret that is "+name, errOf3(a.ConfirmTOTP(t.Context(), w.as(eve), w.epoch(eve), totpCode(known, stepAt(w.clock.now())))), "nothing_pending")
	}
	hashes, err := json.Marshal([][]byte{hashBackupCode("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string][]byte{"plain": hashes, "of another kind": bobs.Value} {
		forge(kindPendingCodes, ada.ID, pending, value)
		w.want("pending codes that are "+name, errOf(a.ConfirmBackupCodes(t.Context(), w.as(ada), w.epoch(ada), "0123456789abcdef")), "nothing_pending")
	}
	if n := len(w.rows(eve, "")) + len(w.rows(bob, "")); n != 0 {
		t.Errorf("%d factors were enrolled by forged records", n)
	}
}

func errOf3[A, B any](_ A, _ B, err error) error { return err }

// A row that was moved to another user or kind, or changed by a bit, does not open: the login is
// refused with what helps, and an administrator can remove it.
func TestRowsThatDoNotOpen(t *testing.T) {
	w, a := newWorld(t)
	root := a.user("root", "admin=all")
	eve := a.user("eve")
	eves := a.enrolled(eve)
	replaced := func(u store.User, data func(store.Factor) []byte) {
		t.Helper()
		f := w.rows(u, kindTOTP)[0]
		f.Data = data(f)
		if err := w.store.UpdateFactor(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range map[string]func(store.Factor) []byte{
		"eve's":   func(store.Factor) []byte { return w.rows(eve, kindTOTP)[0].Data },
		"changed": func(f store.Factor) []byte { f.Data[len(f.Data)-1] ^= 1; return f.Data },
		"empty":   func(store.Factor) []byte { return []byte{} },
		"plain":   func(store.Factor) []byte { return []byte(`{"secret":"MTIzNDU2Nzg5MDEyMzQ1Njc4OTA="}`) },
		"no JSON": func(f store.Factor) []byte { return w.box.Seal([]byte("x"), place(f)) },
		"misplaced": func(f store.Factor) []byte {
			return w.box.Seal([]byte(`{"secret":"MTIzNDU2Nzg5MDEyMzQ1Njc4OTA="}`), "factors")
		},
		"other kind": func(f store.Factor) []byte {
			f.Kind = kindCodes
			return w.box.Seal([]byte(`{"secret":"MTIzNDU2Nzg5MDEyMzQ1Njc4OTA="}`), place(f))
		},
	} {
		u := a.user("u" + strings.Trim(strings.Fields(name)[0], "'"))
		app := a.enrolled(u)
		token := a.challenged(u)
		replaced(u, data)
		for what, err := range map[string]error{
			"the password": errOf(a.begin(u, home, "", "")), "a code": errOf(a.complete(token, app.next())),
			"eve's code": errOf(a.complete(token, eves.next())), "the options": errOf(a.PasskeyOptions(t.Context(), token, home)),
			"a step-up": errOf(a.StepUp(t.Context(), w.stored(u), "s", app.at(0), home)),
		} {
			w.want(name+": "+what, err, "factor_unreadable")
		}
		o, err := a.Overview(t.Context(), w.as(root), u.ID)
		if err != nil || len(o.Factors) != 1 || !o.Factors[0].Unreadable {
			t.Errorf("%s: %+v, %v", name, o, err)
		}
		w.want(name+": removed", a.Reset(t.Context(), w.as(root), u.ID, o.Factors[0].ID), "")
		if c, err := a.begin(u, home, "", ""); c != nil || err != nil {
			t.Errorf("%s: after that: %+v, %v", name, c, err)
		}
	}

	// A secret that anybody can calculate the codes of is none.
	u := a.user("short")
	a.enrolled(u)
	replaced(u, func(f store.Factor) []byte { return w.box.Seal([]byte(`{"secret":""}`), place(f)) })
	w.want("an empty secret", errOf(a.complete(a.challenged(u), Answer{Method: TOTP, Code: totpCode(nil, stepAt(w.clock.now()))})), "invalid_code")

	// A kind that this version does not know may be the one that the user must present.
	one := w.rows(eve, kindTOTP)[0]
	one.ID, one.Kind = "0198c8c4-2f5e-7a63-9f3e-6b1d2f0c9a11", "palm"
	if err := w.store.CreateFactor(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	w.want("an unknown kind", errOf(a.begin(eve, home, "", "")), "factor_unreadable")

	// Without a key nothing opens.
	a.Box = nil
	w.want("no key", errOf(a.begin(u, home, "", "")), "no_storage_key")
	w.want("no key, enrolling", errOf(a.BeginTOTP(t.Context(), w.as(root))), "no_storage_key")
	if c, err := a.begin(root, home, "", ""); c != nil || err != nil {
		t.Errorf("no key, and no factor: %+v, %v", c, err)
	}
	a.Policy.Always = true
	w.want("no key, and everybody must have a factor", errOf(a.begin(root, home, "", "")), "no_storage_key")
}

// Two replicas whose clocks differ by some seconds go on with each other's logins, and accept no
// step twice.
func TestClocksThatDiffer(t *testing.T) {
	w, a := newWorld(t)
	replicas := []*replica{a, w.replica(limit.Config{}), w.replica(limit.Config{})}
	for i, skew := range []time.Duration{0, 8 * time.Second, -8 * time.Second} {
		replicas[i].Now = func() time.Time { return w.clock.now().Add(skew) }
	}
	ada := a.user("ada")
	app := a.enrolled(ada)
	used := map[string]bool{app.at(0).Code: true}
	for i := range 60 {
		w.clock.pass(10 * time.Second)
		code := app.at(0)
		_, err := replicas[i%3].complete(replicas[i%2].challenged(ada), code)
		want := map[bool]string{true: "code_used", false: ""}[used[code.Code]]
		w.want(fmt.Sprintf("the code after %d seconds", 10*i), err, want)
		used[code.Code] = true
	}
}

// The records of logins name neither a token nor a code, and neither do the log and the trail.
func TestNoSecretIsWrittenDown(t *testing.T) {
	w, a := newWorld(t)
	a.RememberDevice = time.Hour
	ada, root := a.user("ada"), a.user("root", "admin=all")
	keys := &keys{Store: a.State}
	a.State = keys
	app := a.enrolled(ada)
	backup, err := a.BeginBackupCodes(t.Context(), w.as(ada))
	if err != nil {
		t.Fatal(err)
	}
	token := a.challenged(ada)
	code := app.next()
	_, _ = a.complete(token, app.wrong(1)[0])
	code.RememberDevice = true
	done, err := a.complete(token, code)
	if err != nil {
		t.Fatal(err)
	}
	confirmed := errOf(a.ConfirmBackupCodes(t.Context(), w.as(ada), w.epoch(ada), backup[3]))
	_, used := a.complete(a.challenged(ada), Answer{Method: BackupCode, Code: backup[3]})
	recovery, err := a.IssueRecovery(t.Context(), w.as(root), "ada", false, 0)
	if err != nil || confirmed != nil || used != nil {
		t.Fatal(err, confirmed, used)
	}
	w.want("a wrong recovery token", a.Recover(t.Context(), recovery.Token[1:]+"x", secret, home), "invalid_recovery_token")

	written := w.log.String() + keys.text.String()
	for _, f := range slices.Concat(w.rows(ada, ""), w.rows(root, "")) {
		written += f.ID + f.Digest + string(f.Data)
	}
	events, err := w.store.AuditEvents(t.Context(), store.AuditQuery{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events.Events {
		written += fmt.Sprintf("%+v", e)
	}
	raw, err := base32.StdEncoding.DecodeString(app.secret) // of a length that needs no padding
	if err != nil {
		t.Fatal(err)
	}
	half := func(s string) string { one, _, _ := strings.Cut(s, "."); return one }
	for name, text := range map[string]string{
		"the mfa_token": half(token), "the device_token": half(done.Device), "the recovery token": half(recovery.Token), "the secret": app.secret, "its bytes": string(raw),
		"the code": code.Code, "a backup code": backup[0], "a backup code's normal form": strings.ReplaceAll(backup[0], "-", ""), "the used one": backup[3],
		"the hash of one": string(hashBackupCode(strings.ReplaceAll(backup[1], "-", ""))), "the password": secret,
	} {
		if text == "" || strings.Contains(written, text) {
			t.Errorf("%s is written down", name)
		}
	}
}

// keys notes the keys and values of a state.
type keys struct {
	state.Store
	mu   sync.Mutex
	text strings.Builder
}

func (k *keys) note(key state.Key, value []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	fmt.Fprintf(&k.text, "%s %s\n", key, value)
}

func (k *keys) Put(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	k.note(key, value)
	return k.Store.Put(ctx, key, value, ttl)
}

func (k *keys) Create(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	k.note(key, value)
	return k.Store.Create(ctx, key, value, ttl)
}

func (k *keys) Swap(ctx context.Context, key state.Key, version int64, value []byte, ttl time.Duration) (int64, error) {
	k.note(key, value)
	return k.Store.Swap(ctx, key, version, value, ttl)
}
