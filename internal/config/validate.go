package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/token"
)

// Validate reports everything that cannot work, as an *Error. Load has called it;
// call it after changing a Config by hand.
func (c *Config) Validate() error {
	v := &validator{}
	c.Server.validate(v)
	c.Database.validate(v)
	c.validateState(v)
	c.Tokens.validate(v)
	c.Password.validate(v)
	c.Limits.validate(v)
	c.validateMFA(v)
	c.Pages.validate(v)

	c.validateSigning(v)
	if c.Storage.Key != "" {
		if _, err := seal.ParseKey(c.Storage.Key); err != nil {
			v.problem("storage.key", "%v", err)
		}
	} else if c.Database.isServer() {
		switch keys := c.KeysIn(); {
		case keys == KeysDatabase:
			v.problem("storage.key", "it is needed to encrypt the signing keys in the database; make one with \"openssl rand -base64 32\", or set tokens.keys to memory")
		case (keys == KeysPKCS11 || keys == KeysRemote) && c.Cluster.Secret == "":
			v.problem("storage.key", "what the database says of the signing keys is authenticated under it, with tokens.keys %s; make one with \"openssl rand -base64 32\"", keys)
		}
	}
	for i, key := range c.Storage.PreviousKeys {
		if _, err := seal.ParseKey(key); err != nil {
			v.problem("storage.previous_keys", "number %d cannot be used: %v", i+1, err)
		}
	}
	c.validateCluster(v)

	v.positive("sessions.ttl", c.Sessions.TTL)
	v.atLeast("server.max_requests_per_user", c.Server.MaxRequestsPerUser, 1)
	v.atLeast("server.max_requests_per_address", c.Server.MaxRequestsPerAddress, 1)
	v.atLeast("sessions.max_per_user", c.Sessions.MaxPerUser, 0)
	if c.Sessions.TTL < c.Tokens.TokenDuration {
		v.problem("tokens.token_duration", "it is longer than a session (sessions.ttl %s); make it shorter, or sessions.ttl longer", formatDuration(c.Sessions.TTL))
	}
	if c.Sessions.Idle != 0 && c.Sessions.Idle < c.Tokens.TokenDuration {
		v.problem("sessions.idle", "it is shorter than an access token's life (tokens.token_duration %s), so every session would end before its first renewal; make it longer", formatDuration(c.Tokens.TokenDuration))
	}

	v.positive("revocation.poll", c.Revocation.Poll)
	if c.Revocation.MaxStaleness <= c.Revocation.Poll {
		v.problem("revocation.max_staleness", "it is not longer than revocation.poll (%s), so every answer would come too late; make it several times as long", formatDuration(c.Revocation.Poll))
	}
	if c.Revocation.Check == CheckShared && c.Revocation.OnOutage.Allow {
		v.problem("revocation.on_outage", "it would accept tokens without looking them up, and revocation.check is shared; set one of them to its default")
	}

	if (c.Admin.Username == "") != (c.Admin.Password == "") {
		missing := "admin.username"
		if c.Admin.Password == "" {
			missing = "admin.password"
		}
		v.problem(missing, "username and password of the first administrator go together; set both or neither")
	}
	if c.Admin.FreshFor < minFreshFor {
		v.problem("admin.fresh_for", "an administrator needs some time after a login; set it to %s or more", formatDuration(minFreshFor))
	}
	if c.Audit.Retention < minRetention {
		v.problem("audit.retention", "a session whose login is not in the audit trail can be revoked by its id by a superuser alone; set it to %s or more", formatDuration(minRetention))
	}
	v.positive("health.timeout", c.Health.Timeout)
	if c.Telemetry.Canary != 0 && c.Telemetry.Canary < minCanary {
		v.problem("telemetry.canary", "each measurement writes an entry to the revocation log; set it to %s or more, or to 0s", formatDuration(minCanary))
	}
	c.Telemetry.Traces.validate(v)
	c.Debug.validate(v)

	for i := range settings {
		s := &settings[i]
		if len(s.OneOf) > 0 {
			if _, err := s.parse(s.Format(c)); err != nil {
				v.problem(s.Key, "%v", err)
			}
		}
		if d, ok := s.value(c).(time.Duration); ok && d > maxDuration {
			v.problem(s.Key, "it is longer than ten years (%s); make it shorter", formatDuration(maxDuration))
		}
	}
	return v.err()
}

// minRetention leaves time to read what has happened.
const minRetention = 24 * time.Hour

// minCanary keeps measurements from filling the revocation log. Its value is a guess.
const minCanary = 5 * time.Second

// minFreshFor is the least that is of use: a login, and one change.
const minFreshFor = time.Minute

// maxDuration bounds every duration, so that no sum of several overflows a time.Duration.
// What is to be kept until an overflowed time would not be kept at all.
const maxDuration = 10 * 365 * 24 * time.Hour

// Warnings returns sentences about settings that work, but are probably not meant.
func (c *Config) Warnings() []string {
	var list []string
	if u, err := url.Parse(c.Server.PublicURL); err == nil && u.Scheme == "http" && !isLoopback(u.Hostname()) {
		list = append(list, "server.public_url begins with http://: passwords and tokens cross the network in the clear; use https")
	}
	if proxies, err := c.Server.Proxies(); err == nil && slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Bits() == 0 }) {
		list = append(list, "server.trusted_proxies trusts everybody: a client can say that it is any other; name the proxies")
	}
	if c.State.Backend == StateMemory {
		list = append(list, "state.backend is memory: everybody is signed out when this replica restarts")
	}
	if backend := c.StateBackend(); c.Redis.URL != "" && backend != StateRedis && backend != StateTiered {
		list = append(list, "redis.url is set, but state.backend is "+string(backend)+": Redis is not used")
	}
	if c.Revocation.OnOutage.Allow {
		list = append(list, "revocation.on_outage is allow: while the database is away, revoked tokens are accepted")
	}
	if c.MFA.Required.Mode == RequiredNever {
		list = append(list, "mfa.required is never: a password is enough also for users who have enrolled a second factor")
	}
	list = append(list, c.signingWarnings(time.Now())...)
	if c.Password.Memory < 7*1024 {
		list = append(list, "password.memory is below 7MiB: stolen password hashes are cheap to try")
	}
	return list
}

// Complete fills in the settings whose default follows from others. Load has
// called it; call it after making a Config by hand.
func (c *Config) Complete() {
	if c.Server.PublicURL == "" {
		c.Server.PublicURL = c.Server.defaultPublicURL()
	}
	c.Server.PublicURL = strings.TrimRight(c.Server.PublicURL, "/")
	c.Cluster.AdvertiseURL = strings.TrimRight(c.Cluster.AdvertiseURL, "/")
	c.Tokens.Remote.URL = strings.TrimRight(c.Tokens.Remote.URL, "/")
	c.Cluster.ServiceURL = strings.TrimRight(c.Cluster.ServiceURL, "/")
	for i, peer := range c.Cluster.StaticPeers {
		c.Cluster.StaticPeers[i] = strings.TrimRight(peer, "/")
	}
	if c.Tokens.Issuer == "" {
		c.Tokens.Issuer = c.Server.PublicURL
	}
	if len(c.Tokens.Audience) == 0 && c.Tokens.Issuer != "" {
		c.Tokens.Audience = []string{c.Tokens.Issuer}
	}
}

// defaultPublicURL returns the URL by which a browser on this machine reaches the address,
// or "" if only the running replica knows it.
func (s *Server) defaultPublicURL() string {
	host, port, err := net.SplitHostPort(s.Address)
	if err != nil || port == "0" {
		return ""
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "localhost"
	}
	scheme := "http"
	if s.TLS.CertFile != "" {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// isPort reports whether s is the number of a TCP port.
func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

func (s *Server) validate(v *validator) {
	_, port, err := net.SplitHostPort(s.Address)
	if err != nil || !isPort(port) {
		v.problem("server.address", "%q is not a host and a port, such as 127.0.0.1:8080 or :8080", s.Address)
	} else if port == "0" && s.PublicURL == "" {
		v.problem("server.public_url", "it must be set when server.address leaves the port open")
	}
	if s.MetricsAddress != "" {
		if _, port, err := net.SplitHostPort(s.MetricsAddress); err != nil || !isPort(port) {
			v.problem("server.metrics_address", "%q is not a host and a port, such as 127.0.0.1:9090 or :9090", s.MetricsAddress)
		} else if s.MetricsAddress == s.Address && port != "0" {
			v.problem("server.metrics_address", "it must be another address than server.address; leave it empty to serve /metrics there")
		}
	}
	if s.PublicURL != "" {
		if err := checkHTTPURL(s.PublicURL); err != nil {
			v.problem("server.public_url", "%v", err)
		}
	}
	for _, p := range s.TrustedProxies {
		if _, err := parseNetwork(p); err != nil {
			v.problem("server.trusted_proxies", "%q is neither an address nor a network such as 10.0.0.0/8", p)
		}
	}
	for _, origin := range s.CORSOrigins {
		if err := checkOrigin(origin); err != nil {
			v.problem("server.cors_origins", "%v", err)
		}
	}
	v.notNegative("server.drain_delay", s.DrainDelay)
	if (s.TLS.CertFile == "") != (s.TLS.KeyFile == "") {
		missing := "server.tls.cert_file"
		if s.TLS.KeyFile == "" {
			missing = "server.tls.key_file"
		}
		v.problem(missing, "a certificate and its key go together; set both or neither")
	}
}

// Proxies returns TrustedProxies as networks; a single address is a network of
// one.
func (s *Server) Proxies() ([]netip.Prefix, error) {
	list := make([]netip.Prefix, len(s.TrustedProxies))
	for i, p := range s.TrustedProxies {
		var err error
		if list[i], err = parseNetwork(p); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func parseNetwork(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
	}
	network, err := netip.ParsePrefix(text)
	return network.Masked(), err
}

// IsSQLite reports whether the database is a file of this machine.
func (d *Database) IsSQLite() bool { return strings.HasPrefix(d.URL, "sqlite:") }

// isServer reports whether the URL names a database on the network.
func (d *Database) isServer() bool {
	scheme, _, _ := strings.Cut(d.URL, ":")
	return scheme == "postgres" || scheme == "postgresql" || scheme == "mysql"
}

func (d *Database) validate(v *validator) {
	const forms = "it begins with sqlite:, postgres:// or mysql://"
	scheme, rest, found := strings.Cut(d.URL, ":")
	switch {
	case !found:
		v.problem("database.url", forms)
	case scheme == "sqlite":
		if rest == "" {
			v.problem("database.url", "sqlite: is followed by the name of a file, such as sqlite:data/watchword.db")
		} else if strings.Contains(rest, ":memory:") {
			v.problem("database.url", "a database in memory forgets every user; name a file, such as sqlite:data/watchword.db")
		}
	case d.isServer():
		if err := checkDatabaseURL(d.URL); err != nil {
			v.problem("database.url", "%v", err)
		}
	default:
		v.problem("database.url", forms)
	}
	v.atLeast("database.max_connections", d.MaxConnections, 1)
	v.positive("database.acquire_timeout", d.AcquireTimeout)
	if d.AcquireTimeout > MaxAcquireTimeout {
		v.problem("database.acquire_timeout", "a request is given up after %v whatever it waits for: set it to that or less, and raise database.max_connections if requests wait for longer", MaxAcquireTimeout)
	}
}

// StateBackend returns state.backend, with auto resolved.
func (c *Config) StateBackend() StateBackend {
	switch {
	case c.State.Backend != StateAuto:
		return c.State.Backend
	case c.Redis.URL != "":
		return StateTiered
	default:
		return StateSQL
	}
}

func (c *Config) validateState(v *validator) {
	switch backend := c.StateBackend(); {
	case c.Redis.URL != "":
		if !strings.HasPrefix(c.Redis.URL, "redis://") && !strings.HasPrefix(c.Redis.URL, "rediss://") {
			v.problem("redis.url", "it begins with redis:// or rediss://")
		} else if err := checkAuthority(c.Redis.URL); err != nil {
			v.problem("redis.url", "%v", err)
		}
	case backend == StateRedis || backend == StateTiered:
		v.problem("redis.url", "state.backend %s needs it: write redis://host:6379, or leave state.backend at auto", backend)
	}
	if c.Redis.CAFile != "" && !strings.HasPrefix(c.Redis.URL, "rediss://") {
		v.problem("redis.ca_file", "redis.url does not say TLS; write rediss://host:6379")
	}
}

// Digest returns a short hash of the settings that must be the same on every replica.
func (c *Config) Digest() string {
	h := sha256.New()
	for i := range settings {
		if s := &settings[i]; s.MustAgree() && s.Secret == "" {
			fmt.Fprintf(h, "%s=%q\n", s.Key, s.Format(c))
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// MustAgree reports whether the setting must be the same on every replica of a cluster: what one
// of them promises, the others have to keep.
func (s *Setting) MustAgree() bool {
	if strings.HasPrefix(s.Key, "tokens.pkcs11.") || strings.HasPrefix(s.Key, "tokens.remote.") {
		return false // how a replica reaches the signer; that it has the same keys, their kids say
	}
	section, _, _ := strings.Cut(s.Key, ".")
	return slices.Contains([]string{"tokens", "sessions", "revocation", "state", "limits", "mfa"}, section) || s.Key == "cluster.algorithms" || s.Key == "admin.fresh_for"
}

const minClusterSecret = 32 // bytes

func (c *Config) validateCluster(v *validator) {
	if id := c.Cluster.InstanceID; id != "" && !instanceID.MatchString(id) {
		v.problem("cluster.instance_id", "it may have up to 64 letters, digits, \".\", \"_\" and \"-\"")
	}
	v.atLeast("cluster.refresh_sec", c.Cluster.RefreshSec, 1)
	for _, peer := range c.Cluster.StaticPeers {
		if err := checkHTTPURL(peer); err != nil {
			v.problem("cluster.static_peers", "%v", err)
		}
	}
	if url := c.Cluster.AdvertiseURL; url != "" {
		if err := checkHTTPURL(url); err != nil {
			v.problem("cluster.advertise_url", "%v", err)
		}
	}
	c.Cluster.validateDiscovery(v)
	for _, name := range c.Cluster.Algorithms {
		if !isKeyPair(name) {
			v.problem("cluster.algorithms", "%q is not one of %s", name, strings.Join(keyPairs(), ", "))
		}
	}
	for _, name := range c.SigningAlgorithms() {
		if len(c.Cluster.Algorithms) > 0 && !slices.Contains(c.Cluster.Algorithms, name) && leastSecret(name) == 0 {
			v.problem("cluster.algorithms", "the replicas' own algorithm is not among them (%s %s); add it", c.algorithmSetting(), name)
		}
	}
	if !c.Cluster.Enabled {
		return
	}
	if c.Database.IsSQLite() {
		v.problem("database.url", "a cluster needs a database that every replica reaches, and SQLite is a file of one machine; use postgres:// or mysql://, or set cluster.enabled to false")
	}
	if c.State.Backend == StateMemory {
		v.problem("state.backend", "in a cluster every replica must see the sessions of all, and memory is this replica's alone; use auto, sql, redis or tiered")
	}
	if c.Cluster.CertFile != "" && c.Server.TLS.CertFile == "" {
		v.problem("server.tls.cert_file", "with cluster.cert_file the other replicas must show a certificate, which takes TLS on the listener itself; set it, or leave out cluster.cert_file")
	}
	switch n := len(c.Cluster.Secret); {
	case n == 0:
		v.problem("cluster.secret", "the replicas recognise each other by it; make one with \"openssl rand -base64 32\" and give it to all of them (AUTH_CLUSTER_SECRET)")
	case n < minClusterSecret:
		v.problem("cluster.secret", "it has %d bytes, and needs %d at least; make one with \"openssl rand -base64 32\"", n, minClusterSecret)
	}
}

func (c *Cluster) validateDiscovery(v *validator) {
	if (c.Discovery == DiscoveryStatic) != (len(c.StaticPeers) > 0) {
		if c.Discovery == DiscoveryStatic {
			v.problem("cluster.static_peers", "it lists the replicas, with cluster.discovery static; write their URLs, or leave out discovery")
		} else {
			v.problem("cluster.discovery", "cluster.static_peers is not used with %s; set it to static, or leave out the list", c.Discovery)
		}
	}
	switch service := c.Discovery == DiscoveryDNS || c.Discovery == DiscoveryKubernetes; {
	case service && c.ServiceURL == "":
		v.problem("cluster.service_url", "it says where to look for the replicas, with cluster.discovery %s; write http://name:port", c.Discovery)
	case !service && c.ServiceURL != "":
		v.problem("cluster.discovery", "cluster.service_url is not used with %s; set it to dns or kubernetes, or leave out the URL", c.Discovery)
	case service:
		if err := checkHTTPURL(c.ServiceURL); err != nil {
			v.problem("cluster.service_url", "%v", err)
		}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		missing := "cluster.cert_file"
		if c.KeyFile == "" {
			missing = "cluster.key_file"
		}
		v.problem(missing, "a certificate and its key go together; set both or neither")
	}
	if c.CertFile != "" && c.CAFile == "" {
		v.problem("cluster.ca_file", "with cluster.cert_file the replicas show each other certificates; name the file with the authorities that sign them")
	}
}

func checkDatabaseURL(text string) error {
	if err := checkAuthority(text); err != nil {
		return err
	}
	if !strings.Contains(text, "://") {
		return errors.New("it is written as postgres://user:password@host:5432/name, or mysql://user:password@host:3306/name")
	}
	return nil
}

// checkAuthority checks user, password and hosts of a URL. Its errors do not repeat them,
// because one of them is a password. To package url, a list of hosts (PostgreSQL's) is no
// URL, so each host is checked by itself.
func checkAuthority(text string) error {
	_, rest, _ := strings.Cut(text, "://")
	authority, _, _ := strings.Cut(rest, "/")
	authority, _, _ = strings.Cut(authority, "?")
	hosts := authority
	if i := strings.LastIndex(authority, "@"); i >= 0 {
		hosts = authority[i+1:]
		if strings.Contains(authority[:i], "@") {
			return errors.New("there are two @ in it; write @ in a user name or password as %40")
		}
		if _, err := url.Parse("x://" + authority[:i] + "@host"); err != nil {
			return errors.New("user name and password cannot be read; percent-encode special characters in them (@ is %40, / is %2F)")
		}
	}
	for host := range strings.SplitSeq(hosts, ",") {
		if _, err := url.Parse("x://" + host); err != nil {
			return errors.New("the host and port cannot be read; if the password has special characters, percent-encode them (@ is %40, / is %2F)")
		}
	}
	return nil
}

func (t *Tokens) validate(v *validator) {
	v.notNegative("tokens.key_set_max_age", t.KeySetMaxAge)
	v.notNegative("tokens.key_publish_ahead", t.KeyPublishAhead)
	if t.KeyPublishAhead != defaultPublishAhead && t.KeyPublishAhead > t.KeyDuration/2 {
		v.problem("tokens.key_publish_ahead", "it is longer than half of tokens.key_duration (%s), so that a key could not sign for as long; make it shorter, or tokens.key_duration longer", formatDuration(t.KeyDuration))
	}
	v.notNegative("tokens.renew_grace", t.RenewGrace)
	if t.TokenDuration < time.Second {
		v.problem("tokens.token_duration", "it must be at least 1s")
	}
	if t.KeyDuration < t.TokenDuration {
		v.problem("tokens.key_duration", "a key must sign for at least as long as a token lives (tokens.token_duration %s); make it longer", formatDuration(t.TokenDuration))
	}
	if t.KeyDuration < 2*(t.KeySetMaxAge+t.KeySetStaleFor()) {
		v.problem("tokens.key_duration", "a key must sign for at least twice as long as the key set may be cached (tokens.key_set_max_age %s and a tenth); make it longer", formatDuration(t.KeySetMaxAge))
	}
	if t.RefreshDuration < t.TokenDuration {
		v.problem("tokens.refresh_duration", "a refresh token must live as long as an access token at least (tokens.token_duration %s); make it longer", formatDuration(t.TokenDuration))
	}
	if t.RenewGrace >= t.RefreshDuration {
		v.problem("tokens.renew_grace", "it must be shorter than tokens.refresh_duration (%s)", formatDuration(t.RefreshDuration))
	}
	if strings.Contains(t.Issuer, ":") { // RFC 7519 §2, StringOrURI
		if u, err := url.Parse(t.Issuer); err != nil || !u.IsAbs() {
			v.problem("tokens.issuer", "%q has a colon, but is not a URL", t.Issuer)
		}
	}
	if slices.Contains(append(slices.Clone(t.Audience), t.Issuer), token.CanaryAudience) {
		v.problem("tokens.audience", "%q is the audience of the tokens with which replicas measure revocation; take another one", token.CanaryAudience)
	}
	if i := slices.IndexFunc(t.Audience, func(a string) bool { return strings.TrimSpace(a) == "" }); i >= 0 {
		v.problem("tokens.audience", "a name in it is empty")
	}
	t.UserInfo.validate(v)
}

// KeySetStaleFor returns how long beyond key_set_max_age a cache may answer with the key
// set that it has while it fetches another (RFC 5861 §3), in whole seconds.
func (t *Tokens) KeySetStaleFor() time.Duration {
	return (t.KeySetMaxAge / 10).Truncate(time.Second)
}

func (u *UserInfo) validate(v *validator) {
	fields := []struct{ key, name string }{
		{"tokens.user_info.username", u.Username},
		{"tokens.user_info.full_name", u.FullName},
		{"tokens.user_info.email", u.Email},
	}
	for i, f := range fields {
		if f.name == "" {
			continue
		}
		if err := checkUserInfo(f.name); err != nil {
			v.problem(f.key, "%v", err)
		}
		for _, other := range fields[:i] {
			if other.name == f.name {
				v.problem(f.key, "%s is called %q too; give each its own name", other.key, f.name)
			}
		}
	}
}

// checkUserInfo returns why a token may not carry the user's own data under a name, if it
// may not.
func checkUserInfo(name string) error {
	var spelling *problem.Error
	switch err := token.CheckClaimName(name); {
	case token.Reserved(name) || strings.EqualFold(name, "admin"): // admin grants administration
		return fmt.Errorf("%q has a meaning of its own in a token; take another name", name)
	case errors.As(err, &spelling) && spelling.Code == "claim_name_invalid":
		return fmt.Errorf("%q cannot be one: %s", name, spelling.Detail)
	}
	return nil // names such as email are refused to claims because they belong here
}

func (p *Password) validate(v *validator) {
	v.atLeast("password.workers", p.Workers, 0)
	v.atLeast("password.queue", p.Queue, 0)
	if p.Iterations < 1 || p.Iterations > MaxHashIterations {
		v.problem("password.iterations", "it must be from 1 to %d", MaxHashIterations)
		return
	}
	if p.Parallelism < 1 || p.Parallelism > MaxHashParallelism {
		v.problem("password.parallelism", "it must be from 1 to %d", MaxHashParallelism)
		return
	}
	switch {
	case int64(p.Memory) < 8*int64(p.Parallelism): // RFC 9106 §3.1
		v.problem("password.memory", "it must be at least 8KiB for each lane (password.parallelism)")
	case p.Memory > MaxHashMemory:
		v.problem("password.memory", "it must be at most %dMiB", MaxHashMemory>>10)
	case int64(p.Memory)*int64(p.Iterations) > int64(MaxHashWork):
		v.problem("password.memory", "memory × iterations must be at most %dGiB", MaxHashWork>>20)
	}
}

func (l *Limits) validate(v *validator) {
	v.atLeast("limits.lockout.after", l.Lockout.After, 0)
	v.atLeast("limits.lockout.after_all", l.Lockout.AfterAll, 0)
	v.atLeast("limits.spray.after", l.Spray.After, 0)
	if l.Lockout.Delay < time.Second {
		v.problem("limits.lockout.delay", "it must be at least 1s")
	}
	if l.Lockout.Max < l.Lockout.Delay || l.Lockout.Max > maxLockout {
		v.problem("limits.lockout.max", "it must be from limits.lockout.delay (%s) to %s, after which failures are forgotten", formatDuration(l.Lockout.Delay), formatDuration(maxLockout))
	}
}

// maxLockout is less than the time after which failures are forgotten.
const maxLockout = 12 * time.Hour

var instanceID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

func checkHTTPURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%q is not an http or https URL", text)
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return errors.New("it has only scheme, host, port and path")
	}
	return nil
}

// checkOrigin returns an error unless the text is an origin as browsers send it (RFC 6454
// §6.2), byte for byte.
func checkOrigin(text string) error {
	switch text {
	case "*":
		return errors.New("* would let every web page try passwords; name each origin")
	case "null":
		return errors.New("null is what every sandboxed page sends; name the origin of the page itself")
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || strings.Contains(u.Host, "*") {
		return fmt.Errorf("%q is not an origin, such as https://app.example.com", text)
	}
	sent := originOf(u)
	if strings.ContainsFunc(sent, func(r rune) bool { return r > '~' }) {
		return fmt.Errorf("%q is not what browsers send, which write other than ASCII letters as xn--…", text)
	}
	if sent != text {
		return fmt.Errorf("%q is not what browsers send; write %q", text, sent)
	}
	return nil
}

// originOf returns the origin of a URL as browsers send it.
func originOf(u *url.URL) string {
	host := strings.ToLower(u.Host)
	if ports := map[string]string{"http": ":80", "https": ":443"}; ports[u.Scheme] != "" {
		host = strings.TrimSuffix(host, ports[u.Scheme])
	}
	return u.Scheme + "://" + strings.TrimSuffix(host, ":")
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// A validator collects problems.
type validator struct {
	problems []Problem
}

func (v *validator) problem(key, format string, args ...any) {
	v.problems = append(v.problems, Problem{Key: key, Text: fmt.Sprintf(format, args...)})
}

func (v *validator) positive(key string, d time.Duration) {
	if d <= 0 {
		v.problem(key, "it must be longer than 0s")
	}
}

func (v *validator) notNegative(key string, d time.Duration) {
	if d < 0 {
		v.problem(key, "it may not be negative")
	}
}

func (v *validator) atLeast(key string, n, least int) {
	if n < least {
		v.problem(key, "it must be at least %d", least)
	}
}

func (v *validator) err() error {
	if len(v.problems) == 0 {
		return nil
	}
	return &Error{v.problems}
}
