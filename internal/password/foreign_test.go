package password

import (
	"testing"

	"github.com/watchword-auth/watchword/internal/problem"
)

// A hash from elsewhere is taken if it is one of ours in form, and neither weaker than OWASP's
// weakest nor costlier than is allowed.
func TestCheckForeign(t *testing.T) {
	const rest = "$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"
	for phc, want := range map[string]string{
		"$argon2id$v=19$m=7168,t=5,p=1" + rest:     "",
		"$argon2id$v=19$m=19456,t=2,p=1" + rest:    "",
		"$argon2id$v=19$m=47104,t=1,p=1" + rest:    "",
		"$argon2id$v=19$m=262144,t=4,p=4" + rest:   "",
		"$argon2id$v=19$m=7167,t=6,p=1" + rest:     "weak_password_hash",
		"$argon2id$v=19$m=64,t=16,p=1" + rest:      "weak_password_hash",
		"$argon2id$v=19$m=7168,t=4,p=1" + rest:     "weak_password_hash",
		"$argon2id$v=19$m=19456,t=1,p=1" + rest:    "weak_password_hash",
		"$argon2id$v=19$m=262144,t=5,p=1" + rest:   "invalid_password_hash",
		"$argon2id$v=19$m=262145,t=1,p=1" + rest:   "invalid_password_hash",
		"$argon2id$v=19$m=19456,t=17,p=1" + rest:   "invalid_password_hash",
		"$argon2i$v=19$m=19456,t=2,p=1" + rest:     "invalid_password_hash",
		"$argon2id$v=16$m=19456,t=2,p=1" + rest:    "invalid_password_hash",
		"$argon2id$m=19456,t=2,p=1" + rest:         "invalid_password_hash",
		"$argon2id$v=19$m=019456,t=2,p=1" + rest:   "invalid_password_hash",
		"$2b$12$abcdefghijklmnopqrstuvwxyzabcdefg": "invalid_password_hash",
		"{SSHA}abc":             "invalid_password_hash",
		"correct horse battery": "invalid_password_hash",
		"":                      "invalid_password_hash",
	} {
		err := CheckForeign(phc)
		if err == nil && want != "" || err != nil && problem.From(err).Code != want {
			t.Errorf("%s: %v, want %q", phc, err, want)
		}
	}
}
