package graceful

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/watchword-auth/watchword/internal/secretfile"
)

// A certificate is the listener's. Its files are read again when one of them has changed,
// because certificates are renewed while the process runs.
type certificate struct {
	certFile, keyFile string
	logger            *slog.Logger

	mu    sync.Mutex
	read  [2]os.FileInfo // the files that were read last; nil: there was none
	valid *tls.Certificate
}

func newCertificate(certFile, keyFile string, logger *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, logger: logger}
	return c, c.load(c.files())
}

// get is for tls.Config.GetCertificate. Files that cannot be used leave the former
// certificate in its place. That happens while a new certificate is there and its key is
// not yet.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.files(); !sameFile(now[0], c.read[0]) || !sameFile(now[1], c.read[1]) {
		if err := c.load(now); err != nil {
			c.logger.Warn("the renewed certificate cannot be used; going on with the one before", "err", err)
		}
	}
	return c.valid, nil
}

func (c *certificate) load(now [2]os.FileInfo) error {
	c.read = now // before the files, so that a later change shows
	cert, err := secretfile.KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("server.tls: %w", err)
	}
	c.valid = &cert
	return nil
}

func (c *certificate) files() (files [2]os.FileInfo) {
	for i, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			files[i] = info
		}
	}
	return files
}

// sameFile reports whether a and b are the same file with nothing written in between.
// The time alone does not tell: two files that are made one after the other may have the
// same.
func sameFile(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == b
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
