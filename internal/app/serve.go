package app

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/sqldb"
)

// Serve runs a node until ctx ends, and then drains it: no request that was
// accepted is dropped. What it says to a person goes to terminal, its log to
// standard error.
//
// It takes over what it can of the file when that changes and on SIGHUP; an empty
// name is no file.
func Serve(ctx context.Context, cfg *config.Config, file string, terminal io.Writer, version string) error {
	logger := NewLogger(cfg.Log, os.Stderr)
	hangup := make(chan os.Signal, 1) // one that comes during the start must not end it
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	d, err := openDoor(cfg, logger)
	if err != nil {
		return err
	}
	node, err := New(ctx, Options{Config: cfg, Logger: logger, Version: version, Terminal: terminal, Listener: d.gate.Addr()})
	if ctx.Err() != nil && err != nil {
		logger.Info("stopped before it was ready")
		return d.slam()
	}
	if err != nil {
		return errors.Join(err, d.slam())
	}
	d.front.open(node.Handler())
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	go watch(watching, file, hangup, logger, func() {
		next, err := config.Load(file, os.Environ())
		if err != nil {
			logger.Error("the configuration cannot be used; going on with the one before", "err", err)
			return
		}
		node.Reload(next)
	})
	if err := node.WaitReady(ctx); err != nil && ctx.Err() == nil {
		return errors.Join(err, d.slam(), node.Close())
	}
	if ctx.Err() == nil {
		// The first administrator's hash took memory that is not needed again.
		debug.FreeOSMemory()
		logger.Info("ready", "address", d.gate.Addr().String(), "public_url", cfg.Server.PublicURL, "version", version)
		welcome(terminal, cfg)
	}

	select {
	case err := <-d.served:
		return errors.Join(fmt.Errorf("server: %w", err), node.Close())
	case <-ctx.Done():
	}
	logger.Info("draining", "delay", cfg.Server.DrainDelay)
	node.Drain()
	d.front.drain()
	time.Sleep(cfg.Server.DrainDelay)
	if err := errors.Join(d.close(ctx), node.Close()); err != nil {
		return err
	}
	logger.Info("stopped")
	return nil
}

// listen opens the port, or says in one sentence why not.
func listen(cfg *config.Config, logger *slog.Logger) (*gate, error) {
	s := cfg.Server
	var plain net.ListenConfig
	plain.SetMultipathTCP(false) // Linux has no filter for its sockets; see refuse
	l, err := plain.Listen(context.Background(), "tcp", s.Address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("server.address: %s is in use by another program; stop that one or choose another address (WATCHWORD_SERVER_ADDRESS)", s.Address)
	}
	if err != nil {
		return nil, fmt.Errorf("server.address: %w", err)
	}
	g := newGate(l.(*net.TCPListener)) // as it is for "tcp"
	if s.TLS.CertFile == "" {
		return g, nil
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
	g.Listener = tls.NewListener(g.Listener, t)
	return g, nil
}

// NewLogger makes the node's log.
func NewLogger(c config.Log, out *os.File) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // config has checked it
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: readable}
	if c.Format == "text" || c.Format == "auto" && term.IsTerminal(int(out.Fd())) {
		return slog.New(slog.NewTextHandler(out, options))
	}
	return slog.New(slog.NewJSONHandler(out, options))
}

// readable writes a duration as "10s" in JSON too, not in nanoseconds.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// welcome says where the node is and what to try.
func welcome(terminal io.Writer, cfg *config.Config) {
	fmt.Fprintf(terminal, `Watchword serves on %[1]s
its database is %[2]s

Try, in another terminal (PASSWORD is the administrator's):

  curl -s %[1]s/api/pkeys
  TOKEN=$(curl -s %[1]s/api/login -d '{"username":"%[3]s","password":"PASSWORD"}' | grep -o 'eyJ[^"]*')
  curl -s %[1]s/api/verify -H "Authorization: Bearer $TOKEN"

Ctrl-C stops it.
`, cfg.Server.PublicURL, maskURL(cfg.Database.URL), forShell(cmp.Or(cfg.Admin.Username, firstAdministrator)))
}

// forShell is a text as it stands in JSON between the quotes of a shell.
func forShell(s string) string {
	b, _ := json.Marshal(s) // a string always can be
	return strings.ReplaceAll(string(b[1:len(b)-1]), "'", `'\''`)
}

// maskURL leaves out what follows the scheme of a database that needs a password.
func maskURL(url string) string {
	if file, ok := sqldb.SQLiteFile(url); ok {
		return file
	}
	scheme, _, _ := strings.Cut(url, ":")
	return scheme
}
