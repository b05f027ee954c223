package graceful

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/problem"
)

// Bounds on how long a client may take, so that slow clients hold nothing up. The
// feed's streams set their own.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 32 << 10
	// maxStreams is how many requests a connection of HTTP/2 may have under way. A
	// browser or a proxy needs fewer and opens another connection for more. The number
	// is small, so that connections, which the system counts, stay the measure of what
	// a client holds.
	maxStreams = 32
	// shutdownTimeout is how long requests that are under way may take to end after
	// the listener has closed.
	shutdownTimeout = 30 * time.Second
)

// errTrailers refuses trailer fields (RFC 9110 §6.5). No route reads them, and a map of
// them costs the server many times what it costs the client to announce them.
var errTrailers = problem.New(problem.Malformed, "trailers_refused", "a request must not announce trailer fields")

// oneYear has a browser use HTTPS alone for this host from now on (RFC 6797). Only where
// TLS is the server's own: a proxy that does TLS says so itself. Subdomains are not the
// server's to promise for.
var oneYear = []string{"max-age=31536000"}

// Config is what a Server needs.
type Config struct {
	// Address is the TCP address to listen on, "host:port". Setting names it in errors.
	Address, Setting string
	// CertFile and KeyFile hold the certificate for TLS and its key in PEM. They are
	// read again when they change. Empty: plain HTTP.
	CertFile, KeyFile string
	// VerifyClients verifies the certificate of a client that sends one, by ClientCAs;
	// nil: by the system's. No client has to send one.
	VerifyClients bool
	ClientCAs     *x509.CertPool
	// Starting answers requests until Open.
	Starting http.Handler
	Logger   *slog.Logger
}

// A Server is an HTTP server that can be closed without dropping a request.
type Server struct {
	http        *http.Server
	listener    *listener
	connections *connections
	starting    http.Handler
	handler     atomic.Pointer[http.Handler] // nil: still starting
	draining    atomic.Bool
	hsts        bool       // the server does TLS itself
	served      chan error // receives one value, when Accept has ended
}

// Listen listens on the address and answers with c.Starting until Open is called. The
// error names the setting that has to change.
func Listen(c Config) (*Server, error) {
	l, err := listen(c)
	if err != nil {
		return nil, err
	}
	s := &Server{listener: l, connections: newConnections(), starting: c.Starting, hsts: c.CertFile != "", served: make(chan error, 1)}
	s.http = newHTTPServer(s, c.Logger)
	s.http.ConnState = s.connections.note
	go func() { s.served <- s.http.Serve(l) }()
	return s, nil
}

// newHTTPServer makes the http.Server with its bounds.
func newHTTPServer(h http.Handler, logger *slog.Logger) *http.Server {
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

// listen opens the port.
func listen(c Config) (*listener, error) {
	tcp, err := listenTCP(c.Address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s: %s is in use by another program; stop that one or set another address", c.Setting, c.Address)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Setting, err)
	}
	l := newListener(tcp)
	if c.CertFile == "" {
		return l, nil
	}
	cert, err := newCertificate(c.CertFile, c.KeyFile, c.Logger)
	if err != nil {
		return nil, errors.Join(err, tcp.Close())
	}
	config := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: cert.get,
	}
	if c.VerifyClients {
		config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, c.ClientCAs
	}
	l.Listener = tls.NewListener(l.Listener, config)
	return l, nil
}

// listenTCP opens a port without Multipath TCP, on which Linux ignores refuse.
func listenTCP(address string) (*net.TCPListener, error) {
	var plain net.ListenConfig
	plain.SetMultipathTCP(false)
	l, err := plain.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil // the type that "tcp" gives
}

// Addr returns the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Open has h answer all further requests.
func (s *Server) Open(h http.Handler) { s.handler.Store(&h) }

// Drain makes every further answer end its connection, so that the client's next
// request opens a new one, which a load balancer gives to another replica. In HTTP/2
// the connection ends with a GOAWAY, which says which requests are still answered.
func (s *Server) Drain() { s.draining.Store(true) }

// ServeHTTP gives a request to the handler that answers at this moment. It refuses a
// request that announces trailer fields, and with TLS it has browsers stay with HTTPS.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.draining.Load() {
		w.Header().Set("Connection", "close")
	}
	if s.hsts {
		w.Header()["Strict-Transport-Security"] = oneYear
	}
	if r.Trailer != nil {
		httpkit.WriteProblem(w, errTrailers)
		return
	}
	if h := s.handler.Load(); h != nil {
		(*h).ServeHTTP(w, r)
		return
	}
	s.starting.ServeHTTP(w, r)
}

// Failed receives the error that has ended the server before Close.
func (s *Server) Failed() <-chan error { return s.served }

// Abort closes the server and resets every connection.
func (s *Server) Abort() error { return s.http.Close() }

// Close answers every client that has connected, lets no other one in, and ends the
// server. It goes on when ctx ends, but for 30 seconds at most.
func (s *Server) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	s.listener.stop()
	<-s.served
	s.connections.waitUntilQuiet(ctx)
	if err := s.http.Shutdown(ctx); err != nil {
		return fmt.Errorf("some requests did not end within %v: %w", shutdownTimeout, err)
	}
	return nil
}
