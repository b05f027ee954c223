package graceful

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/watchword-auth/watchword/internal/testenv"
)

var discard = slog.New(slog.DiscardHandler)

// patience bounds what a test waits for an event.
const patience = time.Minute

// Old versions of TLS are refused, HTTP/2 is offered, and a file that cannot be used names
// its setting.
func TestTLS(t *testing.T) {
	certFile, keyFile := testenv.SelfSigned(t, "127.0.0.1")
	pem, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	server, err := Listen(Config{Address: "127.0.0.1:0", CertFile: certFile, KeyFile: keyFile, Starting: http.NotFoundHandler(), Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Abort() })
	for _, c := range []struct {
		version uint16
		works   bool
	}{{tls.VersionTLS10, false}, {tls.VersionTLS11, false}, {tls.VersionTLS12, true}, {tls.VersionTLS13, true}} {
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", server.Addr().String(),
			&tls.Config{RootCAs: roots, MinVersion: c.version, MaxVersion: c.version, NextProtos: []string{"h2"}})
		if (err == nil) != c.works {
			t.Errorf("%s: %v", tls.VersionName(c.version), err)
		}
		if err == nil {
			if got := conn.ConnectionState().NegotiatedProtocol; got != "h2" {
				t.Errorf("%s speaks %q", tls.VersionName(c.version), got)
			}
			if got := streamsOf(t, conn); got != maxStreams {
				t.Errorf("%s: %d streams a connection", tls.VersionName(c.version), got)
			}
			conn.Close()
		}
	}
	if _, err := Listen(Config{Address: "127.0.0.1:0", CertFile: certFile, KeyFile: certFile, Logger: discard}); err == nil || !strings.HasPrefix(err.Error(), "server.tls: ") {
		t.Errorf("a certificate in place of a key: %v", err)
	}
}

// A renewed certificate is shown without a restart, and half of one is not.
func TestTLSCertificateIsRenewed(t *testing.T) {
	certFile, keyFile := testenv.SelfSigned(t, "127.0.0.1")
	newCert, newKey := testenv.SelfSigned(t, "127.0.0.1")
	server, err := Listen(Config{Address: "127.0.0.1:0", CertFile: certFile, KeyFile: keyFile, Starting: http.NotFoundHandler(), Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Abort() })
	shown := func() string {
		t.Helper()
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", server.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return string(conn.ConnectionState().PeerCertificates[0].Raw)
	}
	before := shown()
	if err := os.Rename(newCert, certFile); err != nil {
		t.Fatal(err)
	}
	if shown() != before {
		t.Error("a certificate is shown whose key is not there yet")
	}
	if err := os.Rename(newKey, keyFile); err != nil {
		t.Fatal(err)
	}
	after := shown()
	if after == before {
		t.Error("the old one is shown")
	}
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	if shown() != after {
		t.Error("without a file, the one before is not shown")
	}
}

// streamsOf returns how many streams a server of HTTP/2 allows on a connection, by the
// settings that it sends first (RFC 9113 §6.5.2).
func streamsOf(t *testing.T, conn *tls.Conn) uint32 {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(patience))
	f, err := http2.NewFramer(conn, conn).ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	settings, ok := f.(*http2.SettingsFrame)
	if !ok {
		t.Fatalf("the server begins with %v", f)
	}
	n, _ := settings.Value(http2.SettingMaxConcurrentStreams)
	return n
}
