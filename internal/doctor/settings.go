package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/secretfile"
	"github.com/watchword-auth/watchword/internal/sqldb"
)

var settingChecks = []Check{
	{
		"tls-certificate", "The certificates of this replica can be used now", Error,
		"With a certificate that cannot be read, does not fit its key or is out of date, clients or the other replicas refuse the connection. Replace its files; they are read again without a restart.",
		certificatesGood,
	},
	{
		"tls-expiry", "No certificate of this replica expires soon", Warning,
		"When it expires, clients or the other replicas refuse the connection. It is found three weeks before, or when a quarter of its life is left. Renew it, and find out why that has not happened by itself.",
		certificatesLast,
	},
	{
		"tls-peers", "The other replicas accept the certificates of this one", Error,
		"A certificate for another name than that under which this replica is reached, or of an authority that `cluster.ca_file` does not have, is refused: the other replicas cannot ask this one for its keys, nor for what was revoked while the database is away.",
		certificatesForPeers,
	},
	{
		"public-url-https", "Clients reach the service over https", Error,
		"Over http passwords and tokens cross the network in the clear. Give the service a certificate (`server.tls`), or put a proxy before it that has one, and write `https` in `server.public_url`.",
		settings(publicURLOverTLS),
	},
	{
		"public-url-cookies", "Browsers keep the cookies of the pages", Error,
		"The cookies have the prefix `__Host-`: browsers keep them over https alone, and for the whole host. With pages, `server.public_url` has to begin with https and to have no path.",
		settings(cookiesKept),
	},
	{
		"public-url-local", "The public URL leads to the cluster from other machines", Error,
		"`localhost` is another machine for each client: verifiers would ask themselves for the key set, and tokens name an issuer that nobody reaches. Set `server.public_url` to the URL of the load balancer.",
		publicURLReached,
	},
	{
		"issuer-url", "The issuer leads to the service", Advice,
		"Clients that know the issuer alone look for the key set below its URL (RFC 8414). Where `tokens.issuer` is another URL than `server.public_url`, something there has to answer for it.",
		settings(issuerLeadsHere),
	},
	{
		"advertise-url", "The other replicas know where to ask this one", Warning,
		"Replicas ask each other for keys and revocations as well as the database, so that they go on while it is away. With `cluster.discovery` database each has to say in `cluster.advertise_url` where it is reached, from the others' machines.",
		advertised,
	},
	{
		"listen-address", "This replica listens where the others ask it", Warning,
		"A listener on 127.0.0.1 is reached from its own machine alone. Write `:8080` in `server.address`, unless a proxy on the same machine stands before it.",
		settings(listensForOthers),
	},
	{
		"proxies-named", "The load balancer is among the trusted proxies", Warning,
		"Without `server.trusted_proxies` every client has the load balancer's address: a client that guesses passwords uses up the limits of all, and the audit trail has the address of none. Name the addresses or networks of the proxies.",
		settings(proxiesNamed),
	},
	{
		"proxies-everybody", "Not everybody is a trusted proxy", Error,
		"A client from a trusted proxy's address may say that it is any other, and no limit by address holds. Name the proxies' own addresses in `server.trusted_proxies`.",
		settings(proxiesFew),
	},
	{
		"proxies-header", "It is said in which header the proxies name the client", Advice,
		"With `server.forwarded_header` auto a client can hide its address by sending the header that the proxy does not set. Name the one that it sets.",
		settings(headerNamed),
	},
	{
		"drain-delay", "A replica that stops waits until the load balancer has noticed", Warning,
		"Without `server.drain_delay` the load balancer sends requests to a replica that has stopped, and they fail. Set it to a little more than the interval of its checks.",
		settings(drains),
	},
	{
		"token-life", "Access tokens end within an hour", Warning,
		"Services that verify tokens by a library of their own, and do not follow the feed of revocations, accept a revoked token until it ends. Make `tokens.token_duration` shorter; sessions last as long as before.",
		settings(tokenLife),
	},
	{
		"key-life", "Signing keys are replaced often enough, and outlive many tokens", Advice,
		"A key stays in the key set until its last token has ended. With a `tokens.key_duration` of less than twice `tokens.token_duration` the set has many keys that sign nothing; with more than 90 days, a key that was stolen is of use for long.",
		settings(keyLife),
	},
	{
		"key-publish-ahead", "A key that follows another is published for as long as verifiers keep a key set", Warning,
		"Meshes and gateways keep a key set for 5 to 20 minutes whatever its max-age says, and do not ask again for an unknown key: until then they refuse the tokens of a new key. Leave `tokens.key_publish_ahead` at 20m, and make `tokens.key_duration` at least twice as long.",
		settings(publishedAhead),
	},
	{
		"key-memory", "A replica that starts signs with a key that verifiers know", Advice,
		"With `tokens.keys` memory a replica that starts makes a key of its own, which signs when `tokens.key_set_max_age` has passed. Verifiers that keep a key set for longer refuse its first tokens. If there are such, choose database (docs/signing-keys.md).",
		settings(keysOutliveStarts),
	},
	{
		"algorithm-common", "Common verifiers know the algorithm of the tokens", Warning,
		"Not every library and gateway knows ES512 or EdDSA, and HMACs can be verified only with the secret, by which a service could make tokens as well. ES256 and RS256 are known everywhere: put one first in `tokens.algorithms`, or set `tokens.algorithm`.",
		settings(algorithmKnown),
	},
	{
		"signing-settings", "The settings of signing secrets and signers belong together", Warning,
		"What is found works, and is probably not meant. `watchword config check` says the same.",
		settings(signingWarnings),
	},
	{
		"secrets-apart", "The secrets differ from each other and cannot be guessed", Error,
		"Whoever has one secret has all for which it is used: with `cluster.secret` one can make keys that every replica accepts, and with `storage.key` open the database. Make each with `openssl rand -base64 32`.",
		settings(secretsApart),
	},
	{
		"storage-key", "Second factors are encrypted under a key of their own", Warning,
		"Without `storage.key` they are encrypted under a key that follows from `cluster.secret`, and are lost when that is changed; without either nobody can enrol. Set `storage.key`, then run `watchword storage rekey`.",
		settings(factorsSealed),
	},
	{
		"revocation-outage", "A token that may be revoked is not accepted", Warning,
		"With `revocation.on_outage` allow, revoked tokens are accepted while the database is away. Leave it at deny unless that is meant.",
		settings(outageDenies),
	},
	{
		"revocation-bound", "Every replica refuses a revoked token within half a minute", Advice,
		"`revocation.max_staleness` is the bound that holds whatever else fails. Less than 30s costs nothing: replicas read the log every `revocation.poll` anyway.",
		settings(boundShort),
	},
	{
		"limits-on", "Attempts to guess passwords and codes are limited", Warning,
		"Without limits, passwords and six-digit codes can be guessed. Leave `limits.login`, `limits.mfa` and `limits.lockout` at their defaults, or write rates that honest users do not meet.",
		settings(limitsOn),
	},
	{
		"limits-outage", "Attempts are counted over all replicas, also when something fails", Advice,
		"With `limits.on_outage` local each replica counts by itself while the store of the counters is away: a client that guesses has as many attempts more as there are replicas and restarts.",
		settings(limitsDeny),
	},
	{
		"mfa-required", "A second factor that a user has enrolled is asked for", Warning,
		"With `mfa.required` never a password is enough for everybody. Set it to when-enrolled at least.",
		settings(factorsAsked),
	},
	{
		"password-cost", "Stolen password hashes are dear to try", Warning,
		"Below 7 MiB of memory a hash costs so little that a stolen database gives its passwords away. Leave `password.memory` and `password.iterations` at their defaults.",
		settings(hashesCost),
	},
	{
		"state-memory", "Sessions outlive a restart", Warning,
		"With `state.backend` memory everybody is signed out when the replica restarts. Leave it at auto.",
		settings(stateKept),
	},
	{
		"state-redis-unused", "Redis is used", Advice,
		"`redis.url` is set, and `state.backend` says otherwise. Leave that at auto, or remove `redis.url`.",
		settings(redisUsed),
	},
	{
		"admin-password-file", "The first administrator's password lies in no file", Warning,
		"A start without a terminal writes the generated password into a file beside the database. Read it, change the password, and delete the file.",
		settings(passwordFileGone),
	},
	{
		"database-failover", "A database URL with several servers asks for the primary", Advice,
		"Replicas use no server that takes no writes, whatever the URL says. Other programs with the same URL, such as `pg_dump` and `psql`, do: add `target_session_attrs=read-write`.",
		settings(failoverURL),
	},
}

// settings makes a check of what looks at the settings alone.
func settings(look func(c *config.Config) ([]Finding, error)) func(context.Context, *Deployment) ([]Finding, error) {
	return func(_ context.Context, d *Deployment) ([]Finding, error) { return look(d.Config) }
}

// findingIf returns a finding about a setting if something is so.
func findingIf(so bool, setting, seen, mend string) ([]Finding, error) {
	if !so {
		return nil, nil
	}
	return []Finding{{Subject: setting, Seen: seen, Mend: mend}}, nil
}

const (
	errAlone Skip = "there is one replica alone (cluster.enabled is false)"
	errNoTLS Skip = "neither server.tls nor cluster.cert_file is set"
)

// A certificate is one that this replica shows.
type certificate struct {
	setting string
	chain   []*x509.Certificate // its own first
	err     error               // why it cannot be used
}

// certificates are those in files of this machine.
func certificates(c *config.Config) (list []certificate, err error) {
	for _, pair := range []struct{ setting, cert, key string }{
		{"server.tls.cert_file", c.Server.TLS.CertFile, c.Server.TLS.KeyFile}, {"cluster.cert_file", c.Cluster.CertFile, c.Cluster.KeyFile},
	} {
		if pair.cert == "" {
			continue
		}
		one := certificate{setting: pair.setting}
		loaded, err := secretfile.KeyPair(pair.cert, pair.key)
		one.err = err
		for _, der := range loaded.Certificate {
			parsed, err := x509.ParseCertificate(der)
			one.err = errors.Join(one.err, err)
			one.chain = append(one.chain, parsed)
		}
		list = append(list, one)
	}
	if len(list) == 0 {
		return nil, errNoTLS
	}
	return list, nil
}

func certificatesGood(_ context.Context, d *Deployment) (found []Finding, err error) {
	list, err := certificates(d.Config)
	for _, c := range list {
		switch {
		case c.err != nil:
			found = append(found, Finding{c.setting, fmt.Sprintf("the certificate or its key cannot be used: %v", c.err), "write a certificate in PEM, its chain after it, and the key that belongs to it"})
		case d.Now().Before(c.chain[0].NotBefore):
			found = append(found, Finding{c.setting, "the certificate is valid only from " + moment(c.chain[0].NotBefore), "correct this machine's clock, or take a certificate that is valid now"})
		case d.Now().After(c.chain[0].NotAfter):
			found = append(found, Finding{c.setting, "the certificate expired at " + moment(c.chain[0].NotAfter), "renew the certificate"})
		}
	}
	return found, err
}

// expiresSoon reports whether a certificate ought to have been renewed: those that renew themselves
// do so a month before their end, and those of a short life when a third of it is left.
func expiresSoon(c *x509.Certificate, now time.Time) bool {
	return c.NotAfter.Sub(now) < min(21*24*time.Hour, c.NotAfter.Sub(c.NotBefore)/4)
}

func certificatesLast(_ context.Context, d *Deployment) (found []Finding, err error) {
	list, err := certificates(d.Config)
	for _, c := range list {
		for _, link := range c.chain {
			if c.err != nil || link == nil {
				break // tls-certificate says so
			}
			if left := link.NotAfter.Sub(d.Now()); left > 0 && expiresSoon(link, d.Now()) {
				found = append(found, Finding{c.setting, fmt.Sprintf("the certificate of %s expires at %s, in %v", link.Subject, moment(link.NotAfter), left.Round(time.Minute)), "renew the certificate"})
			}
		}
	}
	return found, err
}

func certificatesForPeers(_ context.Context, d *Deployment) (found []Finding, err error) {
	if !d.Config.Cluster.Enabled {
		return nil, errAlone
	}
	list, err := certificates(d.Config)
	if err != nil {
		return nil, err
	}
	roots, err := authorities(d.Config.Cluster.CAFile)
	if err != nil {
		return []Finding{{"cluster.ca_file", err.Error(), "name a file with the certificates of the authorities, in PEM"}}, nil
	}
	for _, c := range list {
		if c.err != nil {
			continue // tls-certificate says so
		}
		usage, name := x509.ExtKeyUsageClientAuth, ""
		if c.setting != "cluster.cert_file" {
			usage, name = x509.ExtKeyUsageServerAuth, nameForPeers(d.Config)
			if name == "" {
				continue // they do not ask this listener over https
			}
		}
		between := x509.NewCertPool()
		for _, link := range c.chain[1:] {
			between.AddCert(link)
		}
		// Dates are tls-certificate's, so they are taken as they were at its beginning.
		_, err := c.chain[0].Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage}, CurrentTime: valid(c.chain[0], d.Now())})
		if err != nil {
			found = append(found, Finding{c.setting, fmt.Sprintf("the other replicas do not accept the certificate: %v", err), "take a certificate for the name under which they reach this replica, of an authority in cluster.ca_file"})
		}
	}
	return found, nil
}

// valid returns the moment, or the nearest one at which the certificate is valid.
func valid(c *x509.Certificate, now time.Time) time.Time {
	switch {
	case now.Before(c.NotBefore):
		return c.NotBefore
	case now.After(c.NotAfter):
		return c.NotAfter
	}
	return now
}

// nameForPeers is the name that the other replicas expect in the certificate of this one's listener;
// empty: none that the settings say.
func nameForPeers(c *config.Config) string {
	base := c.Cluster.AdvertiseURL
	if c.Cluster.Discovery == config.DiscoveryDNS || c.Cluster.Discovery == config.DiscoveryKubernetes {
		base = c.Cluster.ServiceURL
	}
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" || strings.HasPrefix(u.Hostname(), "_") { // SRV records have the names
		return ""
	}
	return u.Hostname()
}

// authorities returns those in a file; nil: the system's.
func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("there is no certificate in %s", file)
	}
	return roots, nil
}

func moment(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// hostOf returns the host of a URL that the configuration has accepted.
func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// isLocal reports whether a host is, for each machine, that machine itself.
func isLocal(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.Unmap().IsLoopback()
}

func publicURLOverTLS(c *config.Config) ([]Finding, error) {
	return findingIf(strings.HasPrefix(c.Server.PublicURL, "http://") && !isLocal(hostOf(c.Server.PublicURL)), "server.public_url",
		"it is "+c.Server.PublicURL, "have TLS done by server.tls or by a proxy, and write https:// in server.public_url on all replicas; tokens of the former issuer are then refused")
}

func cookiesKept(c *config.Config) (found []Finding, err error) {
	if !c.Pages.Enabled {
		return nil, Skip("pages.enabled is false")
	}
	u, err := url.Parse(c.Server.PublicURL)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "http" && !isLocal(u.Hostname()) {
		found = append(found, Finding{"server.public_url", "it is " + c.Server.PublicURL + ", and browsers keep cookies with the prefix __Host- over https alone: nobody can sign in on the pages", "serve the pages over https, or set pages.enabled to false"})
	}
	if u.Path != "" {
		found = append(found, Finding{"server.public_url", "it has the path " + u.Path + ", and the pages stand at the root of their host", "give the service a host of its own, or set pages.enabled to false"})
	}
	return found, nil
}

func publicURLReached(_ context.Context, d *Deployment) ([]Finding, error) {
	c := d.Config
	if !c.Cluster.Enabled {
		return nil, errAlone
	}
	return findingIf(isLocal(hostOf(c.Server.PublicURL)) && !d.onOneMachine(), "server.public_url",
		"it is "+c.Server.PublicURL+", and there are replicas on other machines", "set it to the URL of the load balancer, the same on all replicas")
}

// onOneMachine reports whether all replicas say that they are reached on one machine alone, as in a
// trial.
func (d *Deployment) onOneMachine() bool {
	urls := slices.Clone(d.Config.Cluster.StaticPeers)
	if d.Config.Cluster.AdvertiseURL != "" {
		urls = append(urls, d.Config.Cluster.AdvertiseURL)
	}
	if d.Cluster != nil {
		for _, r := range d.Cluster.Replicas {
			if r.Standing == cluster.Live && r.URL != "" {
				urls = append(urls, r.URL)
			}
		}
	}
	return len(urls) > 0 && !slices.ContainsFunc(urls, func(text string) bool { return !isLocal(hostOf(text)) })
}

func issuerLeadsHere(c *config.Config) ([]Finding, error) {
	u, err := url.Parse(c.Tokens.Issuer)
	return findingIf(err == nil && u.Host != "" && strings.TrimRight(c.Tokens.Issuer, "/") != c.Server.PublicURL, "tokens.issuer",
		fmt.Sprintf("it is %s, and server.public_url is %s", c.Tokens.Issuer, c.Server.PublicURL),
		"have the issuer's /.well-known/oauth-authorization-server lead here, or set both to one URL")
}

func advertised(_ context.Context, d *Deployment) ([]Finding, error) {
	c := d.Config.Cluster
	switch {
	case !c.Enabled:
		return nil, errAlone
	case c.Discovery == config.DiscoveryDatabase && c.AdvertiseURL == "":
		return findingIf(true, "cluster.advertise_url", "it is not set, so the other replicas cannot ask this one", "set it to the base URL at which the other replicas reach this one, such as http://auth-0:8080")
	}
	return findingIf(c.AdvertiseURL != "" && isLocal(hostOf(c.AdvertiseURL)) && !d.onOneMachine(), "cluster.advertise_url",
		"it is "+c.AdvertiseURL+", which is another machine for each replica", "set it to the base URL at which the other replicas reach this one")
}

func listensForOthers(c *config.Config) ([]Finding, error) {
	if !c.Cluster.Enabled {
		return nil, errAlone
	}
	host, _, err := net.SplitHostPort(c.Server.Address)
	if err != nil {
		return nil, err
	}
	return findingIf(isLocal(host) && c.Cluster.AdvertiseURL != "" && !isLocal(hostOf(c.Cluster.AdvertiseURL)), "server.address",
		fmt.Sprintf("it is %s, and the other replicas ask at %s", c.Server.Address, c.Cluster.AdvertiseURL), "write :8080, or the address of the network that the replicas share")
}

func proxiesNamed(c *config.Config) ([]Finding, error) {
	if !c.Cluster.Enabled {
		return nil, errAlone
	}
	return findingIf(len(c.Server.TrustedProxies) == 0, "server.trusted_proxies",
		"it is empty, so every client that comes through a load balancer has its address", "name the addresses or networks of the load balancer; if it passes TCP connections on as they are, or clients choose a replica themselves, this may stay")
}

func proxiesFew(c *config.Config) ([]Finding, error) {
	trusted, err := c.Server.Proxies()
	if err != nil {
		return nil, err
	}
	for _, p := range trusted {
		// 0.0.0.0/1 and the like are written to get round such a check.
		if p.Bits() < 4 {
			return findingIf(true, "server.trusted_proxies", fmt.Sprintf("it has %s, so nearly every client may name its own address", p), "name the proxies' own addresses or networks")
		}
	}
	return nil, nil
}

func headerNamed(c *config.Config) ([]Finding, error) {
	if len(c.Server.TrustedProxies) == 0 {
		return nil, Skip("server.trusted_proxies is empty")
	}
	return findingIf(c.Server.ForwardedHeader == config.ForwardedAuto, "server.forwarded_header",
		"it is auto", "set it to the header that the proxies set: X-Forwarded-For or Forwarded")
}

func drains(c *config.Config) ([]Finding, error) {
	if !c.Cluster.Enabled {
		return nil, errAlone
	}
	return findingIf(c.Server.DrainDelay == 0, "server.drain_delay", "it is 0s", "set it to a little more than the interval of the load balancer's checks, such as 5s")
}

func tokenLife(c *config.Config) ([]Finding, error) {
	return findingIf(c.Tokens.TokenDuration > time.Hour, "tokens.token_duration",
		"it is "+c.Tokens.TokenDuration.String(), "set it to 1h or less")
}

func keyLife(c *config.Config) (found []Finding, err error) {
	t := &c.Tokens
	if c.KeysIn() == config.KeysSecret {
		return nil, Skip("tokens.keys is secret")
	}
	if t.KeyDuration < 2*t.TokenDuration {
		found = append(found, Finding{"tokens.key_duration", fmt.Sprintf("it is %s, and tokens.token_duration %s", t.KeyDuration, t.TokenDuration), "set it to twice tokens.token_duration or more"})
	}
	if t.KeyDuration > 90*24*time.Hour {
		found = append(found, Finding{"tokens.key_duration", "it is " + t.KeyDuration.String(), "set it to 2160h (90 days) or less"})
	}
	return found, nil
}

// verifiersKeep is for how long verifiers of the field keep a key set, whatever its max-age says.
const verifiersKeep = 20 * time.Minute

func publishedAhead(c *config.Config) ([]Finding, error) {
	if c.KeysIn() == config.KeysSecret {
		return nil, Skip("tokens.keys is secret")
	}
	ahead := max(c.PublishAhead(), c.Tokens.KeySetMaxAge)
	return findingIf(ahead < verifiersKeep, "tokens.key_publish_ahead",
		fmt.Sprintf("a key signs %s after it was published", ahead), "set tokens.key_publish_ahead to 20m, and tokens.key_duration to 40m or more; if all verifiers heed max-age, this may stay")
}

func keysOutliveStarts(c *config.Config) ([]Finding, error) {
	if !c.Cluster.Enabled {
		return nil, errAlone
	}
	return findingIf(c.KeysIn() == config.KeysMemory, "tokens.keys",
		fmt.Sprintf("it is memory, so the first key of a replica signs %s after it was published", c.Tokens.KeySetMaxAge), "set tokens.keys to database, with a storage.key; if all verifiers heed max-age and replicas seldom start, this may stay")
}

func algorithmKnown(c *config.Config) ([]Finding, error) {
	first := c.SigningAlgorithms()[0]
	switch {
	case strings.HasPrefix(first, "HS"):
		return findingIf(true, "tokens.keys", "tokens are signed with "+first+", which is in no key set", "set tokens.keys to database or memory; if all services that verify tokens may make them as well, this may stay")
	case first == "ES512", first == "EdDSA":
		return findingIf(true, "tokens.algorithm", "tokens are signed with "+first, "set tokens.algorithm to ES256, or RS256; if all verifiers know "+first+", this may stay")
	}
	return nil, nil
}

// signingWarnings are those of the configuration that no check here is about.
func signingWarnings(c *config.Config) (found []Finding, err error) {
	for _, text := range c.Warnings() {
		if strings.HasPrefix(text, "tokens.keys is memory") || strings.HasPrefix(text, "tokens.key_publish_ahead") || !strings.HasPrefix(text, "tokens.") {
			continue
		}
		setting, _, _ := strings.Cut(text, " ")
		seen, mend := text, "see docs/signing-keys.md"
		if i := strings.LastIndex(text, "; "); i >= 0 {
			seen, mend = text[:i], text[i+2:]
		}
		found = append(found, Finding{setting, seen, mend})
	}
	return found, nil
}

func secretsApart(c *config.Config) (found []Finding, err error) {
	all := []struct{ setting, text string }{
		{"cluster.secret", c.Cluster.Secret}, {"storage.key", c.Storage.Key}, {"tokens.secret", c.Tokens.Secret}, {"admin.password", c.Admin.Password},
	}
	const mend = "make another one with \"openssl rand -base64 32\""
	for i, a := range all {
		if a.text == "" {
			continue
		}
		for _, b := range all[:i] {
			if a.text == b.text {
				found = append(found, Finding{a.setting, "it is the same as " + b.setting, mend})
			}
		}
		if a.setting != "admin.password" && differentBytes(a.text) < leastDifferent {
			found = append(found, Finding{a.setting, fmt.Sprintf("it has only %d different characters, and can be guessed", differentBytes(a.text)), mend})
		}
	}
	return found, nil
}

// leastDifferent is how many characters a random secret has that differ: 32 hexadecimal digits have
// fewer once in a million million.
const leastDifferent = 6

func differentBytes(text string) int {
	var seen [256]bool
	n := 0
	for i := range len(text) {
		if !seen[text[i]] {
			seen[text[i]] = true
			n++
		}
	}
	return n
}

func factorsSealed(c *config.Config) ([]Finding, error) {
	if c.Storage.Key != "" || c.Database.IsSQLite() {
		return nil, nil
	}
	if c.Cluster.Secret == "" {
		return findingIf(true, "storage.key", "it is not set, and neither is cluster.secret: nobody can enrol a second factor", "set it to what \"openssl rand -base64 32\" makes")
	}
	return findingIf(true, "storage.key", "it is not set: second factors are encrypted under a key that follows from cluster.secret, and are lost when that is changed", "set it to what \"openssl rand -base64 32\" makes, the same on all replicas, and run \"watchword storage rekey\"")
}

func outageDenies(c *config.Config) ([]Finding, error) {
	return findingIf(c.Revocation.OnOutage.Allow, "revocation.on_outage", "it is allow", "set it to deny")
}

func boundShort(c *config.Config) ([]Finding, error) {
	return findingIf(c.Revocation.MaxStaleness > 30*time.Second, "revocation.max_staleness", "it is "+c.Revocation.MaxStaleness.String(), "set it to 30s or less, and more than revocation.poll")
}

func limitsOn(c *config.Config) (found []Finding, err error) {
	l := &c.Limits
	for _, rate := range []struct {
		setting string
		is      config.Rate
	}{
		{"limits.login.per_address", l.Login.PerAddress}, {"limits.login.per_account", l.Login.PerAccount},
		{"limits.mfa.per_address", l.MFA.PerAddress}, {"limits.mfa.per_account", l.MFA.PerAccount},
	} {
		if rate.is == (config.Rate{}) {
			found = append(found, Finding{rate.setting, "it is off", "leave it at its default"})
		}
	}
	if l.Lockout.After == 0 {
		found = append(found, Finding{"limits.lockout.after", "it is 0: attempts never wait after failures", "leave it at its default"})
	}
	return found, nil
}

func limitsDeny(c *config.Config) ([]Finding, error) {
	return findingIf(c.Limits.OnOutage == config.LimitsLocal, "limits.on_outage", "it is local", "set it to deny")
}

func factorsAsked(c *config.Config) ([]Finding, error) {
	return findingIf(c.MFA.Required.Mode == config.RequiredNever, "mfa.required", "it is never", "set it to when-enrolled, or more")
}

func hashesCost(c *config.Config) ([]Finding, error) {
	return findingIf(c.Password.Memory < 7*1024, "password.memory", fmt.Sprintf("it is %d KiB", c.Password.Memory), "set it to 19MiB, with password.iterations 2")
}

func stateKept(c *config.Config) ([]Finding, error) {
	return findingIf(c.StateBackend() == config.StateMemory, "state.backend", "it is memory", "leave it at auto")
}

func redisUsed(c *config.Config) ([]Finding, error) {
	if c.Redis.URL == "" {
		return nil, Skip("redis.url is not set")
	}
	backend := c.StateBackend()
	return findingIf(backend != config.StateRedis && backend != config.StateTiered, "state.backend", "it is "+string(backend)+", and redis.url is set", "leave state.backend at auto, or remove redis.url")
}

// AdminPasswordFile is where a replica on SQLite writes the generated password of the first
// administrator when it has no terminal.
func AdminPasswordFile(c *config.Config) string {
	file, _ := sqldb.SQLiteFile(c.Database.URL)
	return file + ".admin-password"
}

func passwordFileGone(c *config.Config) ([]Finding, error) {
	if !c.Database.IsSQLite() {
		return nil, Skip("there is such a file beside a SQLite database alone")
	}
	file := AdminPasswordFile(c)
	_, err := os.Lstat(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return findingIf(err == nil, "admin", "the file "+file+" is there", "sign in, change the password, and delete the file")
}

func failoverURL(c *config.Config) ([]Finding, error) {
	scheme, _, _ := strings.Cut(c.Database.URL, "://")
	if scheme != "postgres" && scheme != "postgresql" {
		return nil, Skip("the database is no PostgreSQL")
	}
	servers := slices.DeleteFunc(urlHosts(c.Database.URL), func(host string) bool { return host == "" })
	wants := parameter(c.Database.URL, "target_session_attrs")
	return findingIf(len(servers) > 1 && wants != "read-write" && wants != "primary", "database.url",
		fmt.Sprintf("it names several servers, and target_session_attrs is %q", wants), "add target_session_attrs=read-write to its parameters")
}
