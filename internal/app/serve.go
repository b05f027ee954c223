package app

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/graceful"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/operator"
	pw "github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/sqldb"
)

// Serve runs a replica until ctx ends, and then drains it without dropping a request. Text
// for people goes to terminal, the log to standard error.
//
// It takes over changes of the file, and of the files of secrets, when they change and on
// SIGHUP (Node.Reload); an empty name means that there is no file.
func Serve(ctx context.Context, cfg *config.Config, file string, terminal io.Writer, version string) error {
	logger, level := leveledLogger(cfg.Log, os.Stderr)
	hangup := make(chan os.Signal, 1) // one that comes during the start must not end it
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	var debugFailed <-chan error // never, without a listener
	if cfg.Debug.Address != "" {
		local, err := listenDebug(cfg.Debug.Address, level, logger)
		if err != nil {
			return err
		}
		defer local.Abort()
		debugFailed = local.Failed()
	}
	server, err := listen(cfg, startingHandler(cfg.Server.CORSOrigins), logger)
	if err != nil {
		return err
	}
	var metrics *graceful.Server // nil: on the same port
	var metricsFailed <-chan error
	if cfg.Server.MetricsAddress != "" {
		metrics, err = graceful.Listen(graceful.Config{
			Setting: "server.metrics_address", Address: cfg.Server.MetricsAddress, Starting: startingHandler(nil), Logger: logger,
		})
		if err != nil {
			return errors.Join(err, server.Abort())
		}
		defer metrics.Abort() // a scrape need not be answered to its end
		metricsFailed = metrics.Failed()
	}
	secrets := config.SecretFiles(os.Environ())
	node, err := New(ctx, Options{
		Config: cfg, Logger: logger, Version: version, Terminal: terminal, Listener: server.Addr(),
		MetricsApart: metrics != nil, SecretFiles: secrets, Level: level,
	})
	if ctx.Err() != nil && err != nil {
		logger.Info("stopped before it was ready")
		return server.Abort()
	}
	if err != nil {
		return errors.Join(err, server.Abort())
	}
	if metrics != nil { // first, so that a replica that is ready has its metrics
		metrics.Open(node.Metrics())
	}
	// A hash keeps one of the Go scheduler's processors for milliseconds, and while none is
	// free nobody looks for new requests. If there may be as many hashes at once as processors,
	// one more lets the kernel divide the CPUs, and a request interrupts a hash.
	if workers := pw.Workers(cfg.Password.Workers); workers >= runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(workers + 1)
	}
	server.Open(node.Handler())
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	files := slices.Sorted(maps.Values(secrets))
	if file != "" {
		files = append(files, file)
	}
	go watch(watching, files, hangup, logger, reread(file, os.Environ(), logger, node.Reload))
	if err := node.WaitReady(ctx); err != nil && ctx.Err() == nil {
		return errors.Join(err, server.Abort(), node.Close())
	}
	if ctx.Err() == nil {
		// The first administrator's hash took memory that is not needed again.
		debug.FreeOSMemory()
		logger.Info("ready", "address", server.Addr().String(), "public_url", cfg.Server.PublicURL, "version", version)
		welcome(terminal, cfg)
	}

	select {
	case err := <-server.Failed():
		return errors.Join(fmt.Errorf("server: %w", err), node.Close())
	case err := <-metricsFailed:
		return errors.Join(fmt.Errorf("server.metrics_address: %w", err), server.Abort(), node.Close())
	case err := <-debugFailed:
		return errors.Join(fmt.Errorf("debug.address: %w", err), server.Abort(), node.Close())
	case <-ctx.Done():
	}
	logger.Info("draining", "delay", cfg.Server.DrainDelay)
	node.Drain()
	server.Drain()
	time.Sleep(cfg.Server.DrainDelay)
	if err := errors.Join(server.Close(ctx), node.Close()); err != nil {
		return err
	}
	logger.Info("stopped")
	return nil
}

// reread returns what loads the configuration again. What cannot be used is logged, and
// nothing of it is taken over.
func reread(file string, environ []string, logger *slog.Logger, take func(next *config.Config)) func() {
	return func() {
		next, err := config.Load(file, environ)
		if err != nil {
			logger.Error("the configuration cannot be used; going on with the one before", "err", err)
			return
		}
		take(next)
	}
}

// listen opens the replica's port.
func listen(cfg *config.Config, starting http.Handler, logger *slog.Logger) (*graceful.Server, error) {
	c := graceful.Config{
		Setting: "server.address", Address: cfg.Server.Address, CertFile: cfg.Server.TLS.CertFile, KeyFile: cfg.Server.TLS.KeyFile,
		Starting: starting, Logger: logger,
	}
	if cfg.Cluster.Enabled && cfg.Cluster.CertFile != "" {
		// Clients need no certificate; replicas that ask each other do (httpapi.KeySets).
		roots, err := operator.Certificates("cluster.ca_file", cfg.Cluster.CAFile)
		if err != nil {
			return nil, err
		}
		c.VerifyClients, c.ClientCAs = true, roots
	}
	return graceful.Listen(c)
}

// NewLogger returns the logger of a replica or of a command.
func NewLogger(c config.Log, out *os.File) *slog.Logger {
	logger, _ := leveledLogger(c, out)
	return logger
}

// leveledLogger is NewLogger with the level, which may change.
func leveledLogger(c config.Log, out *os.File) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	to, _ := levelOf(c.Level) // config has checked it
	level.Set(to)
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: readable}
	if c.Format == config.LogText || c.Format == config.LogAuto && term.IsTerminal(int(out.Fd())) {
		return slog.New(slog.NewTextHandler(out, options)), level
	}
	return slog.New(slog.NewJSONHandler(out, options)), level
}

// readable writes a duration as "10s" in JSON too, not in nanoseconds, and a moment as the
// API does.
func readable(_ []string, a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindDuration:
		a.Value = slog.StringValue(a.Value.Duration().String())
	case slog.KindTime:
		a.Value = slog.StringValue(a.Value.Time().UTC().Format(httpkit.TimeFormat))
	}
	return a
}

// welcome tells a person where the replica serves and what to try.
func welcome(terminal io.Writer, cfg *config.Config) {
	pages := ""
	if cfg.Pages.Enabled {
		pages = fmt.Sprintf("\nSign in with a browser: %s/admin\n", cfg.Server.PublicURL)
	}
	fmt.Fprintf(terminal, `Watchword serves on %[1]s
its database is %[2]s
%[4]s
Try, in another terminal (PASSWORD is the administrator's):

  curl -s %[1]s/api/pkeys
  TOKEN=$(curl -s %[1]s/api/login -d '{"username":"%[3]s","password":"PASSWORD"}' | grep -o 'eyJ[^"]*')
  curl -s %[1]s/api/verify -H "Authorization: Bearer $TOKEN"

Ctrl-C stops it.
`, cfg.Server.PublicURL, databaseName(cfg.Database.URL), forShell(cmp.Or(cfg.Admin.Username, firstAdministrator)), pages)
}

// forShell is a text as it stands in JSON between the quotes of a shell.
func forShell(s string) string {
	b, _ := json.Marshal(s) // a string always can be
	return strings.ReplaceAll(string(b[1:len(b)-1]), "'", `'\''`)
}

// databaseName is the file of an SQLite database, or the URL without its password.
func databaseName(url string) string {
	if file, ok := sqldb.SQLiteFile(url); ok {
		return file
	}
	return config.MaskURL(url)
}
