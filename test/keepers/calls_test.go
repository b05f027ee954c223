package keepers

import (
	"errors"
	"fmt"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/test/kit"
)

func tryLogin(c *kit.Client) (kit.Answer, error) {
	return c.Try(c.Request("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: kit.Password}))
}

// signsWith returns an error unless a login gets a token of that key.
func signsWith(c *kit.Client, kid string) error {
	a, err := tryLogin(c)
	if err != nil || a.Status != 200 {
		return fmt.Errorf("a login: %d %s %w", a.Status, a.Body, err)
	}
	if got := kit.KeyID(c.T, kit.Decode[httpapi.Grant](c.T, a).AccessToken); got != kid {
		return fmt.Errorf("a token of the key %s, not of %s", got, kid)
	}
	return nil
}

// loginFails returns an error unless a login fails with that code.
func loginFails(c *kit.Client, code string) error {
	if a, err := tryLogin(c); err != nil || a.Code() != code {
		return fmt.Errorf("a login: %d %s %w", a.Status, a.Body, err)
	}
	return nil
}

var errStillFirst = errors.New("the first key signs as yet")
