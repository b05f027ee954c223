package login

import (
	"context"

	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/password"
)

// onBehalfOf returns a context whose hashes are for a client who says to be a user.
func onBehalfOf(ctx context.Context, username string, client Client) context.Context {
	source := password.Source{Address: client.Address}
	if key, err := names.UsernameKey(username); err == nil { // nobody can have another name
		source.Account = names.Fold(key)
	}
	return password.From(ctx, source)
}
