package sqldb

import (
	"context"
	"database/sql/driver"
	"errors"
	"log/slog"
	"sync"
)

// credentials make connections with the user and the password that database.url has when a
// connection is made, so that those may change while the replica runs. Connections that
// exist go on. If the server denies the new ones, because it does not know them yet, those
// with which the last connection was made are tried as well: the order in which an operator
// changes the server and the URL does not matter.
type credentials struct {
	url    func() string // as it is now
	denied func(error) bool
	logger *slog.Logger

	mu     sync.Mutex
	good   string // the URL of the last connection that was made
	warned string // the last URL that was denied, which is logged once
}

// connect calls a function that connects to a URL.
func (c *credentials) connect(connect func(url string) error) error {
	now := c.url()
	err := connect(now)
	switch {
	case err == nil:
		c.found(now)
	case c.denied(err) || isUnreadable(err):
		if good := c.before(now, err); good != "" && connect(good) == nil {
			return nil
		}
	}
	return err
}

func (c *credentials) found(url string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.good != "" && c.good != url {
		c.logger.Info("new connections to the database have the new credentials")
	}
	c.good, c.warned = url, ""
}

// before returns the URL of the last connection if it is another one than was denied.
func (c *credentials) before(denied string, err error) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.good == denied || c.good == "" {
		return ""
	}
	if c.warned != denied {
		c.logger.Warn("the new credentials of database.url cannot be used yet; those before are used until they can", "err", err)
	}
	c.warned = denied
	return c.good
}

// unreadable is the error of a URL that the driver cannot read, or one of whose files.
type unreadable struct{ error }

func isUnreadable(err error) bool {
	_, is := errors.AsType[unreadable](err)
	return is
}

// A dialer is a driver.Connector with credentials that may change.
type dialer struct {
	*credentials
	of func(url string) (driver.Connector, error)
	// driver is what Driver returns; database/sql asks for it alone.
	driver driver.Driver
}

// Connect implements driver.Connector.
func (d dialer) Connect(ctx context.Context) (conn driver.Conn, err error) {
	err = d.credentials.connect(func(url string) error {
		connector, err := d.of(url)
		if err != nil {
			return unreadable{err}
		}
		conn, err = connector.Connect(ctx)
		return err
	})
	return conn, err
}

// Driver implements driver.Connector.
func (d dialer) Driver() driver.Driver { return d.driver }

// forget closes the connections that nothing uses at this moment.
func (p *pool) forget() {
	idle := cap(p.slots) + cap(p.kept)
	p.db.SetMaxIdleConns(-1)
	p.db.SetMaxIdleConns(idle)
}
