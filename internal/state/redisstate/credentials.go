package redisstate

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// credentials choose the user and the password of each connection that is made: those that
// redis.url has now, or, while a server does not know these yet, those before. So the order
// in which an operator changes the server and the URL does not matter.
type credentials struct {
	url    func() string // as it is now
	logger *slog.Logger
	dial   dialer

	mu     sync.Mutex
	good   pair // of the last connection
	warned pair // that were denied, which is logged once
}

// A pair has what is shown to a server of Redis and what is shown to a Sentinel.
type pair struct{ redis, sentinel login }

type login struct{ user, password string }

type dialer = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error)

// attach makes the connections of a client ask for their credentials.
func (c *credentials) attach(options *rueidis.ClientOption) {
	c.good = pairOf(*options)
	if c.dial = options.DialCtxFn; c.dial == nil { // else it dials a Unix socket
		c.dial = dial
	}
	// A Sentinel must never be shown what belongs to Redis, and the library calls the same
	// functions for both. The resolver, which is the usual one, tells their dialers apart.
	sentinels := &net.Resolver{}
	options.Sentinel.Dialer.Resolver = sentinels
	options.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
		conn, err := c.dial(ctx, addr, d, config)
		if err != nil {
			return nil, err
		}
		chosen, err := c.choose(ctx, conn, d.Resolver == sentinels)
		if err != nil {
			conn.Close()
			return nil, err
		}
		return loggedIn{conn, chosen}, nil
	}
	options.AuthCredentialsFn = func(to rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
		chosen := to.Address.(address).login // of a connection of DialCtxFn
		return rueidis.AuthCredentials{Username: chosen.user, Password: chosen.password}, nil
	}
}

// loggedIn is a connection that tells the client by its address how to log in.
type loggedIn struct {
	net.Conn
	login login
}

type address struct {
	net.Addr
	login login
}

// RemoteAddr implements net.Conn.
func (l loggedIn) RemoteAddr() net.Addr { return address{l.Conn.RemoteAddr(), l.login} }

// choose returns the credentials for a new connection. It tries those that are new on the
// connection itself: the client logs in once more, which does no harm.
func (c *credentials) choose(ctx context.Context, conn net.Conn, toSentinel bool) (login, error) {
	of := func(p pair) login {
		if toSentinel {
			return p.sentinel
		}
		return p.redis
	}
	options, err := ClientOption(c.url())
	now := pairOf(options)
	c.mu.Lock()
	good := c.good
	c.mu.Unlock()
	if err != nil || of(now) == of(good) { // a URL that cannot be read has been logged where it was changed
		return of(good), nil
	}
	accepted, err := try(ctx, conn, of(now))
	if err != nil {
		return login{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !accepted && c.warned != now:
		c.warned = now
		c.logger.Warn("Redis denies the new credentials of redis.url; those before are used until it does not")
	case accepted && toSentinel:
		c.good.sentinel, c.warned = now.sentinel, pair{}
	case accepted:
		c.good.redis, c.warned = now.redis, pair{}
		c.logger.Info("new connections to Redis have the new credentials")
	}
	if !accepted {
		return of(c.good), nil
	}
	return of(now), nil
}

// try logs in on a connection on which nothing was sent yet.
func try(ctx context.Context, conn net.Conn, l login) (accepted bool, err error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(Timeout)
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return false, err
	}
	words := []string{"AUTH", cmp.Or(l.user, "default"), l.password}
	if l == (login{}) {
		words = []string{"PING"}
	}
	var text strings.Builder
	fmt.Fprintf(&text, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&text, "$%d\r\n%s\r\n", len(w), w)
	}
	if _, err := conn.Write([]byte(text.String())); err != nil {
		return false, err
	}
	// The server says nothing after this line until it is asked again.
	line, err := bufio.NewReaderSize(conn, 512).ReadString('\n')
	if err != nil {
		return false, err
	}
	return strings.HasPrefix(line, "+"), conn.SetDeadline(time.Time{})
}

func pairOf(o rueidis.ClientOption) pair {
	return pair{login{o.Username, o.Password}, login{o.Sentinel.Username, o.Sentinel.Password}}
}

func dial(ctx context.Context, addr string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
	if config == nil {
		return d.DialContext(ctx, "tcp", addr)
	}
	return (&tls.Dialer{NetDialer: d, Config: config}).DialContext(ctx, "tcp", addr)
}
