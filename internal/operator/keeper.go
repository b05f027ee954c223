package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/keysource/remote"
	"github.com/watchword-auth/watchword/internal/seal"
)

// OpenKeeper opens what keeps the private keys with tokens.keys pkcs11 or remote. The PIN and
// the signer's token are those of the present configuration, whenever one is needed.
func OpenKeeper(ctx context.Context, present func() *config.Config, logger *slog.Logger) (keysource.Keeper, error) {
	switch mode := present().KeysIn(); mode {
	case config.KeysPKCS11:
		return OpenHSM(ctx, present, logger)
	case config.KeysRemote:
		c := present().Tokens.Remote
		rc := remote.Config{
			Kind: string(c.Kind), URL: c.URL, Mount: c.Mount, Key: c.Key,
			CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile, Timeout: c.Timeout,
		}
		if c.Token != "" {
			rc.Token = func() (string, error) { return present().Tokens.Remote.Token, nil }
		}
		keeper, err := remote.New(rc)
		if err != nil {
			return nil, fmt.Errorf("tokens.remote: %w", err)
		}
		return keeper, nil
	default:
		return nil, fmt.Errorf("tokens.keys is %s: nothing else keeps its keys", mode)
	}
}

// KeptBox returns the box that authenticates the rows of keys which a keeper keeps: that of
// FactorBox.
func KeptBox(ctx context.Context, cfg *config.Config, holders Holders) (*seal.Box, error) {
	box, err := FactorBox(ctx, cfg, holders)
	if err == nil && box == nil {
		err = errors.New("storage.key: it is needed to authenticate what the database says about signing keys; set AUTH_STORAGE_KEY (openssl rand -base64 32)")
	}
	return box, err
}
