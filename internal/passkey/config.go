package passkey

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/go-webauthn/webauthn/protocol"
)

// Config describes the relying party.
type Config struct {
	// ID is a domain name. A passkey is bound to it for ever, and works on its subdomains too.
	ID string
	// Name is what the authenticator shows of the service.
	Name string
	// Origins are those of the pages that may use passkeys: "https://login.example.com",
	// with the port if it is not 443. Each has the ID as its host or as the end of it.
	// http is accepted for localhost alone, as browsers do.
	Origins []string
}

func (c Config) check() error {
	if c.ID != strings.ToLower(c.ID) {
		return fmt.Errorf("the relying party id %q must be written in lower case", c.ID)
	}
	if err := protocol.ValidateRPID(c.ID); err != nil {
		return fmt.Errorf("the relying party id %q must be a domain name, such as example.com: %w", c.ID, err)
	}
	if c.Name == "" {
		return errors.New("the relying party has no name")
	}
	if len(c.Origins) == 0 {
		return errors.New("the relying party has no origin")
	}
	for _, origin := range c.Origins {
		if err := c.checkOrigin(origin); err != nil {
			return fmt.Errorf("the origin %q %w", origin, err)
		}
	}
	return nil
}

func (c Config) checkOrigin(origin string) error {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("is not of the form https://example.com")
	}
	if u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery || strings.HasSuffix(origin, "#") || strings.HasSuffix(u.Host, ":") {
		return fmt.Errorf("must end after the host and the port: %s://%s", u.Scheme, strings.TrimSuffix(u.Host, ":"))
	}
	host := strings.ToLower(u.Hostname())
	if host != c.ID && !strings.HasSuffix(host, "."+c.ID) {
		return fmt.Errorf("does not belong to the relying party id %q, which must be its host or the end of it", c.ID)
	}
	if u.Scheme == "http" && host != "localhost" && !strings.HasSuffix(host, ".localhost") {
		return errors.New("must be https: browsers offer passkeys over http on localhost alone")
	}
	return nil
}
