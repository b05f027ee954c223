package doctor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/store"
)

// A paper is a certificate and its key in files, as a test wants them.
type paper struct {
	names       []string
	from, until time.Time // zero: an hour ago, in a year
	usage       x509.ExtKeyUsage
	by          *authority
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority"}, NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(1000 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, inFile(t, "ca.pem", "CERTIFICATE", der)}
}

func inFile(t *testing.T, name, kind string, der []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func (p paper) files(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "a replica"}, DNSNames: p.names,
		NotBefore: p.from, NotAfter: p.until, ExtKeyUsage: []x509.ExtKeyUsage{p.usage},
	}
	if p.from.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if p.until.IsZero() {
		template.NotAfter = time.Now().Add(365 * 24 * time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, p.by.cert, k.Public(), p.by.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return inFile(t, "cert.pem", "CERTIFICATE", der), inFile(t, "key.pem", "PRIVATE KEY", private)
}

// TestSettingChecks plants one fault after the other into settings of which nothing is wrong, and
// sees it found, and nothing else.
func TestSettingChecks(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	const advertised = "auth-0.example.com"
	serving, servingKey := paper{names: []string{advertised}, usage: x509.ExtKeyUsageServerAuth, by: ca}.files(t)
	asking, askingKey := paper{usage: x509.ExtKeyUsageClientAuth, by: ca}.files(t)
	inCluster := func() *Deployment {
		c := config.Default()
		c.Server.Address, c.Server.PublicURL = ":8443", "https://auth.example.com"
		c.Server.TrustedProxies, c.Server.ForwardedHeader, c.Server.DrainDelay = []string{"10.0.0.0/8"}, config.ForwardedFor, 5*time.Second
		c.Server.TLS = config.TLS{CertFile: serving, KeyFile: servingKey}
		c.Database.URL = "postgres://watchword:secret@db-0,db-1/watchword?target_session_attrs=read-write"
		c.Cluster.Enabled, c.Cluster.Secret, c.Cluster.AdvertiseURL = true, "N3TzGgXH0zZbwjYpB1b6rYzq8s0m5o2T", "https://"+advertised+":8443"
		c.Cluster.CAFile, c.Cluster.CertFile, c.Cluster.KeyFile = ca.file, asking, askingKey
		c.Tokens.Keys, c.Storage.Key = config.KeysDatabase, "bXlzdG9yYWdla2V5MTIzNDU2Nzg5MDEyMzQ1Njc4OTA="
		c.Redis.URL = "redis://cache:6379"
		return &Deployment{Config: c, Now: time.Now}
	}
	alone := func() *Deployment {
		c := config.Default()
		c.Database.URL = "sqlite:" + filepath.Join(t.TempDir(), "watchword.db")
		return &Deployment{Config: c, Now: time.Now}
	}
	run := func(t *testing.T, d *Deployment) (found []string) {
		t.Helper()
		d.Config.Complete()
		if err := d.Config.Validate(); err != nil {
			t.Fatal(err)
		}
		for _, r := range Run(t.Context(), d, settingChecks) {
			switch r.Status {
			case Unknown:
				t.Errorf("%s: %s", r.ID, r.Reason)
			case Failed:
				found = append(found, r.ID)
				for _, f := range r.Findings {
					if f.Seen == "" || f.Mend == "" || strings.HasSuffix(f.Seen, ".") {
						t.Errorf("%s: %+v", r.ID, f)
					}
					if strings.Contains(f.Seen+f.Mend+f.Subject, d.Config.Cluster.Secret) && d.Config.Cluster.Secret != "" {
						t.Errorf("%s shows the secret", r.ID)
					}
				}
			}
		}
		return found
	}
	for name, d := range map[string]*Deployment{"a cluster": inCluster(), "one replica": alone()} {
		if found := run(t, d); len(found) > 0 {
			t.Errorf("%s, of which nothing is wrong: %v", name, found)
		}
	}
	replaced := func(c *config.Config, p paper) {
		c.Server.TLS.CertFile, c.Server.TLS.KeyFile = p.files(t)
	}
	day := 24 * time.Hour
	planted := map[string]bool{}
	for _, fault := range []struct {
		name string
		want []string // the ids of what is found
		in   func(c *config.Config, d *Deployment)
	}{
		{"a certificate that is not there", []string{"tls-certificate"}, func(c *config.Config, _ *Deployment) { c.Server.TLS.CertFile = "/nowhere" }},
		{"the key of another certificate", []string{"tls-certificate"}, func(c *config.Config, _ *Deployment) { c.Server.TLS.KeyFile = askingKey }},
		{"a certificate that ended", []string{"tls-certificate"}, func(c *config.Config, _ *Deployment) {
			replaced(c, paper{names: []string{advertised}, from: time.Now().Add(-30 * day), until: time.Now().Add(-day), usage: x509.ExtKeyUsageServerAuth, by: ca})
		}},
		{"a certificate of tomorrow", []string{"tls-certificate"}, func(c *config.Config, _ *Deployment) {
			replaced(c, paper{names: []string{advertised}, from: time.Now().Add(day), usage: x509.ExtKeyUsageServerAuth, by: ca})
		}},
		{"a certificate that ends soon", []string{"tls-expiry"}, func(c *config.Config, _ *Deployment) {
			replaced(c, paper{names: []string{advertised}, from: time.Now().Add(-70 * day), until: time.Now().Add(20 * day), usage: x509.ExtKeyUsageServerAuth, by: ca})
		}},
		{"a certificate of a short life, of which most is left", nil, func(c *config.Config, _ *Deployment) {
			replaced(c, paper{names: []string{advertised}, until: time.Now().Add(day), usage: x509.ExtKeyUsageServerAuth, by: ca})
		}},
		{"a certificate of a short life that ends soon", []string{"tls-expiry"}, func(c *config.Config, _ *Deployment) {
			replaced(c, paper{names: []string{advertised}, from: time.Now().Add(-20 * time.Hour), until: time.Now().Add(4 * time.Hour), usage: x509.ExtKeyUsageServerAuth, by: ca})
		}},
		{"a certificate for another name", []string{"tls-peers"}, func(c *config.Config, _ *Deployment) {
			replaced(c, paper{names: []string{"auth.example.com"}, usage: x509.ExtKeyUsageServerAuth, by: ca})
		}},
		{"a certificate of another authority", []string{"tls-peers"}, func(c *config.Config, _ *Deployment) {
			replaced(c, paper{names: []string{advertised}, usage: x509.ExtKeyUsageServerAuth, by: other})
		}},
		{"a certificate for servers alone, shown to replicas", []string{"tls-peers"}, func(c *config.Config, _ *Deployment) {
			c.Cluster.CertFile, c.Cluster.KeyFile = serving, servingKey
		}},
		{"no authorities", []string{"tls-peers"}, func(c *config.Config, _ *Deployment) { c.Cluster.CAFile = servingKey }},
		{"http", []string{"public-url-https", "public-url-cookies"}, func(c *config.Config, _ *Deployment) { c.Server.PublicURL = "http://auth.example.com" }},
		{"a path, with pages", []string{"public-url-cookies"}, func(c *config.Config, _ *Deployment) { c.Server.PublicURL = "https://example.com/auth" }},
		{"a public URL on this machine", []string{"public-url-local"}, func(c *config.Config, _ *Deployment) { c.Server.PublicURL = "http://localhost:8080" }},
		{"the same, as the registry shows", []string{"public-url-local", "advertise-url"}, func(c *config.Config, d *Deployment) {
			c.Server.PublicURL, c.Cluster.AdvertiseURL = "http://127.0.0.1:8080", "http://127.0.0.1:8080"
			d.Cluster = &cluster.Status{Replicas: []cluster.ReplicaStatus{{Standing: cluster.Live, Replica: store.Replica{URL: "http://auth-1:8080"}}}}
		}},
		{"all on one machine", nil, func(c *config.Config, d *Deployment) {
			c.Server.PublicURL, c.Cluster.AdvertiseURL = "http://127.0.0.1:8080", "http://127.0.0.1:8080"
		}},
		{"another issuer", []string{"issuer-url"}, func(c *config.Config, _ *Deployment) { c.Tokens.Issuer = "https://id.example.com" }},
		{"an issuer that is no URL", nil, func(c *config.Config, _ *Deployment) { c.Tokens.Issuer = "watchword" }},
		{"nowhere to be asked", []string{"advertise-url"}, func(c *config.Config, _ *Deployment) { c.Cluster.AdvertiseURL = "" }},
		{"a listener on this machine alone", []string{"listen-address"}, func(c *config.Config, _ *Deployment) { c.Server.Address = "127.0.0.1:8443" }},
		{"no proxies", []string{"proxies-named"}, func(c *config.Config, _ *Deployment) { c.Server.TrustedProxies = nil }},
		{"all are proxies", []string{"proxies-everybody"}, func(c *config.Config, _ *Deployment) { c.Server.TrustedProxies = []string{"10.0.0.1", "::/0"} }},
		{"half of all are proxies", []string{"proxies-everybody"}, func(c *config.Config, _ *Deployment) {
			c.Server.TrustedProxies = []string{"0.0.0.0/1", "128.0.0.0/1"}
		}},
		{"any header", []string{"proxies-header"}, func(c *config.Config, _ *Deployment) { c.Server.ForwardedHeader = config.ForwardedAuto }},
		{"no drain", []string{"drain-delay"}, func(c *config.Config, _ *Deployment) { c.Server.DrainDelay = 0 }},
		{"long tokens", []string{"token-life"}, func(c *config.Config, _ *Deployment) { c.Tokens.TokenDuration = 61 * time.Minute }},
		{"tokens as long as keys", []string{"key-life", "token-life"}, func(c *config.Config, _ *Deployment) { c.Tokens.TokenDuration = 3 * time.Hour }},
		{"keys for ever", []string{"key-life"}, func(c *config.Config, _ *Deployment) { c.Tokens.KeyDuration = 91 * day }},
		{"keys published shortly before they sign", []string{"key-publish-ahead"}, func(c *config.Config, _ *Deployment) { c.Tokens.KeyPublishAhead = 19 * time.Minute }},
		{"keys too short for that", []string{"key-publish-ahead", "key-life"}, func(c *config.Config, _ *Deployment) { c.Tokens.KeyDuration = 39 * time.Minute }},
		{"keys in memory", []string{"key-memory"}, func(c *config.Config, _ *Deployment) { c.Tokens.Keys = config.KeysMemory }},
		{"ES512", []string{"algorithm-common"}, func(c *config.Config, _ *Deployment) { c.Tokens.Algorithm = "ES512" }},
		{"EdDSA first", []string{"algorithm-common"}, func(c *config.Config, _ *Deployment) {
			c.Tokens.Algorithms = []string{"EdDSA", "ES256"}
		}},
		{"EdDSA second", nil, func(c *config.Config, _ *Deployment) { c.Tokens.Algorithms = []string{"ES256", "EdDSA"} }},
		{"HMACs", []string{"algorithm-common"}, func(c *config.Config, _ *Deployment) {
			c.Tokens.Keys, c.Tokens.Secret = config.KeysSecret, "u8Qm2xW4e7Rt9yP1a3Sd5fG6hJ8kL0zX"
		}},
		{"a secret that signs nothing", []string{"signing-settings"}, func(c *config.Config, _ *Deployment) { c.Tokens.Secret = "u8Qm2xW4e7Rt9yP1a3Sd5fG6hJ8kL0zX" }},
		{"one secret for two things", []string{"secrets-apart"}, func(c *config.Config, _ *Deployment) { c.Cluster.Secret = c.Storage.Key }},
		{"a secret that can be guessed", []string{"secrets-apart"}, func(c *config.Config, _ *Deployment) { c.Cluster.Secret = strings.Repeat("abc", 20) }},
		{"no storage key", []string{"storage-key"}, func(c *config.Config, _ *Deployment) {
			c.Storage.Key, c.Tokens.Keys, c.Tokens.Secret = "", config.KeysSecret, "u8Qm2xW4e7Rt9yP1a3Sd5fG6hJ8kL0zX"
		}},
		{"outage allows", []string{"revocation-outage"}, func(c *config.Config, _ *Deployment) { c.Revocation.OnOutage.Allow = true }},
		{"a long bound", []string{"revocation-bound"}, func(c *config.Config, _ *Deployment) { c.Revocation.MaxStaleness = time.Minute }},
		{"no limit", []string{"limits-on"}, func(c *config.Config, _ *Deployment) { c.Limits.Login.PerAccount = config.Rate{} }},
		{"no lockout", []string{"limits-on"}, func(c *config.Config, _ *Deployment) { c.Limits.Lockout.After = 0 }},
		{"local limits", []string{"limits-outage"}, func(c *config.Config, _ *Deployment) { c.Limits.OnOutage = config.LimitsLocal }},
		{"no second factors", []string{"mfa-required"}, func(c *config.Config, _ *Deployment) { c.MFA.Required.Mode = config.RequiredNever }},
		{"cheap hashes", []string{"password-cost"}, func(c *config.Config, _ *Deployment) { c.Password.Memory = 4 << 10 }},
		{"Redis for nothing", []string{"state-redis-unused"}, func(c *config.Config, _ *Deployment) { c.State.Backend = config.StateSQL }},
		{"no target_session_attrs", []string{"database-failover"}, func(c *config.Config, _ *Deployment) {
			c.Database.URL = "postgres://watchword:secret@db-0,db-1/watchword"
		}},
		{"a standby will do", []string{"database-failover"}, func(c *config.Config, _ *Deployment) {
			c.Database.URL = "postgres:///watchword?host=db-0,db-1&target_session_attrs=prefer-standby"
		}},
		{"one server", nil, func(c *config.Config, _ *Deployment) { c.Database.URL = "postgres://watchword:secret@db/watchword" }},
	} {
		t.Run(fault.name, func(t *testing.T) {
			d := inCluster()
			fault.in(d.Config, d)
			found := run(t, d)
			// A fault may be one of algorithms or keys as well; those are planted alone elsewhere.
			if fault.name == "no storage key" {
				found = slices.DeleteFunc(found, func(id string) bool { return id == "algorithm-common" })
			}
			slices.Sort(found)
			want := slices.Sorted(slices.Values(fault.want))
			if !slices.Equal(found, want) {
				t.Errorf("found %v, want %v", found, want)
			}
			for _, id := range fault.want {
				planted[id] = true
			}
		})
	}
	t.Run("one replica", func(t *testing.T) {
		d := alone()
		if err := os.WriteFile(AdminPasswordFile(d.Config), []byte("x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if found := run(t, d); !slices.Equal(found, []string{"admin-password-file"}) {
			t.Errorf("found %v", found)
		}
		d = alone()
		d.Config.State.Backend = config.StateMemory
		if found := run(t, d); !slices.Equal(found, []string{"state-memory"}) {
			t.Errorf("found %v", found)
		}
		planted["admin-password-file"], planted["state-memory"] = true, true
	})
	for _, c := range settingChecks {
		if !planted[c.ID] {
			t.Errorf("no fault was planted for %s", c.ID)
		}
	}
}
