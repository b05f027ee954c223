package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
)

// maxRememberDevice bounds for how long a stolen device needs no factor.
const maxRememberDevice = 90 * 24 * time.Hour

// maxIssuerName keeps the QR code of an enrolment small enough to be scanned. It is in bytes.
const maxIssuerName = 64

// fallbackName is the name in authenticator apps when nothing else can be one.
const fallbackName = "Watchword"

// AuthenticatorName returns mfa.issuer_name or its default: the name of this service in
// authenticator apps. It has no colon and is not empty.
func (c *Config) AuthenticatorName() string {
	if c.MFA.IssuerName != "" {
		return c.MFA.IssuerName
	}
	if base := c.signInURL(); base != nil && checkIssuerName(base.Hostname()) == nil {
		return base.Hostname()
	}
	return fallbackName
}

// RelyingParty returns mfa.passkeys.rp_id and mfa.passkeys.origins, or their defaults. An
// empty id: there are no passkeys, for the reason that WhyNoPasskeys returns.
func (c *Config) RelyingParty() (id string, origins []string) {
	id, origins, _ = c.relyingParty()
	return id, origins
}

// WhyNoPasskeys returns a sentence that says why there are no passkeys and what to set, or ""
// if there are.
func (c *Config) WhyNoPasskeys() string {
	_, _, why := c.relyingParty()
	return why
}

func (c *Config) relyingParty() (id string, origins []string, why string) {
	const mend = "set mfa.passkeys.rp_id and mfa.passkeys.origins"
	id, origins = c.MFA.Passkeys.RPID, slices.Clone(c.MFA.Passkeys.Origins)
	if id != "" && len(origins) > 0 {
		return id, origins, ""
	}
	base := c.signInURL()
	if base == nil {
		return "", nil, "neither tokens.issuer nor server.public_url is a URL with a host; " + mend
	}
	if id == "" {
		id = strings.ToLower(base.Hostname())
		if checkRPID(id) != nil {
			return "", nil, fmt.Sprintf("browsers make passkeys for names, and %q is none; %s", base.Hostname(), mend)
		}
	}
	if len(origins) == 0 {
		origin := originOf(base)
		if !isSecure(base) {
			return "", nil, fmt.Sprintf("browsers make passkeys over https alone, or on localhost, and users reach %s; %s", origin, mend)
		}
		origins = []string{origin}
	}
	return id, origins, ""
}

// signInURL returns the URL from which the defaults of mfa follow, or nil if there is none.
func (c *Config) signInURL() *url.URL {
	for _, text := range []string{c.Tokens.Issuer, c.Server.PublicURL} {
		u, err := url.Parse(text)
		if err == nil && u.Hostname() != "" && (u.Scheme == "https" || u.Scheme == "http") {
			return u
		}
	}
	return nil
}

func (c *Config) validateMFA(v *validator) {
	m := &c.MFA
	if text, _ := m.Required.MarshalText(); new(Required).UnmarshalText(text) != nil { // made by hand
		v.problem("mfa.required", "%v", new(Required).UnmarshalText(text))
	}
	v.notNegative("mfa.remember_device", m.RememberDevice)
	if m.RememberDevice > maxRememberDevice {
		v.problem("mfa.remember_device", "it is longer than 90 days (%s); make it shorter", formatDuration(maxRememberDevice))
	}
	if m.IssuerName != "" {
		if err := checkIssuerName(m.IssuerName); err != nil {
			v.problem("mfa.issuer_name", "%v", err)
		}
	}
	c.validatePasskeys(v)
}

// validatePasskeys checks what is set. What follows from other settings may be of no use for
// passkeys, and is then not used.
func (c *Config) validatePasskeys(v *validator) {
	p := &c.MFA.Passkeys
	if p.RPID == "" && len(p.Origins) == 0 {
		return
	}
	if p.RPID != "" {
		if err := checkRPID(p.RPID); err != nil {
			v.problem("mfa.passkeys.rp_id", "%v", err)
			return
		}
	}
	for _, origin := range p.Origins {
		if err := checkPasskeyOrigin(origin); err != nil {
			v.problem("mfa.passkeys.origins", "%v", err)
			return
		}
	}
	id, origins, why := c.relyingParty()
	missing := "mfa.passkeys.rp_id"
	if p.RPID != "" {
		missing = "mfa.passkeys.origins"
	}
	if why != "" {
		v.problem(missing, "%s", why)
		return
	}
	for _, origin := range origins {
		u, _ := url.Parse(origin) // which has been checked
		if host := u.Hostname(); host != id && !strings.HasSuffix(host, "."+id) {
			v.problem(missing, "browsers refuse passkeys for %s on %s, which is neither that domain nor below it; set mfa.passkeys.rp_id and mfa.passkeys.origins to what belongs together", id, origin)
			return
		}
	}
}

// checkIssuerName refuses what authenticator apps cannot show, and the colon, which ends the
// name in what they are given.
func checkIssuerName(name string) error {
	switch {
	case len(name) > maxIssuerName:
		return fmt.Errorf("it has %d bytes, and may have %d", len(name), maxIssuerName)
	case strings.Contains(name, ":"):
		return fmt.Errorf("%q has a colon, which ends the name in authenticator apps", name)
	case strings.TrimSpace(name) != name || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }):
		return fmt.Errorf("%q has characters that are not printed, or a space at an end", name)
	}
	return nil
}

var domainName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)

// checkRPID refuses what no browser takes for an RP ID. Whether it is a public suffix, such as
// co.uk, only browsers know.
func checkRPID(id string) error {
	last := id[strings.LastIndexByte(id, '.')+1:]
	if _, err := netip.ParseAddr(id); err == nil || strings.Trim(last, "0123456789") == "" {
		return fmt.Errorf("%q is not a domain, and browsers make no passkeys for IP addresses", id)
	}
	if len(id) > 253 || !domainName.MatchString(id) {
		return fmt.Errorf("%q is not a domain such as example.com: lower-case letters (others than ASCII written as xn--…), digits, hyphens and dots, without scheme and port", id)
	}
	return nil
}

// checkPasskeyOrigin refuses what is not the origin of a page on which browsers have passkeys.
func checkPasskeyOrigin(text string) error {
	if text == "*" || text == "null" {
		return fmt.Errorf("%q is not an origin, such as https://app.example.com", text)
	}
	if err := checkOrigin(text); err != nil {
		return err
	}
	u, err := url.Parse(text)
	if err != nil || !isSecure(u) {
		return fmt.Errorf("%q: browsers have passkeys over https alone, or over http on localhost", text)
	}
	return nil
}

// isSecure reports whether browsers have passkeys on the pages of a URL.
func isSecure(u *url.URL) bool {
	host := strings.ToLower(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (host == "localhost" || strings.HasSuffix(host, ".localhost"))
}
