package config

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestValidateRefusesWhatCannotWork(t *testing.T) {
	const key = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, tt := range []struct{ name, yaml, want string }{
		{"address without a port", "server: {address: localhost, public_url: 'http://a'}",
			`server.address: "localhost" is not a host and a port, such as 127.0.0.1:8080 or :8080`},
		{"port out of range", "server: {address: ':70000', public_url: 'http://a'}",
			`server.address: ":70000" is not a host and a port, such as 127.0.0.1:8080 or :8080`},
		{"metrics without a host and port", "server: {metrics_address: '9090'}",
			`server.metrics_address: "9090" is not a host and a port, such as 127.0.0.1:9090 or :9090`},
		{"metrics on the same address", "server: {metrics_address: '127.0.0.1:8080'}",
			"server.metrics_address: it must be another address than server.address; leave it empty to serve /metrics there"},
		{"open port", "server: {address: ':0'}",
			"server.public_url: it must be set when server.address leaves the port open"},
		{"a canary without a pause", "telemetry: {canary: 1s}",
			"telemetry.canary: each measurement writes an entry to the revocation log; set it to 5s or more, or to 0s"},
		{"traces to no URL", "telemetry: {traces: {endpoint: 'collector:4318'}}",
			`telemetry.traces.endpoint: "collector:4318" is not an http or https URL`},
		{"traces with credentials in the URL", "telemetry: {traces: {endpoint: 'http://me:hunter2@collector:4318'}}",
			"telemetry.traces.endpoint: it has only scheme, host, port and path"},
		{"a header of traces without a value", "telemetry: {traces: {headers: [x-tenant=a, hunter2]}}",
			"telemetry.traces.headers: number 2 is not written as NAME=VALUE, with special characters of the value as %XX"},
		{"a header of traces that is two", "telemetry: {traces: {headers: ['x=hunter2%0d%0ay:z']}}",
			"telemetry.traces.headers: number 1 is not written as NAME=VALUE, with special characters of the value as %XX"},
		{"more than all requests traced", "telemetry: {traces: {sample_ratio: 1.5}}",
			`telemetry.traces.sample_ratio: "1.5" is not a number from 0 to 1`},
		{"profiles for everybody", "debug: {address: ':6060'}",
			`debug.address: ":6060" is reached from other machines, and profiles may have secrets in them; write 127.0.0.1:6060`},
		{"profiles for the network", "debug: {address: '192.0.2.1:6060'}",
			`debug.address: "192.0.2.1:6060" is reached from other machines, and profiles may have secrets in them; write 127.0.0.1:6060`},
		{"profiles without a port", "debug: {address: localhost}",
			`debug.address: "localhost" is not a host and a port, such as 127.0.0.1:6060`},
		{"no token is looked up, and all are accepted", "revocation: {check: shared, on_outage: allow}",
			"revocation.on_outage: it would accept tokens without looking them up, and revocation.check is shared; set one of them to its default"},
		{"public URL without a scheme", "server: {public_url: auth.example.com}",
			`server.public_url: "auth.example.com" is not an http or https URL`},
		{"public URL of another scheme", "server: {public_url: 'ftp://auth.example.com'}",
			`server.public_url: "ftp://auth.example.com" is not an http or https URL`},
		{"public URL with a query", "server: {public_url: 'https://auth.example.com?x'}",
			"server.public_url: it has only scheme, host, port and path"},
		{"public URL with a password", "server: {public_url: 'https://u:p@auth.example.com'}",
			"server.public_url: it has only scheme, host, port and path"},
		{"proxy that is a name", "server: {trusted_proxies: [10.0.0.0/8, proxy]}",
			`server.trusted_proxies: "proxy" is neither an address nor a network such as 10.0.0.0/8`},
		{"every origin", "server: {cors_origins: ['*']}", "server.cors_origins: * would let every web page try passwords; name each origin"},
		{"the origin null", "server: {cors_origins: ['null']}", "server.cors_origins: null is what every sandboxed page sends; name the origin of the page itself"},
		{"an origin without a scheme", "server: {cors_origins: [app.example.com]}",
			`server.cors_origins: "app.example.com" is not an origin, such as https://app.example.com`},
		{"an origin with a port and no scheme", "server: {cors_origins: ['localhost:5173']}",
			`server.cors_origins: "localhost:5173" is not an origin, such as https://app.example.com`},
		{"a pattern", "server: {cors_origins: ['https://*.example.com']}",
			`server.cors_origins: "https://*.example.com" is not an origin, such as https://app.example.com`},
		{"an origin with a slash", "server: {cors_origins: ['https://app.example.com/']}",
			`server.cors_origins: "https://app.example.com/" is not what browsers send; write "https://app.example.com"`},
		{"an origin with a path", "server: {cors_origins: ['https://app.example.com/x?y#z']}",
			`server.cors_origins: "https://app.example.com/x?y#z" is not what browsers send; write "https://app.example.com"`},
		{"an origin in capitals", "server: {cors_origins: ['HTTPS://App.example.com:8443']}",
			`server.cors_origins: "HTTPS://App.example.com:8443" is not what browsers send; write "https://app.example.com:8443"`},
		{"an origin with its scheme's port", "server: {cors_origins: ['https://app.example.com:443']}",
			`server.cors_origins: "https://app.example.com:443" is not what browsers send; write "https://app.example.com"`},
		{"an origin with a user", "server: {cors_origins: ['http://u@[::1]:80']}",
			`server.cors_origins: "http://u@[::1]:80" is not what browsers send; write "http://[::1]"`},
		{"an origin in other letters", "server: {cors_origins: ['https://bücher.example']}",
			`server.cors_origins: "https://bücher.example" is not what browsers send, which write other than ASCII letters as xn--…`},
		{"certificate without its key", "server: {tls: {cert_file: a.pem}}",
			"server.tls.key_file: a certificate and its key go together; set both or neither"},
		{"key without its certificate", "server: {tls: {key_file: a.pem}}",
			"server.tls.cert_file: a certificate and its key go together; set both or neither"},
		{"a session for ever", "sessions: {ttl: 87601h}",
			"sessions.ttl: it is longer than ten years (87600h); make it shorter"},
		{"no database", "{database: {url: ''}, tokens: {keys: memory}}", "database.url: it begins with sqlite:, postgres:// or mysql://"},
		{"unknown database", "database: {url: 'oracle://h/db'}", "database.url: it begins with sqlite:, postgres:// or mysql://"},
		{"SQLite without a file", "database: {url: 'sqlite:'}",
			"database.url: sqlite: is followed by the name of a file, such as sqlite:data/watchword.db"},
		{"SQLite in memory", "database: {url: 'sqlite::memory:'}",
			"database.url: a database in memory forgets every user; name a file, such as sqlite:data/watchword.db"},
		{"half a URL", "{database: {url: 'postgres:h'}, tokens: {keys: memory}}",
			"database.url: it is written as postgres://user:password@host:5432/name, or mysql://user:password@host:3306/name"},
		{"password with a slash", "{database: {url: 'postgres://u:secr/et@h/db'}, tokens: {keys: memory}}",
			"database.url: the host and port cannot be read; if the password has special characters, percent-encode them (@ is %40, / is %2F)"},
		{"password with an @", "{database: {url: 'postgres://u:secr@et@h/db'}, tokens: {keys: memory}}",
			"database.url: there are two @ in it; write @ in a user name or password as %40"},
		{"password with a %", "{database: {url: 'mysql://u:secr%et@h/db'}, tokens: {keys: memory}}",
			"database.url: user name and password cannot be read; percent-encode special characters in them (@ is %40, / is %2F)"},
		{"no connections", "database: {max_connections: 0}", "database.max_connections: it must be at least 1"},
		{"no time for a connection", "database: {acquire_timeout: 0s}", "database.acquire_timeout: it must be longer than 0s"},
		{"too much time for a connection", "database: {acquire_timeout: 15001ms}",
			"database.acquire_timeout: a request is given up after 15s whatever it waits for: set it to that or less, and raise database.max_connections if requests wait for longer"},
		{"storage key of the wrong size", "storage: {key: c2hvcnQ=}",
			`storage.key: the storage key is not 32 bytes in base64 or hex: make one with "openssl rand -base64 32"`},
		{"previous storage key that is none", "storage: {previous_keys: [" + key + ", c2hvcnQ=]}",
			`storage.previous_keys: number 2 cannot be used: the storage key is not 32 bytes in base64 or hex: make one with "openssl rand -base64 32"`},
		{"Redis of another scheme", "redis: {url: 'http://cache:6379'}", "redis.url: it begins with redis:// or rediss://"},
		{"Redis password with an @", "redis: {url: 'redis://u:secr@et@cache:6379'}",
			"redis.url: there are two @ in it; write @ in a user name or password as %40"},
		{"authorities for a Redis without TLS", "redis: {url: 'redis://cache:6379', ca_file: a}", "redis.ca_file: redis.url does not say TLS; write rediss://host:6379"},
		{"state in Redis without one", "state: {backend: redis}",
			"redis.url: state.backend redis needs it: write redis://host:6379, or leave state.backend at auto"},
		{"tiered state without Redis", "state: {backend: tiered}",
			"redis.url: state.backend tiered needs it: write redis://host:6379, or leave state.backend at auto"},
		{"stored keys without a storage key", "database: {url: 'postgres://h/db'}",
			`storage.key: it is needed to encrypt the signing keys in the database; make one with "openssl rand -base64 32", or set tokens.keys to memory`},
		{"name with a space", "cluster: {instance_id: 'a b'}",
			`cluster.instance_id: it may have up to 64 letters, digits, ".", "_" and "-"`},
		{"cluster on SQLite", "cluster: {enabled: true, secret: " + key + "}",
			"database.url: a cluster needs a database that every replica reaches, and SQLite is a file of one machine; use postgres:// or mysql://, or set cluster.enabled to false"},
		{"cluster with state in memory", "{cluster: {enabled: true, secret: " + key + "}, database: {url: 'postgres://h/db'}, state: {backend: memory}}",
			"state.backend: in a cluster every replica must see the sessions of all, and memory is this replica's alone; use auto, sql, redis or tiered"},
		{"cluster without a secret", "{cluster: {enabled: true}, database: {url: 'postgres://h/db'}}",
			`cluster.secret: the replicas recognise each other by it; make one with "openssl rand -base64 32" and give it to all of them (AUTH_CLUSTER_SECRET)`},
		{"cluster with a short secret", "{cluster: {enabled: true, secret: 0123456789012345678901234567890}, database: {url: 'postgres://h/db'}}",
			`cluster.secret: it has 31 bytes, and needs 32 at least; make one with "openssl rand -base64 32"`},
		{"static without peers", "cluster: {discovery: static}",
			"cluster.static_peers: it lists the replicas, with cluster.discovery static; write their URLs, or leave out discovery"},
		{"peers that nobody asks", "cluster: {static_peers: ['https://auth-0']}",
			"cluster.discovery: cluster.static_peers is not used with database; set it to static, or leave out the list"},
		{"dns without a name", "cluster: {discovery: dns}",
			"cluster.service_url: it says where to look for the replicas, with cluster.discovery dns; write http://name:port"},
		{"a service that nobody looks for", "cluster: {service_url: 'http://auth'}",
			"cluster.discovery: cluster.service_url is not used with database; set it to dns or kubernetes, or leave out the URL"},
		{"a service without a scheme", "cluster: {discovery: kubernetes, service_url: 'auth:8080'}",
			`cluster.service_url: "auth:8080" is not an http or https URL`},
		{"a peer's certificate without its key", "cluster: {ca_file: a, cert_file: b}",
			"cluster.key_file: a certificate and its key go together; set both or neither"},
		{"a peer's certificate without authorities", "cluster: {cert_file: a, key_file: b}",
			"cluster.ca_file: with cluster.cert_file the replicas show each other certificates; name the file with the authorities that sign them"},
		{"mutual TLS without TLS", "{cluster: {enabled: true, secret: " + key + ", ca_file: a, cert_file: b, key_file: c}, database: {url: 'postgres://h/db'}}",
			"server.tls.cert_file: with cluster.cert_file the other replicas must show a certificate, which takes TLS on the listener itself; set it, or leave out cluster.cert_file"},
		{"a peer without a scheme", "cluster: {discovery: static, static_peers: ['auth-0:8080']}",
			`cluster.static_peers: "auth-0:8080" is not an http or https URL`},
		{"an own URL that is none", "cluster: {advertise_url: 'auth-0'}", `cluster.advertise_url: "auth-0" is not an http or https URL`},
		{"peers that are never asked", "cluster: {refresh_sec: 0}", "cluster.refresh_sec: it must be at least 1"},
		{"unknown algorithm of peers", "cluster: {algorithms: [ES256, HS256]}",
			`cluster.algorithms: "HS256" is not one of ES256, ES384, ES512, EdDSA, RS256, PS256`},
		{"peers may not do what this replica does", "cluster: {algorithms: [EdDSA]}",
			"cluster.algorithms: the replicas' own algorithm is not among them (tokens.algorithm ES256); add it"},
		{"key life shorter than token life", "tokens: {key_duration: 20m}",
			"tokens.key_duration: a key must sign for at least as long as a token lives (tokens.token_duration 30m); make it longer"},
		{"key life shorter than caches", "tokens: {key_duration: 1h59m, key_set_max_age: 1h}",
			"tokens.key_duration: a key must sign for at least twice as long as the key set may be cached (tokens.key_set_max_age 1h and a tenth); make it longer"},
		{"tokens without life", "tokens: {token_duration: 0s}", "tokens.token_duration: it must be at least 1s"},
		{"refresh shorter than access", "tokens: {refresh_duration: 1m}",
			"tokens.refresh_duration: a refresh token must live as long as an access token at least (tokens.token_duration 30m); make it longer"},
		{"endless grace", "tokens: {renew_grace: 720h}", "tokens.renew_grace: it must be shorter than tokens.refresh_duration (720h)"},
		{"token longer than session", "sessions: {ttl: 10m}",
			"tokens.token_duration: it is longer than a session (sessions.ttl 10m); make it shorter, or sessions.ttl longer"},
		{"idle before the first renewal", "sessions: {idle: 10m}",
			"sessions.idle: it is shorter than an access token's life (tokens.token_duration 30m), so every session would end before its first renewal; make it longer"},
		{"negative bound", "sessions: {max_per_user: -1}", "sessions.max_per_user: it must be at least 0"},
		{"issuer that is no URL", "tokens: {issuer: ':x'}", `tokens.issuer: ":x" has a colon, but is not a URL`},
		{"the canary's audience", "tokens: {audience: ['urn:watchword:canary']}",
			"tokens.audience: \"urn:watchword:canary\" is the audience of the tokens with which replicas measure revocation; take another one"},
		{"the canary's audience as the issuer", "tokens: {issuer: 'urn:watchword:canary', audience: [a]}",
			"tokens.audience: \"urn:watchword:canary\" is the audience of the tokens with which replicas measure revocation; take another one"},
		{"empty audience", "tokens: {audience: [a, '']}", "tokens.audience: a name in it is empty"},
		{"registered claim", "tokens: {user_info: {email: SUB}}",
			`tokens.user_info.email: "SUB" has a meaning of its own in a token; take another name`},
		{"administration's claim", "tokens: {user_info: {full_name: admin}}",
			`tokens.user_info.full_name: "admin" has a meaning of its own in a token; take another name`},
		{"one claim for two", "tokens: {user_info: {email: name}}",
			`tokens.user_info.email: tokens.user_info.full_name is called "name" too; give each its own name`},
		{"poll slower than the bound", "revocation: {poll: 5s}",
			"revocation.max_staleness: it is not longer than revocation.poll (5s), so every answer would come too late; make it several times as long"},
		{"no time for administration", "admin: {fresh_for: 59s}",
			"admin.fresh_for: an administrator needs some time after a login; set it to 1m or more"},
		{"no poll", "revocation: {poll: 0s}", "revocation.poll: it must be longer than 0s"},
		{"a wait of nothing", "limits: {lockout: {delay: 10ms}}", "limits.lockout.delay: it must be at least 1s"},
		{"the longest wait is the shorter one", "limits: {lockout: {delay: 1m, max: 30s}}",
			"limits.lockout.max: it must be from limits.lockout.delay (1m) to 12h, after which failures are forgotten"},
		{"a wait that outlives the failures", "limits: {lockout: {max: 13h}}",
			"limits.lockout.max: it must be from limits.lockout.delay (30s) to 12h, after which failures are forgotten"},
		{"fewer than no failures", "limits: {lockout: {after: -1}}", "limits.lockout.after: it must be at least 0"},
		{"fewer than no failures of all", "limits: {lockout: {after_all: -1}}", "limits.lockout.after_all: it must be at least 0"},
		{"fewer than no failures of an address", "limits: {spray: {after: -1}}", "limits.spray.after: it must be at least 0"},
		{"no passes", "password: {iterations: 0}", "password.iterations: it must be from 1 to 16"},
		{"too many passes", "password: {iterations: 17, memory: 1MiB}", "password.iterations: it must be from 1 to 16"},
		{"no lanes", "password: {parallelism: 0}", "password.parallelism: it must be from 1 to 16"},
		{"too many lanes", "password: {parallelism: 17}", "password.parallelism: it must be from 1 to 16"},
		{"too much memory", "password: {memory: 257MiB}", "password.memory: it must be at most 256MiB"},
		{"too much work", "password: {memory: 256MiB, iterations: 5}", "password.memory: memory × iterations must be at most 1GiB"},
		{"too little memory", "password: {memory: 15, parallelism: 2}",
			"password.memory: it must be at least 8KiB for each lane (password.parallelism)"},
		{"administrator without a password", "admin: {username: root}",
			"admin.password: username and password of the first administrator go together; set both or neither"},
		{"administrator without a name", "admin: {password: s3cret}",
			"admin.username: username and password of the first administrator go together; set both or neither"},
		{"an audit trail of an hour", "audit: {retention: 1h}", "audit.retention: a session whose login is not in the audit trail can be revoked by its id by a superuser alone; set it to 24h or more"},
		{"no time for health", "health: {timeout: 0s}", "health.timeout: it must be longer than 0s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := loadText(tt.yaml)
			if err == nil {
				t.Fatalf("accepted, want %s", tt.want)
			}
			// Where the value stands is another test's matter.
			if got := strings.TrimPrefix(err.Error(), "watchword.yaml:1: "); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}

	for _, text := range []string{
		"{database: {url: 'postgresql://u:p@h1:5432,h2/db?default_query_exec_mode=exec'}, storage: {key: '" + key + "'}}",
		"{database: {url: 'mysql://u@h/db'}, tokens: {keys: memory}}",
		"{database: {url: 'postgres://[::1]:5432/db'}, tokens: {keys: memory}}",
		"server: {address: '[::1]:8443', tls: {cert_file: a, key_file: b}}",
		"server: {address: '127.0.0.1:0', public_url: 'http://localhost'}",
		"tokens: {key_duration: 33m, key_set_max_age: 15m}",
		"tokens: {issuer: watchword, user_info: {username: preferred_username, full_name: '', email: ''}}",
	} {
		if _, err := loadText(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestValidateAConfigMadeByHand(t *testing.T) {
	c := Default()
	c.Log.Level = "loud"
	c.Server.DrainDelay = -1
	err := c.Validate()
	expect(t, err, "server.drain_delay: it may not be negative\n"+
		`log.level: "loud" is not one of debug, info, warn, error`)
}

func TestWhatFollowsFromTheAddress(t *testing.T) {
	for _, tt := range []struct{ yaml, want string }{
		{"server: {address: ':8080'}", "http://localhost:8080"},
		{"server: {address: '0.0.0.0:80'}", "http://localhost:80"},
		{"server: {address: '[::]:80'}", "http://localhost:80"},
		{"server: {address: '[::1]:80'}", "http://[::1]:80"},
		{"server: {address: 'auth:443', tls: {cert_file: a, key_file: b}}", "https://auth:443"},
		{"server: {public_url: 'https://auth.example.com/'}", "https://auth.example.com"},
	} {
		c, err := loadText(tt.yaml)
		if err != nil {
			t.Errorf("%s: %v", tt.yaml, err)
			continue
		}
		if c.Server.PublicURL != tt.want || c.Tokens.Issuer != tt.want || !reflect.DeepEqual(c.Tokens.Audience, []string{tt.want}) {
			t.Errorf("%s: public_url %s, issuer %s, audience %s; want %s", tt.yaml, c.Server.PublicURL, c.Tokens.Issuer, c.Tokens.Audience, tt.want)
		}
	}
	c, err := loadText("tokens: {issuer: watchword}")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c.Tokens.Audience, []string{"watchword"}) {
		t.Errorf("audience is %s, want the issuer", c.Tokens.Audience)
	}
}

func TestWarnings(t *testing.T) {
	for _, tt := range []struct{ yaml, want string }{
		{"server: {public_url: 'http://auth.example.com'}", "server.public_url"},
		{"server: {trusted_proxies: [10.0.0.0/8, '::/0']}", "server.trusted_proxies"},
		{"state: {backend: memory}", "state.backend"},
		{"{redis: {url: 'redis://h'}, state: {backend: sql}}", "redis.url"},
		{"revocation: {on_outage: allow}", "revocation.on_outage"},
		{"mfa: {required: never}", "mfa.required"},
		{"password: {memory: 1MiB}", "password.memory"},
	} {
		c, err := loadText(tt.yaml)
		if err != nil {
			t.Fatal(err)
		}
		if w := c.Warnings(); len(w) != 1 || !strings.HasPrefix(w[0], tt.want+" ") {
			t.Errorf("%s: %q", tt.yaml, w)
		}
	}
}

func TestStateBackend(t *testing.T) {
	for _, tt := range []struct {
		yaml string
		want StateBackend
	}{
		{"", "sql"},
		{"redis: {url: 'redis://h'}", "tiered"},
		{"{redis: {url: 'redis://h'}, state: {backend: redis}}", "redis"},
		{"{redis: {url: 'redis://h'}, state: {backend: sql}}", "sql"},
		{"state: {backend: memory}", "memory"},
	} {
		c, err := loadText(tt.yaml)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.StateBackend(); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.yaml, got, tt.want)
		}
	}
}

func TestProxies(t *testing.T) {
	s := Server{TrustedProxies: []string{"10.1.2.3/8", "192.0.2.1", "2001:db8::/32", "::ffff:192.0.2.2"}}
	got, err := s.Proxies()
	if err != nil {
		t.Fatal(err)
	}
	want := []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32"),
		netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("192.0.2.2/32"),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestPrintShowsNoSecret(t *testing.T) {
	c := Default()
	c.Storage.Key = "SECRET-1"
	c.Storage.PreviousKeys = []string{"SECRET-3", "SECRET-4"}
	c.Redis.URL = "redis://:SECRET@h/0?sentinel_password=SECRET"
	c.Admin.Password = "sqlite:SECRET-2"
	for url, shown := range map[string]string{
		"sqlite:data/watchword.db":                      "sqlite:data/watchword.db",
		"postgres://u:SECRET@h1,h2/db":                  "postgres://u:********@h1,h2/db",
		"postgres://u@h/db?password=SECRET&sslmode=off": "postgres://u@h/db?********",
		"mysql://u:SECRET/SECRET@SECRET@h/db":           "mysql://u:********@h/db",
	} {
		c.Database.URL = url
		var out strings.Builder
		if err := c.Print(&out); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.String(), "SECRET") {
			t.Errorf("%s: a secret is shown:\n%s", url, out.String())
		}
		if !strings.Contains(out.String(), "url: "+shown+"\n") {
			t.Errorf("%s: want %s in\n%s", url, shown, out.String())
		}
	}
}

// Durations are added up, and a sum that overflows would lie in the past: what is
// revoked until then would not be revoked at all.
func TestNoDurationIsBoundless(t *testing.T) {
	for _, s := range Settings() {
		if s.Type != reflect.TypeFor[time.Duration]() {
			continue
		}
		for text, refused := range map[string]bool{"87600h": false, "87601h": true, "2562047h47m16s": true} {
			_, err := Load("", []string{s.Env + "=" + text})
			want := s.Key + ": it is longer than ten years (87600h); make it shorter"
			if got := err != nil && strings.Contains(err.Error(), want); got != refused {
				t.Errorf("%s=%s: %v", s.Env, text, err)
			}
		}
	}
	if sum := 20 * maxDuration; sum < maxDuration {
		t.Errorf("twenty of the longest make %v", sum)
	}
}

func TestDiscovery(t *testing.T) {
	c, err := loadText("cluster: {discovery: dns, service_url: 'https://_watchword._tcp.example.com/'}")
	if err != nil || c.Cluster.ServiceURL != "https://_watchword._tcp.example.com" {
		t.Errorf("got %q, %v", c.Cluster.ServiceURL, err)
	}
	if _, err := loadText("cluster: {discovery: kubernetes}", "WATCHWORD_CLUSTER_SERVICE_URL=http://watchword:8080"); err != nil {
		t.Error(err)
	}
}

func TestChanges(t *testing.T) {
	a, err := loadText("cluster: {discovery: static, static_peers: ['http://a']}", "DATABASE_URL=mysql://me:hunter2@h/db", "AUTH_STORAGE_KEY="+strings.Repeat("0123456789abcdef", 4))
	if err != nil {
		t.Fatal(err)
	}
	b, err := loadText("{cluster: {discovery: static, static_peers: ['http://a', 'http://b']}, log: {level: debug}}", "DATABASE_URL=mysql://me:hunter3@h/db", "AUTH_STORAGE_KEY="+strings.Repeat("1123456789abcdef", 4))
	if err != nil {
		t.Fatal(err)
	}
	want := []Change{
		{"database.url", "mysql://me:********@h/db", "mysql://me:********@h/db", false},
		{"storage.key", "********", "********", false},
		{"cluster.static_peers", "http://a", "http://a,http://b", true},
		{"log.level", "info", "debug", true},
	}
	if got := a.Changes(b); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got := a.Changes(a); len(got) != 0 {
		t.Errorf("against itself: %v", got)
	}
	other := *b
	other.Cluster.Discovery, other.Cluster.StaticPeers = "database", nil
	for _, got := range [][]Change{b.Changes(&other), other.Changes(b)} {
		if len(got) != 2 || got[0].Live || got[1].Live {
			t.Errorf("with another way of finding the peers: %v", got)
		}
	}
}

// The digest is of the settings that must be the same everywhere, and of no others.
func TestDigest(t *testing.T) {
	digest := func(text string) string {
		t.Helper()
		c, err := loadText(text)
		if err != nil {
			t.Fatal(err)
		}
		return c.Digest()
	}
	plain := digest("")
	for text, same := range map[string]bool{
		"tokens: {token_duration: 10m}":                                           false,
		"cluster: {algorithms: [ES256]}":                                          false,
		"admin: {fresh_for: 5m}":                                                  false,
		"limits: {login: {per_address: 5/1m}}":                                    false,
		"mfa: {required: always}":                                                 false,
		"mfa: {remember_device: 24h}":                                             false,
		"mfa: {issuer_name: Example}":                                             false,
		"mfa: {passkeys: {rp_id: localhost, origins: ['http://localhost:8080']}}": false,
		"tokens: {algorithms: [ES256, RS256]}":                                    false,
		"tokens: {key_publish_ahead: 10m}":                                        false,
		"tokens: {secret: 0123456789abcdef0123456789abcdef}":                      true,
		"tokens: {previous_secrets: [0123456789abcdef0123456789abcdef]}":          true,
		"tokens: {pkcs11: {library: /opt/hsm.so}}":                                true,
		"tokens: {remote: {url: 'https://vault'}}":                                true,
		"cluster: {instance_id: auth-7}":                                          true,
		"log: {level: debug}":                                                     true,
	} {
		if got := digest(text) == plain; got != same {
			t.Errorf("%s: the same: %v", text, got)
		}
	}
}

// The constants are the words of the manual, no more and no fewer.
func TestConstantsAreTheWordsOfTheManual(t *testing.T) {
	for key, words := range map[string][]string{
		"state.backend":      {string(StateAuto), string(StateMemory), string(StateSQL), string(StateRedis), string(StateTiered)},
		"cluster.discovery":  {string(DiscoveryDatabase), string(DiscoveryStatic), string(DiscoveryDNS), string(DiscoveryKubernetes)},
		"tokens.keys":        {string(KeysAuto), string(KeysMemory), string(KeysDatabase), string(KeysSecret), string(KeysPKCS11), string(KeysRemote)},
		"tokens.remote.kind": {string(RemoteTransit), string(RemoteHTTP)},
		"revocation.check":   {string(CheckLocal), string(CheckShared)},
		"limits.on_outage":   {string(LimitsDeny), string(LimitsLocal)},
		"log.format":         {string(LogAuto), string(LogText), string(LogJSON)},
	} {
		if got := find(key).OneOf; !reflect.DeepEqual(got, words) {
			t.Errorf("%s: %q, want %q", key, got, words)
		}
	}
}
