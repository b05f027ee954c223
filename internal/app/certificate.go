package app

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
)

// A listenerCertificate is the listener's, read again when one of its files is another, since
// certificates are renewed.
type listenerCertificate struct {
	certFile, keyFile string
	logger            *slog.Logger

	mu    sync.Mutex
	read  [2]os.FileInfo // the files that were read last; nil: there was none
	valid *tls.Certificate
}

func newListenerCertificate(certFile, keyFile string, logger *slog.Logger) (*listenerCertificate, error) {
	c := &listenerCertificate{certFile: certFile, keyFile: keyFile, logger: logger}
	return c, c.load(c.files())
}

// get is for tls.Config.GetCertificate. What cannot be used, a certificate whose key
// is not there yet above all, leaves the one before in its place.
func (c *listenerCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.files(); !sameFile(now[0], c.read[0]) || !sameFile(now[1], c.read[1]) {
		if err := c.load(now); err != nil {
			c.logger.Warn("the renewed certificate cannot be used; going on with the one before", "err", err)
		}
	}
	return c.valid, nil
}

func (c *listenerCertificate) load(now [2]os.FileInfo) error {
	c.read = now // before the files, so that a later change shows
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("server.tls: %w", err)
	}
	c.valid = &cert
	return nil
}

func (c *listenerCertificate) files() (files [2]os.FileInfo) {
	for i, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			files[i] = info
		}
	}
	return files
}

// sameFile says whether a file is the one that it was and has not been written since.
// Its time alone does not say so: two files that are made one after the other may
// have the same.
func sameFile(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == b
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
