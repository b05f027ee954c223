package redisstate

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/rueidis"
)

// Cause returns why Redis cannot be used, with what to change, if waiting does not mend it.
// Such an error is no state.ErrUnavailable. Any other error is returned as it is.
func Cause(err error) error {
	if certificate, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("the certificate of Redis is not accepted: name the authority that has signed it in redis.ca_file, and the host as the certificate does (%v)", certificate)
	}
	said, ok := errors.AsType[*rueidis.RedisError](err)
	if !ok {
		return err
	}
	for begin, text := range map[string]string{
		"WRONGPASS":                      "Redis denies this user or password: correct them in the URL, or change the user (ACL SETUSER)",
		"NOAUTH":                         "Redis demands a password: write redis://user:password@host:port",
		"NOPERM":                         "the user may not run what Watchword needs: allow all commands, keys and channels (ACL SETUSER … +@all ~* &*)",
		"DENIED":                         "Redis is in protected mode and takes no connections from other machines: give it a password",
		"DB index is out of range":       "Redis has no database of this number: correct the end of the URL",
		"invalid DB index":               "Redis has no database of this number: correct the end of the URL",
		"SELECT is not allowed":          "a Redis Cluster has the database 0 alone: correct the end of the URL",
		"AUTH <password> called without": "Redis has no password, and the URL has one: remove it there, or set one (requirepass)",
	} {
		if strings.HasPrefix(said.Error(), begin) {
			return fmt.Errorf("%s (%v)", text, said)
		}
	}
	return err
}
