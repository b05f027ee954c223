package app

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// A listenerCertificate is the listener's, read again when one of its files is another, since
// certificates are renewed.
type listenerCertificate struct {
	certFile, keyFile string
	logger            *slog.Logger

	mu    sync.Mutex
	read  [2]stamp // of the files that were read last
	valid *tls.Certificate
}

// A stamp tells one file from the one that takes its place.
type stamp struct {
	modified time.Time
	size     int64
}

func newListenerCertificate(certFile, keyFile string, logger *slog.Logger) (*listenerCertificate, error) {
	c := &listenerCertificate{certFile: certFile, keyFile: keyFile, logger: logger}
	return c, c.load(c.stamps())
}

// get is for tls.Config.GetCertificate. What cannot be used, a certificate whose key
// is not there yet above all, leaves the one before in its place.
func (c *listenerCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.stamps(); now != c.read {
		if err := c.load(now); err != nil {
			c.logger.Warn("the renewed certificate cannot be used; going on with the one before", "err", err)
		}
	}
	return c.valid, nil
}

func (c *listenerCertificate) load(now [2]stamp) error {
	c.read = now // before the files, so that a later change shows
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("server.tls: %w", err)
	}
	c.valid = &cert
	return nil
}

func (c *listenerCertificate) stamps() (s [2]stamp) {
	for i, file := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(file); err == nil {
			s[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return s
}
