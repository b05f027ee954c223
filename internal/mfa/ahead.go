package mfa

import (
	"context"
	"errors"

	"github.com/watchword-auth/watchword/internal/passkey"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
)

var (
	errMustEnrol     = problem.New(problem.Denied, "second_factor_required", "this user must enrol a second factor, and does so at the next login")
	errNoCredentials = problem.New(problem.Denied, "no_credentials", "this user has neither a password nor a passkey, and cannot log in")
)

// Ahead returns the amr of a user's next login: by password if the user has one, and by the first of
// their second factors if they are asked for one, as on a device that is not remembered. A user
// may log in by another factor, too. refused is why there would be no session: then the amr is
// that of the login once this is mended, as far as it can be foreseen. It changes nothing.
func (s *Service) Ahead(ctx context.Context, user store.User, claims map[string]string) (amr []string, refused, err error) {
	f, err := s.factorsOf(ctx, s.Store, user.ID)
	var p *problem.Error
	if errors.As(err, &p) { // a login would be refused just so
		return []string{"pwd"}, p, nil
	}
	if err != nil {
		return nil, nil, unavailable(err)
	}
	if user.PasswordHash == "" {
		if len(f.passkeys) == 0 || s.Party == nil {
			return []string{"pwd"}, errNoCredentials, nil
		}
		return Methods(nil, passkeyMethods(f.passkeys[0].Content.Credential, passkey.Proof{UserVerified: true})...), nil, nil
	}
	switch {
	case s.Policy.Never, !f.enrolled() && !s.Policy.binds(claims):
		return []string{"pwd"}, nil, nil
	case !f.enrolled() && s.Box == nil:
		return []string{"pwd"}, errNoStorageKey, nil
	case !f.enrolled():
		return Methods([]string{"pwd"}, "otp"), errMustEnrol, nil
	case f.totp != nil:
		return Methods([]string{"pwd"}, "otp"), nil, nil
	case s.Party == nil:
		return Methods([]string{"pwd"}, "otp"), errNoPasskeys, nil
	}
	return Methods([]string{"pwd"}, passkeyMethods(f.passkeys[0].Content.Credential, passkey.Proof{})...), nil, nil
}

// OwnerOf returns the id of the user that an mfa_token, a device_token or a recovery token names; "":
// the text has not the form of any. It is no secret, and proves nothing.
func OwnerOf(token string) string { return ownerOf(token) }
