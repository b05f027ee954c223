package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// loadText loads a YAML text as watchword.yaml.
func loadText(text string, environ ...string) (*Config, error) {
	return load("watchword.yaml", []byte(text), variables(environ))
}

func TestDefaultsAreValid(t *testing.T) {
	c, err := Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Server.PublicURL = "http://127.0.0.1:8080"
	want.Tokens.Issuer = want.Server.PublicURL
	want.Tokens.Audience = []string{want.Server.PublicURL}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v\nwant %+v", c, want)
	}
	if w := c.Warnings(); len(w) != 0 {
		t.Errorf("warnings about the defaults: %q", w)
	}
}

func TestEverySettingIsReadFromFileAndEnvironment(t *testing.T) {
	// A valid value for each that is not its default.
	values := map[string]string{
		"server.address":                  "0.0.0.0:9090",
		"server.metrics_address":          "127.0.0.1:9464",
		"server.public_url":               "https://auth.example.com/base",
		"server.trusted_proxies":          "10.0.0.0/8,192.0.2.1",
		"server.forwarded_header":         "Forwarded",
		"server.cors_origins":             "https://app.example.com,http://localhost:5173",
		"server.drain_delay":              "5s",
		"server.max_requests_per_user":    "5",
		"server.max_requests_per_address": "50",
		"server.tls.cert_file":            "/etc/tls/cert.pem",
		"server.tls.key_file":             "/etc/tls/key.pem",
		"database.url":                    "postgres://u:p%40ss@db1:5432,db2:5432/watchword?target_session_attrs=read-write",
		"database.max_connections":        "25",
		"database.acquire_timeout":        "3s",
		"redis.url":                       "rediss://u:p%40ss@r1:6379/1?addr=r2:6379",
		"redis.ca_file":                   "/etc/tls/redis.pem",
		"state.backend":                   "redis",
		"storage.key":                     strings.Repeat("0123456789abcdef", 4),
		"storage.previous_keys":           strings.Repeat("1123456789abcdef", 4) + "," + strings.Repeat("2123456789abcdef", 4),
		"cluster.enabled":                 "true",
		"cluster.discovery":               "static",
		"cluster.static_peers":            "https://auth-0:8080,https://auth-1:8080",
		"cluster.cert_file":               "/etc/tls/peer.pem",
		"cluster.key_file":                "/etc/tls/peer.key",
		"cluster.refresh_sec":             "10",
		"cluster.advertise_url":           "https://auth-0:8080",
		"cluster.ca_file":                 "/etc/tls/ca.pem",
		"cluster.instance_id":             "auth-0",
		"cluster.secret":                  "0123456789abcdef0123456789abcdef",
		"cluster.algorithms":              "EdDSA,ES256",
		"tokens.keys":                     "memory",
		"tokens.algorithm":                "EdDSA",
		"tokens.algorithms":               "EdDSA,ES256",
		"tokens.secret":                   strings.Repeat("0f", 32),
		"tokens.previous_secrets":         strings.Repeat("1f", 32) + "," + strings.Repeat("2f", 16) + "@2099-12-31T00:00:00Z",
		"tokens.key_publish_ahead":        "15m",
		"tokens.pkcs11.library":           "/usr/lib/softhsm/libsofthsm2.so",
		"tokens.pkcs11.pin":               "1234",
		"tokens.pkcs11.token":             "tokens",
		"tokens.pkcs11.serial":            "0a1b2c3d",
		"tokens.pkcs11.key":               "jwt",
		"tokens.pkcs11.sessions":          "4",
		"tokens.remote.kind":              "http",
		"tokens.remote.url":               "https://signer:8443/base",
		"tokens.remote.token":             "hvs.token",
		"tokens.remote.mount":             "team/transit",
		"tokens.remote.key":               "jwt",
		"tokens.remote.ca_file":           "/etc/tls/signer.pem",
		"tokens.remote.cert_file":         "/etc/tls/replica.pem",
		"tokens.remote.key_file":          "/etc/tls/replica.key",
		"tokens.remote.timeout":           "5s",
		"tokens.issuer":                   "https://issuer.example.com",
		"tokens.audience":                 "api,https://other.example.com",
		"tokens.key_duration":             "6h",
		"tokens.token_duration":           "10m",
		"tokens.refresh_duration":         "48h",
		"tokens.renew_grace":              "20s",
		"tokens.key_set_max_age":          "1m30s",
		"tokens.user_info.username":       "user",
		"tokens.user_info.full_name":      "display_name",
		"tokens.user_info.email":          "mail",
		"sessions.ttl":                    "12h",
		"sessions.idle":                   "1h",
		"sessions.max_per_user":           "3",
		"revocation.check":                "shared",
		"revocation.poll":                 "500ms",
		"revocation.max_staleness":        "4s",
		"revocation.on_outage":            "deny", // no other goes with shared; TestOnOutage has them
		"password.memory":                 "64MiB",
		"password.iterations":             "3",
		"password.parallelism":            "2",
		"password.workers":                "4",
		"password.queue":                  "8",
		"limits.on_outage":                "local",
		"limits.login.per_address":        "20/1m",
		"limits.login.per_account":        "10/5m",
		"limits.mfa.per_address":          "off",
		"limits.mfa.per_account":          "5/1m",
		"limits.renew.per_address":        "600/1m",
		"limits.renew.per_account":        "100/1h30m",
		"limits.api.per_address":          "1000000/1s",
		"limits.api.per_account":          "1/8784h",
		"limits.admin.per_address":        "60/1m",
		"limits.admin.per_account":        "30/1m",
		"limits.lockout.after":            "10",
		"limits.lockout.after_all":        "0",
		"limits.lockout.delay":            "1s",
		"limits.lockout.max":              "12h",
		"limits.spray.after":              "20",
		"limits.spray.total":              "500/1h",
		"mfa.required":                    "claims:[admin,team=c d]",
		"mfa.remember_device":             "720h",
		"mfa.issuer_name":                 "Example & Co.",
		"mfa.passkeys.rp_id":              "example.com",
		"mfa.passkeys.origins":            "https://auth.example.com,https://example.com:8443",
		"pages.enabled":                   "false",
		"pages.name":                      "Example sign-in",
		"pages.logo_file":                 "/etc/watchword/logo.svg",
		"pages.accent":                    "#a00020",
		"pages.header":                    "#002244",
		"audit.retention":                 "720h",
		"admin.username":                  "root",
		"admin.password":                  "correct horse: battery #1",
		"admin.fresh_for":                 "5m",
		"users.init_file":                 "users.yaml",
		"health.timeout":                  "3s",
		"log.level":                       "debug",
		"log.format":                      "json",
		"telemetry.canary":                "1m",
		"telemetry.traces.endpoint":       "https://collector:4318/base",
		"telemetry.traces.headers":        "Authorization=Bearer%20x,x-tenant=a",
		"telemetry.traces.sample_ratio":   "0.25",
		"debug.address":                   "[::1]:6060",
	}
	var environ []string
	for _, s := range Settings() {
		value, found := values[s.Key]
		if s.Key == "cluster.service_url" { // not beside static_peers; see TestDiscovery
			continue
		}
		if !found {
			t.Errorf("%s is not tested here", s.Key)
		}
		if value == s.Format(Default()) && s.Key != "revocation.on_outage" {
			t.Errorf("%s: the test's value is the default", s.Key)
		}
		environ = append(environ, s.Env+"="+value)
	}
	fromEnv, err := loadText("", environ...)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range Settings() {
		if got := s.Format(fromEnv); got != values[s.Key] {
			t.Errorf("%s from the environment: %q, want %q", s.Key, got, values[s.Key])
		}
	}

	file := unmasked(t, fromEnv)
	fromFile, err := loadText(file)
	if err != nil {
		t.Fatalf("%v\n%s", err, file)
	}
	if !reflect.DeepEqual(fromFile, fromEnv) {
		t.Errorf("the file gives %+v\nthe environment %+v", fromFile, fromEnv)
	}
}

func TestPrecedence(t *testing.T) {
	const file = "database: {url: 'sqlite:file.db'}"
	for _, tt := range []struct {
		name    string
		environ []string
		want    string
	}{
		{"file over default", nil, "sqlite:file.db"},
		{"guide's name over file", []string{"DATABASE_URL=sqlite:guide.db"}, "sqlite:guide.db"},
		{"own name over guide's", []string{"DATABASE_URL=sqlite:guide.db", "WATCHWORD_DATABASE_URL=sqlite:own.db"}, "sqlite:own.db"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := loadText(file, tt.environ...)
			if err != nil {
				t.Fatal(err)
			}
			if c.Database.URL != tt.want {
				t.Errorf("database.url is %s, want %s", c.Database.URL, tt.want)
			}
		})
	}
}

func TestListsAreReplacedNotMerged(t *testing.T) {
	c, err := loadText("tokens: {audience: [a, b, c]}", "WATCHWORD_TOKENS_AUDIENCE= d , e")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"d", "e"}; !reflect.DeepEqual(c.Tokens.Audience, want) {
		t.Errorf("audience is %q, want %q", c.Tokens.Audience, want)
	}
}

func TestEmptyMeansLeftOut(t *testing.T) {
	c, err := loadText("tokens: {user_info: {email: ''}}", "WATCHWORD_TOKENS_USER_INFO_FULL_NAME=")
	if err != nil {
		t.Fatal(err)
	}
	if u := c.Tokens.UserInfo; u != (UserInfo{Username: "preferred_username"}) {
		t.Errorf("user_info is %+v", u)
	}
}

func TestSecretsFromFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	database := write("database", "sqlite:from-file.db\n")
	username := write("username", "root")
	password := write("password", "two words \r\n")
	key := write("key", strings.Repeat("ab", 32)+"\n")
	c, err := loadText("",
		"DATABASE_URL_FILE="+database, "ADMIN_GUI_USERNAME_FILE="+username,
		"WATCHWORD_ADMIN_PASSWORD_FILE="+password, "AUTH_STORAGE_KEY_FILE="+key)
	if err != nil {
		t.Fatal(err)
	}
	if c.Database.URL != "sqlite:from-file.db" || c.Admin.Username != "root" || c.Admin.Password != "two words " ||
		c.Storage.Key != strings.Repeat("ab", 32) {
		t.Errorf("read %+v %+v %+v", c.Database, c.Admin, c.Storage)
	}

	for _, tt := range []struct {
		name, want string
		environ    []string
	}{
		{"both at once", "DATABASE_URL: database.url: DATABASE_URL_FILE is set too; keep one of the two",
			[]string{"DATABASE_URL=sqlite:x.db", "DATABASE_URL_FILE=" + database}},
		{"missing", "DATABASE_URL_FILE: database.url: file " + dir + "/none cannot be read: no such file or directory",
			[]string{"DATABASE_URL_FILE=" + dir + "/none"}},
		{"too large", "ADMIN_GUI_PASSWORD_FILE: admin.password: file " + dir + "/large is larger than 1 MiB",
			[]string{"ADMIN_GUI_PASSWORD_FILE=" + write("large", strings.Repeat("x", maxSize+1))}},
		{"not a secret", "WATCHWORD_LOG_LEVEL_FILE: there is no such setting; did you mean WATCHWORD_LOG_LEVEL?",
			[]string{"WATCHWORD_LOG_LEVEL_FILE=" + key}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := loadText("", tt.environ...)
			expect(t, err, tt.want)
		})
	}
}

func TestStrict(t *testing.T) {
	for _, tt := range []struct {
		name, yaml, want string
		environ          []string
	}{
		{name: "unknown key", yaml: "server:\n  adress: x",
			want: "watchword.yaml:2: server.adress: there is no such setting; did you mean server.address?"},
		{name: "unknown section", yaml: "\nsever: {address: x}",
			want: "watchword.yaml:2: sever: there is no such setting; did you mean server?"},
		{name: "key of another section", yaml: "token_duration: 5m",
			want: "watchword.yaml:1: token_duration: there is no such setting; did you mean tokens.token_duration?"},
		{name: "nothing like it", yaml: "xyzzy: 1",
			want: "watchword.yaml:1: xyzzy: there is no such setting"},
		{name: "path as a key", yaml: "server.address: ':80'",
			want: "watchword.yaml:1: server.address: there is no such setting"},
		{name: "setting of a later version", yaml: "oidc: {enabled: true}",
			want: "watchword.yaml:1: oidc: there is no such setting"},
		{name: "other case", yaml: "Server: {}",
			want: "watchword.yaml:1: Server: there is no such setting; did you mean server?"},
		{name: "merge key", yaml: "server:\n  <<: {address: ':80'}",
			want: "watchword.yaml:2: server.<<: there is no such setting"},
		{name: "duplicate key", yaml: "log:\n  level: info\n  level: debug",
			want: "watchword.yaml:3: log.level: it is set already in line 2"},
		{name: "duplicate section", yaml: "log: {level: info}\nlog: {level: debug}",
			want: "watchword.yaml:2: log: it is set already in line 1"},
		{name: "no number", yaml: "database:\n  max_connections: ten",
			want: `watchword.yaml:2: database.max_connections: "ten" is not a whole number`},
		{name: "half a number", yaml: "database: {max_connections: 1.5}",
			want: `watchword.yaml:1: database.max_connections: "1.5" is not a whole number`},
		{name: "duration without a unit", yaml: "sessions: {ttl: 3600}",
			want: `watchword.yaml:1: sessions.ttl: "3600" has no unit; write 3600s, 3600m or 3600h`},
		{name: "no duration", yaml: "sessions: {ttl: soon}",
			want: `watchword.yaml:1: sessions.ttl: "soon" is not a duration such as 30s, 5m or 3h`},
		{name: "negative duration", yaml: "sessions: {ttl: -3h}",
			want: `watchword.yaml:1: sessions.ttl: "-3h" is not a duration such as 30s, 5m or 3h`},
		{name: "no word of the list", yaml: "tokens: {algorithm: RS512}",
			want: `watchword.yaml:1: tokens.algorithm: "RS512" is not one of ES256, ES384, ES512, EdDSA, RS256, PS256, HS256, HS384, HS512`},
		{name: "no rate", yaml: "limits: {login: {per_address: 20}}",
			want: `watchword.yaml:1: limits.login.per_address: "20" is not a rate such as 20/1m, and not off`},
		{name: "a rate of nothing", yaml: "limits: {login: {per_address: 0/1m}}",
			want: `watchword.yaml:1: limits.login.per_address: "0/1m": a rate allows 1 to 1000000; write off to count nothing`},
		{name: "a rate in no time", yaml: "limits: {login: {per_address: 5/100ms}}",
			want: `watchword.yaml:1: limits.login.per_address: "5/100ms": the time of a rate is 1s to 8784h`},
		{name: "no memory", yaml: "password: {memory: 19MB}",
			want: `watchword.yaml:1: password.memory: "19MB" is not an amount of memory such as 19MiB or 65536KiB`},
		{name: "more memory than a hash can have", yaml: "password: {memory: 4194304MiB}",
			want: `watchword.yaml:1: password.memory: "4194304MiB" is not an amount of memory such as 19MiB or 65536KiB`},
		{name: "no outage", yaml: "revocation: {on_outage: allow it}",
			want: `watchword.yaml:1: revocation.on_outage: "it" is not a duration such as 30s, 5m or 3h`},
		{name: "allow nothing", yaml: "revocation: {on_outage: allow 0s}",
			want: `watchword.yaml:1: revocation.on_outage: allow 0s allows nothing; write deny`},
		{name: "mapping for a value", yaml: "log:\n  level: {a: b}",
			want: "watchword.yaml:2: log.level: one value is expected here"},
		{name: "list for a value", yaml: "log: {level: [info]}",
			want: "watchword.yaml:1: log.level: one value is expected here"},
		{name: "mapping in a list", yaml: "tokens:\n  audience:\n  - a\n  - b: c",
			want: "watchword.yaml:4: tokens.audience: each item is one value"},
		{name: "value for a section", yaml: "server: x",
			want: "watchword.yaml:1: server: settings are expected here, each as name: value"},
		{name: "list for the file", yaml: "- server",
			want: "watchword.yaml:1: settings are expected here, each as name: value"},
		{name: "no YAML", yaml: "server: [", want: "watchword.yaml: line 1: did not find expected node content"},
		{name: "two documents", yaml: "log: {}\n---\nlog: {}",
			want: "watchword.yaml: there is a second YAML document in the file; keep one"},
		{name: "alias of nothing, which may be a password", yaml: "admin:\n  password: *secret",
			want: "watchword.yaml: an alias (*name) has no anchor (&name); quote a value that begins with *"},
		{name: "unset variable", yaml: "admin:\n  password: ${SECRET}",
			want: "watchword.yaml:2: admin.password: the variable SECRET is not set"},
		{name: "unset variable in a list", yaml: "tokens: {audience: [a, '${B}']}",
			want: "watchword.yaml:1: tokens.audience: the variable B is not set"},
		{name: "open variable", yaml: "admin: {password: '${SECRET'}", environ: []string{"SECRET=x"},
			want: "watchword.yaml:1: admin.password: ${ is not followed by a variable's name and }; write $${ for the two characters themselves"},
		{name: "no variable's name", yaml: "admin: {password: 'x${s3cr-t}'}",
			want: "watchword.yaml:1: admin.password: ${ is not followed by a variable's name and }; write $${ for the two characters themselves"},
		{name: "unknown variable", environ: []string{"WATCHWORD_SERVER_ADRESS=x"},
			want: "WATCHWORD_SERVER_ADRESS: there is no such setting; did you mean WATCHWORD_SERVER_ADDRESS?"},
		{name: "variable of the wrong type", environ: []string{"WATCHWORD_SESSIONS_TTL=1"},
			want: `WATCHWORD_SESSIONS_TTL: sessions.ttl: "1" has no unit; write 1s, 1m or 1h`},
		{name: "a port that is no service link", environ: []string{"WATCHWORD_SERVER_PORT=9090"},
			want: "WATCHWORD_SERVER_PORT: there is no such setting"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := loadText(tt.yaml, tt.environ...)
			expect(t, err, tt.want)
		})
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	_, err := loadText("server:\n  adress: x\nlog: {level: loud}", "WATCHWORD_X=1", "WATCHWORD_SESSIONS_TTL=x")
	if err == nil {
		t.Fatal("accepted")
	}
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 4 {
		t.Errorf("%d lines, want 4:\n%s", len(lines), err)
	}
}

func TestProblemsOfValidationSayWhereTheValueIs(t *testing.T) {
	_, err := loadText("\ntokens:\n  key_duration: 10m", "WATCHWORD_SERVER_ADDRESS=8080", "WATCHWORD_SERVER_PUBLIC_URL=http://a")
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"watchword.yaml:3: tokens.key_duration: a key must sign for at least as long",
		"WATCHWORD_SERVER_ADDRESS: server.address: ",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s\nhas no %q", err, want)
		}
	}
}

func TestVariablesInValues(t *testing.T) {
	c, err := loadText(`
server: {public_url: "https://${HOST}:${PORT}/x"}
admin: {username: root, password: "$${HOST}${EMPTY}$5"}
tokens: {audience: ["${HOST}", b]}
users: {init_file: "${TRICK}"}
database: &db
  max_connections: ${N}
`, "HOST=auth.example.com", "PORT=8443", "EMPTY=", "TRICK=a: [b]\n${HOST}", "N=12")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Server.PublicURL, "https://auth.example.com:8443/x"; got != want {
		t.Errorf("public_url is %q, want %q", got, want)
	}
	if got, want := c.Admin.Password, "${HOST}$5"; got != want {
		t.Errorf("password is %q, want %q", got, want)
	}
	if got, want := c.Tokens.Audience, []string{"auth.example.com", "b"}; !reflect.DeepEqual(got, want) {
		t.Errorf("audience is %q, want %q", got, want)
	}
	if got, want := c.Users.InitFile, "a: [b]\n${HOST}"; got != want { // neither YAML nor expanded again
		t.Errorf("init_file is %q, want %q", got, want)
	}
	if c.Database.MaxConnections != 12 {
		t.Errorf("max_connections is %d", c.Database.MaxConnections)
	}
}

func TestEmptySectionsAndAliases(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "server:\n", "server:\n  # address: x\n  tls:\n", "log: {level: }", "log: {level: ~}"} {
		if _, err := loadText(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	c, err := loadText("sessions: {ttl: &day 24h}\ntokens: {refresh_duration: *day}")
	if err != nil {
		t.Fatal(err)
	}
	if c.Tokens.RefreshDuration != 24*time.Hour {
		t.Errorf("refresh_duration is %s", c.Tokens.RefreshDuration)
	}
}

func TestKubernetesServiceLinksAreNotSettings(t *testing.T) {
	_, err := loadText("", "WATCHWORD_SERVICE_HOST=10.0.0.1", "WATCHWORD_SERVICE_PORT=80", "WATCHWORD_SERVICE_PORT_HTTP=80",
		"WATCHWORD_PORT=tcp://10.0.0.1:80", "WATCHWORD_PORT_80_TCP=tcp://10.0.0.1:80", "WATCHWORD_PORT_80_TCP_PROTO=tcp",
		"WATCHWORD_PORT_80_TCP_PORT=80", "WATCHWORD_PORT_80_TCP_ADDR=10.0.0.1", "WATCHWORD_HEADLESS_SERVICE_HOST=10.0.0.1",
		"WATCHWORD_HEADLESS_PORT=udp://10.0.0.1:80", "WATCHWORD_CONFIG=x.yaml", "PATH=/bin", "HOME=/")
	if err != nil {
		t.Error(err)
	}
}

func TestLoadNamesTheFileThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	_, err := Load(dir+"/none.yaml", nil)
	expect(t, err, "the configuration file "+dir+"/none.yaml cannot be read: no such file or directory")
	_, err = Load(dir, nil)
	expect(t, err, "the configuration file "+dir+" cannot be read: is a directory")
}

func TestFindFile(t *testing.T) {
	t.Chdir(t.TempDir())
	if got := FindFile("", nil); got != "" {
		t.Errorf("found %q in an empty directory", got)
	}
	if err := os.WriteFile("watchword.yaml", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	environ := []string{"WATCHWORD_CONFIG=env.yaml"}
	for _, tt := range []struct {
		flag    string
		environ []string
		want    string
	}{
		{"", nil, "watchword.yaml"},
		{"", environ, "env.yaml"},
		{"flag.yaml", environ, "flag.yaml"},
	} {
		if got := FindFile(tt.flag, tt.environ); got != tt.want {
			t.Errorf("FindFile(%q, %q) = %q, want %q", tt.flag, tt.environ, got, tt.want)
		}
	}
}

// unmasked is what Print writes, with all secrets.
func unmasked(t *testing.T, c *Config) string {
	t.Helper()
	var out strings.Builder
	if err := c.encode(&out, func(_ *Setting, text string) string { return text }); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// expect compares an error with all that it should say.
func expect(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", want)
	}
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
}

// FuzzLoad: no text makes Load panic; what it accepts can be printed and read back
// to the same configuration; what it refuses is named.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{
		"", "server: {address: ':80', tls: {}}", "tokens:\n  audience: [a, 'b c', '${V}', '$${V}']\n",
		"a: &a [*a]", "? [x]\n: y", "log: {level: !!binary aW5mbw==}", "password: {memory: 1GiB}", "server: &s\n  tls: *s\n",
		"database: {url: 'postgres://u:p@h/db?x=y'}\nstorage: {key: x}", "revocation: {on_outage: allow 1m}\n---\n", "mfa:\n  required: claims:[a, b=c]\n", "admin: {username: \"\\0\"}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := loadText(text, "V=value")
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error that says nothing")
			}
			return
		}
		printed := unmasked(t, c)
		again, err := loadText(printed, "V=other")
		if err != nil {
			t.Fatalf("what was printed is refused: %v\n%s", err, printed)
		}
		if reprinted := unmasked(t, again); reprinted != printed {
			t.Fatalf("what was printed gives\n%s\nnot\n%s", reprinted, printed)
		}
	})
}

func TestOnOutage(t *testing.T) {
	for _, text := range []string{"deny", "allow", "allow 2m"} {
		fromFile, err := loadText("revocation: {on_outage: " + text + "}")
		if err != nil {
			t.Fatal(err)
		}
		fromEnv, err := loadText("", "WATCHWORD_REVOCATION_ON_OUTAGE="+text)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []*Config{fromFile, fromEnv} {
			if got, err := c.Revocation.OnOutage.MarshalText(); string(got) != text || err != nil {
				t.Errorf("%q was read as %q, %v", text, got, err)
			}
		}
	}
}

func TestRate(t *testing.T) {
	for text, want := range map[string]string{"20/1m": "20/1m", "5/m": "5/1m", "1/90s": "1/1m30s", "off": "off"} {
		c, err := loadText("limits: {renew: {per_account: " + text + "}}")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Limits.Renew.PerAccount.MarshalText(); string(got) != want || err != nil {
			t.Errorf("%q was read as %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "/", "/1m", "5/", "5/x", "-5/1m", "5/-1m", "5/1m/1m", "OFF", "1000001/1m", "5/8785h", "99999999999999999999/1m"} {
		if _, err := loadText("", "WATCHWORD_LIMITS_RENEW_PER_ACCOUNT="+text); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}
