package login

import (
	"context"

	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/password"
)

// onBehalfOf returns a context whose hashes are for a client who says to be a user.
func onBehalfOf(ctx context.Context, username string, client Client) context.Context {
	account, err := names.UsernameKey(username)
	if err != nil {
		account = "" // nobody can have such a name
	}
	return password.From(ctx, password.Source{Address: client.Address, Account: account})
}
