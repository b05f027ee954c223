package passkey

import (
	"strings"
	"testing"
)

func TestConfig(t *testing.T) {
	for _, c := range []struct{ id, origins, wrong string }{
		{"example.com", "https://example.com", ""},
		{"example.com", "https://login.example.com https://example.com:8443 https://LOGIN.example.com", ""},
		{"localhost", "http://localhost:8080 https://localhost http://a.localhost", ""},
		{"xn--bcher-kva.example", "https://xn--bcher-kva.example", ""},
		{"", "https://example.com", "relying party id"},
		{"Example.com", "https://example.com", "lower case"},
		{"bücher.example", "https://bücher.example", "relying party id"},
		{"https://example.com", "https://example.com", "relying party id"},
		{"example.com:443", "https://example.com", "relying party id"},
		{"example.com/", "https://example.com", "relying party id"},
		{"intranet", "https://intranet", "domain name"},
		{"127.0.0.1", "http://127.0.0.1", "domain name"},
		{"::1", "http://[::1]", "domain name"},
		{"example.com", "", "no origin"},
		{"example.com", "example.com", "of the form"},
		{"example.com", "https://", "of the form"},
		{"example.com", "https://:443", "of the form"},
		{"example.com", "ftp://example.com", "of the form"},
		{"example.com", "null", "of the form"},
		{"example.com", "*", "of the form"},
		{"example.com", "https://example.com:x", "of the form"},
		{"example.com", "https://example.com/", "must end after"},
		{"example.com", "https://example.com/login", "must end after"},
		{"example.com", "https://example.com?", "must end after"},
		{"example.com", "https://example.com#", "must end after"},
		{"example.com", "https://example.com:", "must end after"},
		{"example.com", "https://user@example.com", "must end after"},
		{"example.com", "https://example.org", "does not belong"},
		{"example.com", "https://badexample.com", "does not belong"},
		{"example.com", "https://example.com.evil.org", "does not belong"},
		{"login.example.com", "https://example.com", "does not belong"},
		{"example.com", "http://example.com", "must be https"},
		{"example.com", "https://example.com http://example.com", "must be https"},
	} {
		_, err := New(Config{ID: c.id, Name: "Example", Origins: strings.Fields(c.origins)})
		if c.wrong == "" && err != nil || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("%q with %q: %v, want %q", c.id, c.origins, err, c.wrong)
		}
	}
	if _, err := New(Config{ID: "example.com", Origins: []string{"https://example.com"}}); err == nil {
		t.Error("a service without a name is accepted")
	}
}
