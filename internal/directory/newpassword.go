package directory

import "context"

// HashNew makes the PHC string of a password that somebody chooses now, held to
// the same rules as in CreateUser, for an init file's password_hash.
func (h *Hasher) HashNew(ctx context.Context, password string) (string, error) {
	prepared, err := newPassword(password)
	if err != nil {
		return "", err
	}
	return h.Hash(ctx, prepared)
}
