package verify

import (
	"fmt"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// secretKeys returns the keys of the secrets by their kids: one for each algorithm for which a
// secret is long enough. The revocation of a secret has an entry for each of them in the feed.
func secretKeys(secrets []string) (map[string]accesstoken.Key, error) {
	byKid := map[string]accesstoken.Key{}
	for i, text := range secrets {
		keys, err := accesstoken.SecretKeys(text)
		if err != nil {
			return nil, fmt.Errorf("secret %d of %d: %w", i+1, len(secrets), err)
		}
		for _, key := range keys {
			if _, twice := byKid[key.ID]; twice {
				return nil, fmt.Errorf("secret %d of %d, with the kid %s, is in the list twice", i+1, len(secrets), key.ID)
			}
			byKid[key.ID] = key
		}
	}
	return byKid, nil
}
