package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/sqldb"
)

// Bounds on how long a client may take, so that slow ones hold nothing up. The
// feed's streams set their own.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 32 << 10
	// maxStreams is how many requests a connection of HTTP/2 may have under way:
	// enough for a browser or a proxy, which open another one for more, and few enough
	// that connections, which the system counts, stay the measure of what is held.
	maxStreams = 32
	// shutdownTimeout is how long requests that are under way may take to end
	// after the listener has closed.
	shutdownTimeout = 30 * time.Second
)

// Serve runs a node until ctx ends, and then drains it: no request that was
// accepted is dropped. What it says to a person goes to terminal, its log to
// standard error.
//
// It takes over what it can of the file when that changes and on SIGHUP; an empty
// name is no file.
func Serve(ctx context.Context, cfg *config.Config, file string, terminal io.Writer, version string) error {
	logger := NewLogger(cfg.Log, os.Stderr)
	listener, err := listen(cfg, logger)
	if err != nil {
		return err
	}
	defer listener.Close()

	front := newFront()
	server := newServer(front, logger)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	node, err := New(ctx, Options{Config: cfg, Logger: logger, Version: version, Terminal: terminal})
	if err != nil {
		return errors.Join(err, server.Close())
	}
	front.open(node.Handler())
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	go watch(watching, file, logger, func() {
		next, err := config.Load(file, os.Environ())
		if err != nil {
			logger.Error("the configuration cannot be used; going on with the one before", "err", err)
			return
		}
		node.Reload(next)
	})
	if err := node.WaitReady(ctx); err != nil && ctx.Err() == nil {
		return errors.Join(err, server.Close(), node.Close())
	}
	if ctx.Err() == nil {
		// The first administrator's hash took memory that is not needed again.
		debug.FreeOSMemory()
		logger.Info("ready", "address", listener.Addr().String(), "public_url", cfg.Server.PublicURL, "version", version)
		welcome(terminal, cfg)
	}

	select {
	case err := <-served:
		return errors.Join(fmt.Errorf("server: %w", err), node.Close())
	case <-ctx.Done():
	}
	logger.Info("draining", "delay", cfg.Server.DrainDelay)
	node.Drain()
	time.Sleep(cfg.Server.DrainDelay)
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	err = server.Shutdown(deadline)
	if err != nil {
		err = fmt.Errorf("some requests did not end within %v: %w", shutdownTimeout, err)
	}
	if err := errors.Join(err, node.Close()); err != nil {
		return err
	}
	logger.Info("stopped")
	return nil
}

// newServer makes the server, with its bounds.
func newServer(h http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

// listen opens the port, or says in one sentence why not.
func listen(cfg *config.Config, logger *slog.Logger) (net.Listener, error) {
	s := cfg.Server
	l, err := net.Listen("tcp", s.Address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("server.address: %s is in use by another program; stop that one or choose another address (WATCHWORD_SERVER_ADDRESS)", s.Address)
	}
	if err != nil {
		return nil, fmt.Errorf("server.address: %w", err)
	}
	if s.TLS.CertFile == "" {
		return l, nil
	}
	cert, err := newListenerCertificate(s.TLS.CertFile, s.TLS.KeyFile, logger)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	t := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: cert.get,
	}
	if cfg.Cluster.Enabled && cfg.Cluster.CertFile != "" {
		// Clients need none; replicas that ask do (httpapi.KeySets).
		t.ClientAuth = tls.VerifyClientCertIfGiven
		if t.ClientCAs, err = peerRoots(cfg.Cluster.CAFile); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	return tls.NewListener(l, t), nil
}

// NewLogger makes the node's log.
func NewLogger(c config.Log, out *os.File) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // config has checked it
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "text" || c.Format == "auto" && term.IsTerminal(int(out.Fd())) {
		return slog.New(slog.NewTextHandler(out, options))
	}
	return slog.New(slog.NewJSONHandler(out, options))
}

// welcome says where the node is and what to try.
func welcome(terminal io.Writer, cfg *config.Config) {
	fmt.Fprintf(terminal, `Watchword serves on %[1]s
its database is %[2]s

Try, in another terminal (PASSWORD is the administrator's):

  curl -s %[1]s/api/pkeys
  TOKEN=$(curl -s %[1]s/api/login -d '{"username":"admin","password":"PASSWORD"}' | grep -o 'eyJ[^"]*')
  curl -s %[1]s/api/verify -H "Authorization: Bearer $TOKEN"

Ctrl-C stops it.
`, cfg.Server.PublicURL, maskURL(cfg.Database.URL))
}

// maskURL leaves out what follows the scheme of a database that needs a password.
func maskURL(url string) string {
	if file, ok := sqldb.SQLiteFile(url); ok {
		return file
	}
	scheme, _, _ := strings.Cut(url, ":")
	return scheme
}
