package graceful

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/testenv"
)

// newTLSServer starts a server with TLS that answers with h, and returns it with a client of
// HTTP/2 that trusts it.
func newTLSServer(t *testing.T, h http.Handler) (url string, client *http.Client) {
	t.Helper()
	certFile, keyFile := testenv.SelfSigned(t, "127.0.0.1")
	pem, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	server, err := Listen(Config{Address: "127.0.0.1:0", CertFile: certFile, KeyFile: keyFile, Starting: h, Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Abort() })
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return "https://" + server.Addr().String(), &http.Client{Transport: transport, Timeout: patience}
}

// A request that announces trailer fields is refused before its handler sees it, in HTTP/1.1
// and HTTP/2; the same request without them is answered.
func TestTrailersAreRefused(t *testing.T) {
	asked := 0
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked++
		_, _ = io.Copy(io.Discard, r.Body)
	})
	plain, err := Listen(Config{Address: "127.0.0.1:0", Starting: h, Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { plain.Abort() })
	secure, client := newTLSServer(t, h)
	for _, c := range []struct {
		url    string
		client *http.Client
		major  int
	}{{"http://" + plain.Addr().String(), &http.Client{Timeout: patience}, 1}, {secure, client, 2}} {
		for _, trailer := range []http.Header{nil, {"X-Late": {"1"}}} {
			asked = 0
			body := io.MultiReader(strings.NewReader("{}")) // of unknown length, as trailers need it
			r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, c.url, body)
			if err != nil {
				t.Fatal(err)
			}
			r.Trailer = trailer
			a, err := c.client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			text, _ := io.ReadAll(a.Body)
			a.Body.Close()
			if a.ProtoMajor != c.major {
				t.Fatalf("the answer is in HTTP/%d", a.ProtoMajor)
			}
			switch refused := a.StatusCode == http.StatusBadRequest && strings.Contains(string(text), `"trailers_refused"`); {
			case trailer == nil && (a.StatusCode != http.StatusOK || asked != 1):
				t.Errorf("HTTP/%d without trailers: %d %s", c.major, a.StatusCode, text)
			case trailer != nil && (!refused || asked != 0):
				t.Errorf("HTTP/%d with trailers: %d %s; the handler was asked %d times", c.major, a.StatusCode, text, asked)
			}
		}
	}
}

// Where TLS is the server's own, every answer has browsers stay with HTTPS (RFC 6797 §7.2
// forbids it on plain HTTP).
func TestStrictTransportSecurity(t *testing.T) {
	h := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	secure, client := newTLSServer(t, h)
	plain, err := Listen(Config{Address: "127.0.0.1:0", Starting: h, Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { plain.Abort() })
	for url, want := range map[string]string{secure: "max-age=31536000", "http://" + plain.Addr().String(): ""} {
		a, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		if got := a.Header.Get("Strict-Transport-Security"); got != want {
			t.Errorf("%s sends %q", url, got)
		}
	}
}
