package password

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/problem"
)

// A hash from elsewhere is taken if it is in one of the forms, and neither weaker than OWASP's or NIST's
// weakest nor costlier than is allowed.
func TestForeignBounds(t *testing.T) {
	const bcryptRest = "$abcdefghijklmnopqrstuufbqfRxtekKywx.MSoEF6s.GBix1QrCW"
	const rest = "$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"
	for phc, want := range map[string]string{
		"$argon2id$v=19$m=7168,t=5,p=1" + rest:                                           "",
		"$argon2id$v=19$m=19456,t=2,p=1" + rest:                                          "",
		"$argon2id$v=19$m=47104,t=1,p=1" + rest:                                          "",
		"$argon2id$v=19$m=262144,t=4,p=4" + rest:                                         "",
		"$argon2id$v=19$m=7167,t=6,p=1" + rest:                                           "weak_password_hash",
		"$argon2id$v=19$m=64,t=16,p=1" + rest:                                            "weak_password_hash",
		"$argon2id$v=19$m=7168,t=4,p=1" + rest:                                           "weak_password_hash",
		"$argon2id$v=19$m=19456,t=1,p=1" + rest:                                          "weak_password_hash",
		"$argon2id$v=19$m=262144,t=5,p=1" + rest:                                         "invalid_password_hash",
		"$argon2id$v=19$m=262145,t=1,p=1" + rest:                                         "invalid_password_hash",
		"$argon2id$v=19$m=19456,t=17,p=1" + rest:                                         "invalid_password_hash",
		"$argon2i$v=19$m=19456,t=2,p=1" + rest:                                           "invalid_password_hash",
		"$argon2id$v=16$m=19456,t=2,p=1" + rest:                                          "invalid_password_hash",
		"$argon2id$m=19456,t=2,p=1" + rest:                                               "invalid_password_hash",
		"$argon2id$v=19$m=019456,t=2,p=1" + rest:                                         "invalid_password_hash",
		"$2b$12$abcdefghijklmnopqrstuvwxyzabcdefg":                                       "invalid_password_hash",
		"$2b$09" + bcryptRest:                                                            "weak_password_hash",
		"$2b$10" + bcryptRest:                                                            "",
		"$2y$14" + bcryptRest:                                                            "",
		"$2b$15" + bcryptRest:                                                            "invalid_password_hash",
		"$2a$31" + bcryptRest:                                                            "invalid_password_hash",
		"$2x$10" + bcryptRest:                                                            "invalid_password_hash",
		"$2b$+9" + bcryptRest:                                                            "invalid_password_hash",
		"$pbkdf2-sha256$i=9999,l=32" + rest:                                              "weak_password_hash",
		"$pbkdf2-sha256$i=10000,l=32" + rest:                                             "",
		"$pbkdf2-sha512$i=2000000" + rest:                                                "",
		"$pbkdf2-sha512$i=2000001" + rest:                                                "invalid_password_hash",
		"$pbkdf2-sha256$1000000000" + rest:                                               "invalid_password_hash",
		"pbkdf2_sha256$1000000000$saltsalt$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g=": "invalid_password_hash",
		"pbkdf2_sha1$600000$saltsalt$aGFzaGhhc2hoYXNoaGFzaA==":                           "invalid_password_hash",
		"pbkdf2_sha256$600000$salt$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g=":         "invalid_password_hash", // too short a salt
		"$pbkdf2$131000$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaA":                   "invalid_password_hash", // SHA-1
		"$pbkdf2-sha256$x" + rest:                                                        "invalid_password_hash",
		"$pbkdf2-sha256$i=-600000" + rest:                                                "invalid_password_hash",
		"$pbkdf2-sha256$i=9223372036854775808" + rest:                                    "invalid_password_hash",
		"$pbkdf2-sha256$i=600000,l=0$c2FsdHNhbHRzYWx0c2FsdA$":                            "invalid_password_hash", // of which every password would be right
		"$pbkdf2-sha256$i=600000,l=1$c2FsdHNhbHRzYWx0c2FsdA$aA":                          "invalid_password_hash",
		"pbkdf2_sha256$600000$saltsalt$":                                                 "invalid_password_hash",
		"$pbkdf2-sha256$i=600000$$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g":           "invalid_password_hash",
		"$pbkdf2-sha256$i=600000$" + strings.Repeat("c2Fs", 22) + rest[23:]:              "invalid_password_hash", // 66 bytes of salt
		"$2b$10$abcdefghijklmnopqrstuufbqfRxtekKywx.MSoEF6s.GBix1QrC":                    "invalid_password_hash", // one short
		"$2b$10$abcdefghijklmnopqrstuufbqfRxtekKywx.MSoEF6s.GBix1Qr\n\n":                 "invalid_password_hash",
		"$2b$10$abcdefghijklmnopqrstuufbqfRxtekKywx.MSoEF6s.GBix1Qr$W":                   "invalid_password_hash",
		"{SSHA}abc":                             "invalid_password_hash",
		"correct horse battery":                 "invalid_password_hash",
		"":                                      "invalid_password_hash",
		strings.Repeat("$pbkdf2-sha256$", 1000): "invalid_password_hash",
	} {
		taken, err := Foreign(phc)
		if err == nil && CheckHash(taken) != nil || err != nil && strings.Contains(err.Error(), "aGFzaGhhc2g") {
			t.Errorf("%s: %q, %v", phc, taken, err)
		}
		if err == nil && want != "" || err != nil && problem.From(err).Code != want {
			t.Errorf("%s: %v, want %q", phc, err, want)
		}
	}
}

// Hashes that other programs have made (Python's hashlib and the C library's crypt), in the forms of
// their systems.
func TestForeignHashesAreVerified(t *testing.T) {
	const right = "Grüße, Welt"
	ctx, h := t.Context(), cheap(t)
	for text, want := range map[string]string{
		"$pbkdf2-sha256$i=27500,l=32$MDEyMzQ1Njc4OWFiY2RlZg$IndMS2XNLXS6D1Bmhn3He2kwqPeCFlCSoaIzmyjKQI0": "$pbkdf2-sha256$i=27500$MDEyMzQ1Njc4OWFiY2RlZg$IndMS2XNLXS6D1Bmhn3He2kwqPeCFlCSoaIzmyjKQI0",
		// Keycloak's hash has two blocks, of which one is kept.
		"$pbkdf2-sha256$i=27500,l=64$MDEyMzQ1Njc4OWFiY2RlZg==$IndMS2XNLXS6D1Bmhn3He2kwqPeCFlCSoaIzmyjKQI0wuBO3skj/7mvCel5KwOxy+sFh5CLwtpj6POXa6BfCcg==": "$pbkdf2-sha256$i=27500$MDEyMzQ1Njc4OWFiY2RlZg$IndMS2XNLXS6D1Bmhn3He2kwqPeCFlCSoaIzmyjKQI0",
		"$pbkdf2-sha512$i=10000,l=64$MDEyMzQ1Njc4OWFiY2RlZg$Moo5zNTOV7m5y6EFnN8+kwOMjNX8HpRerDxbZpQiLo1iX5Y03ht6iJIfmUDbQdzeharvkILZO/MsHyGr3k/9Tg":     "$pbkdf2-sha512$i=10000$MDEyMzQ1Njc4OWFiY2RlZg$Moo5zNTOV7m5y6EFnN8+kwOMjNX8HpRerDxbZpQiLo1iX5Y03ht6iJIfmUDbQdzeharvkILZO/MsHyGr3k/9Tg",
		"$pbkdf2-sha256$29000$.//.MDEyMzQ1Njc4OWFiY2Rl$soiV1/aAn7RfYxfcxlp805BpVgixYobHMv9X27aXVqA":                                                     "$pbkdf2-sha256$i=29000$+//+MDEyMzQ1Njc4OWFiY2Rl$soiV1/aAn7RfYxfcxlp805BpVgixYobHMv9X27aXVqA",
		"pbkdf2_sha256$20000$Qx7dJk0aPz$XjdmD/Y8nQzaPWuU9Gua9VvW5ZdRJolHdQGrgUOFR9U=":                                                                   "$pbkdf2-sha256$i=20000$UXg3ZEprMGFQeg$XjdmD/Y8nQzaPWuU9Gua9VvW5ZdRJolHdQGrgUOFR9U",
		"$2a$10$abcdefghijklmnopqrstuufbqfRxtekKywx.MSoEF6s.GBix1QrCW":                                                                                  "$2a$10$abcdefghijklmnopqrstuufbqfRxtekKywx.MSoEF6s.GBix1QrCW",
		"$2b$10$abcdefghijklmnopqrstuufbqfRxtekKywx.MSoEF6s.GBix1QrCW":                                                                                  "$2b$10$abcdefghijklmnopqrstuufbqfRxtekKywx.MSoEF6s.GBix1QrCW",
		"$2y$10$abcdefghijklmnopqrstuufbqfRxtekKywx.MSoEF6s.GBix1QrCW":                                                                                  "$2y$10$abcdefghijklmnopqrstuufbqfRxtekKywx.MSoEF6s.GBix1QrCW",
	} {
		got, err := Foreign(text)
		if got != want || err != nil {
			t.Errorf("%s is stored as %s, %v", text, got, err)
			continue
		}
		if !h.Outdated(got) {
			t.Errorf("%s is not to be replaced", got)
		}
		for password, want := range map[string]bool{right: true, "Grüße, Welt!": false} {
			if !want && text[:4] != "$2b$" && text[:4] != "pbkd" {
				continue // what is wrong is so for all
			}
			if match, err := h.Verify(ctx, password, got); match != want || err != nil {
				t.Errorf("%s: %q: %v, %v", got, password, match, err)
			}
		}
	}
}

// bcrypt hashes 72 bytes, and many systems cut what is longer. A zero byte ends a password nowhere.
func TestLongPasswordsOfBcrypt(t *testing.T) {
	const long = "$2b$04$abcdefghijklmnopqrstuubzadhGtS2zEF.gu0yd0opP6cVzb.e0i" // 72 × x
	h := cheap(t)
	x := strings.Repeat("x", 72)
	for password, want := range map[string]bool{
		x: true, x + "y": true, strings.Repeat("x", MaxLength): true, x[:71]: false, x[:71] + "y": false, "": false,
		x + "\x00": false, x[:71] + "\x00x": false,
	} {
		if match, err := h.Verify(t.Context(), password, long); match != want || err != nil {
			t.Errorf("%d bytes: %v, %v", len(password), match, err)
		}
	}
}

// A hash of another system has one of the workers, and costs its client what it takes.
func TestForeignHashesWaitInTheQueue(t *testing.T) {
	h := hasher(t, Config{Memory: 64, Iterations: 1, Parallelism: 1, Workers: 1, Queue: 1})
	release := occupy(t, h)
	done := make(chan error)
	go func() {
		_, err := h.Verify(From(t.Context(), Source{Address: "192.0.2.1"}), "x", "$2b$10$abcdefghijklmnopqrstuufbqfRxtekKywx.MSoEF6s.GBix1QrCW")
		done <- err
	}()
	eventually(t, func() bool { return waits(h) == 1 })
	other := make(chan error)
	go func() {
		_, err := h.Hash(From(t.Context(), Source{Address: "192.0.2.2"}), "x")
		other <- err
	}()
	if err := <-done; err != error(ErrFlood) { // one is as dear as thousands of today's here
		t.Errorf("%v, want that the dear one makes room", err)
	}
	release()
	if err := <-other; err != nil {
		t.Error(err)
	}
}

// Names that nobody has cost what those of users cost: the same shares of them, and a name the same on
// each replica. As users get hashes of today, names follow, and none goes back.
func TestNamesWithoutUsersPretend(t *testing.T) {
	const names = 4000
	census := Census{Key: []byte("secret of all replicas"), Own: 50, Foreign: map[string]int64{"$2b$12$": 40, "$pbkdf2-sha256$i=600000$": 10,
		"$2b$31$": 1000, "$2": 1000, "$pbkdf2-sha1$i=1$": 1000, "$pbkdf2-sha256$i=-1$": 1000, "x": 1000}} // what somebody has written into the database counts for nothing
	text, err := json.Marshal(census)
	if err != nil {
		t.Fatal(err)
	}
	a, b := cheap(t), cheap(t)
	kinds := func(h *Hasher, c Census) (all []string, shares map[string]float64) {
		h.Pretend(c)
		shares = map[string]float64{}
		for i := range names {
			kind := Kind(h.pretended(From(context.Background(), Source{Account: fmt.Sprint("name", i)})).String())
			all = append(all, kind)
			shares[kind] += 1. / names
		}
		return all, shares
	}
	first, shares := kinds(a, census)
	for kind, want := range map[string]float64{"$2b$12$": .4, "$pbkdf2-sha256$i=600000$": .1, "": .5} {
		if got := shares[kind]; got < want-.05 || got > want+.05 {
			t.Errorf("%q: %.3f of the names, want %.1f", kind, got, want)
		}
	}
	var same Census
	if err := json.Unmarshal(text, &same); err != nil {
		t.Fatal(err)
	}
	if others, _ := kinds(b, same); fmt.Sprint(others) != fmt.Sprint(first) {
		t.Error("two replicas pretend differently")
	}
	later, _ := kinds(a, Census{Key: census.Key, Own: 80, Foreign: map[string]int64{"$2b$12$": 20}})
	for i := range later {
		if later[i] != "" && first[i] != later[i] {
			t.Fatalf("a name went from %q to %q", first[i], later[i])
		}
	}
	if match, err := a.Verify(t.Context(), "x", ""); match || err != nil {
		t.Errorf("nobody's password: %v, %v", match, err)
	}
	if _, none := kinds(a, Census{Own: 1}); none[""] < .999 {
		t.Errorf("without such hashes: %v", none)
	}
	for begins, want := range map[string]string{"$2y$10$": "$2b$10$", "$2b$10$abcd": "$2b$10$", "$argon2id": "", "$pbkdf2-sha512$i=210000$ab": "$pbkdf2-sha512$i=210000$", "": "", "x": "", "$x$y$z": ""} {
		if got := Kind(begins); got != want {
			t.Errorf("%q: %q, want %q", begins, got, want)
		}
	}
}

func FuzzForeign(f *testing.F) {
	for _, seed := range []string{
		"$2b$10$abcdefghijklmnopqrstuufbqfRxtekKywx.MSoEF6s.GBix1QrCW", "$pbkdf2-sha256$29000$.//.MDEyMzQ1Njc4OWFiY2Rl$soiV1/aAn7RfYxfcxlp805BpVgixYobHMv9X27aXVqA",
		"pbkdf2_sha256$20000$Qx7dJk0aPz$XjdmD/Y8nQzaPWuU9Gua9VvW5ZdRJolHdQGrgUOFR9U=", "$pbkdf2-sha512$i=1,l=2$$", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		taken, err := Foreign(s)
		if err != nil {
			return
		}
		h, err := parse(taken)
		if err != nil || h.String() != taken || tooWeak(h) != nil || len(taken) > maxEncoded {
			t.Errorf("%q is stored as %q, which is read as %v, %v", s, taken, h, err)
		}
		if again, err := Foreign(taken); again != taken || err != nil {
			t.Errorf("%q becomes %q, %v", taken, again, err)
		}
	})
}
