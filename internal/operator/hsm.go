package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keysource/hsm"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// OpenHSM logs in to the token that tokens.pkcs11 names, also where tokens.keys is another source
// as yet. The PIN is that of the present configuration, whenever there is a login.
func OpenHSM(ctx context.Context, present func() *config.Config, logger *slog.Logger) (hsm.Token, error) {
	c := present().Tokens.PKCS11
	if hsm.Supported && c.Library == "" {
		return nil, errors.New("tokens.pkcs11.library: it is not set; name the file of the HSM's PKCS #11 library (CRYPTOKI_LIB)")
	}
	return hsm.Open(ctx, hsm.Config{
		Library: c.Library, PIN: func() (string, error) { return present().Tokens.PKCS11.PIN, nil }, Token: c.Token, Serial: c.Serial,
		Key: c.Key, Sessions: c.Sessions, Logger: logger, Now: time.Now,
	})
}

// CreateKey makes a key pair in an HSM, and returns the kid that it has as a signing key. If the
// audit trail cannot be written, the key is there all the same, and the error names it.
func (p *Parts) CreateKey(ctx context.Context, token hsm.Token, algorithm string) (kid string, err error) {
	kept, err := token.Create(ctx, algorithm)
	if err != nil {
		return "", err
	}
	public, err := accesstoken.NewKey("key", algorithm, kept.Public())
	if err != nil {
		return "", err
	}
	kid = public.Thumbprint()
	event := store.AuditEvent{Action: "key.create", Target: kid, Detail: fmt.Sprintf("%s in the HSM, with the id %s", algorithm, kept.Ref)}
	if err := p.update(ctx, event, func(store.Records) error { return nil }); err != nil {
		return "", fmt.Errorf("the HSM has made the key %s, which the audit trail does not say: %w", kid, err)
	}
	return kid, nil
}
