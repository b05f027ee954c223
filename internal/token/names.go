package token

import (
	"strings"

	"github.com/watchword-auth/watchword/internal/problem"
)

// MaxClaimName bounds the name of a user's claim, in bytes.
const MaxClaimName = 64

var (
	errReserved = problem.New(problem.Invalid, "claim_name_reserved",
		"this name has a meaning of its own in a token; take another")
	errSpelling = problem.New(problem.Invalid, "claim_name_invalid",
		"a claim's name has 1 to %d ASCII characters, without white space, commas, quotes or backslashes", MaxClaimName)
)

// CheckClaimName returns an error if a user's claim may not have that name in the token:
// Reserved names, and names of the user's identity.
//
// It accepts roles, groups and entitlements, which RFC 9068 §2.2.3.1 recommends for the
// rights of a user.
func CheckClaimName(name string) error {
	if err := checkSpelling(name); err != nil {
		return err
	}
	if Reserved(name) || identity[strings.ToLower(name)] {
		return errReserved
	}
	return nil
}

// Reserved reports whether a standard or Watchword itself gives the name a meaning that
// only the server may fill, so that no claim and no user_info field may have it. Case does not matter: many readers, encoding/json among them, take
// "EXP" for "exp".
func Reserved(name string) bool {
	return reserved[strings.ToLower(name)]
}

// checkSpelling accepts printable ASCII. Some other letters fold to an ASCII letter: a
// reader that ignores case takes "ſub" for "sub".
func checkSpelling(name string) error {
	if name == "" || len(name) > MaxClaimName {
		return errSpelling
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c > '~' || c == ',' || c == '"' || c == '\\' {
			return errSpelling
		}
	}
	return nil
}

// reserved are the names with a meaning of their own, in lower case.
var reserved = set(
	"iss", "sub", "aud", "exp", "nbf", "iat", "jti", // RFC 7519 §4.1
	"alg", "kid", "typ", "cty", "crit", "b64", "jku", "jwk", "x5u", "x5c", "x5t", "x5t#s256", // RFC 7515 §4.1, RFC 7797
	"auth_time", "acr", "amr", "client_id", "scope", // RFC 9068 §2.2
	"active", "token_type", "token_use", // RFC 7662 §2.2
	"act", "may_act", // RFC 8693 §4.1, §4.4
	"cnf",                   // RFC 7800 §3.1
	"authorization_details", // RFC 9396 §9.1
	"events", "toe", "txn",  // RFC 8417 §2.2
	"nonce", "azp", "at_hash", "c_hash", "s_hash", "sub_jwk", // OpenID Connect Core §2, §3.3, §7.4
	"_claim_names", "_claim_sources", // OpenID Connect Core §5.6.2
	"sid",                // OpenID Connect Front-Channel Logout §3; our session
	"email_verified",     // OpenID Connect Core §5.1; a boolean
	"epoch", "iat_exact", // ours: see Access
)

// identity are the names of the user's identity. Their values come from the user's record
// (tokens.user_info) and never from a claim. Otherwise somebody who may create claims could
// be any user to an application that goes by one of these names.
var identity = set(
	"username",                                                                     // RFC 7662 §2.2
	"name", "given_name", "family_name", "middle_name", "nickname", "display_name", // OpenID Connect Core §5.1
	"preferred_username", "profile", "picture", "website",
	"email", "gender", "birthdate", "zoneinfo", "locale",
	"phone_number", "phone_number_verified", "address", "updated_at",
	"first_name", "last_name", "user", "user_id", "uid", "id", // what applications commonly ask for
)

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, name := range names {
		m[name] = true
	}
	return m
}
