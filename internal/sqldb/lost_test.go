package sqldb

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
)

// A cutter stands between the pool and the server. When it is armed, it cuts the
// connection that carries a message: before the server gets the message, or after.
type cutter struct {
	addr    string
	message []byte
	before  atomic.Bool
	armed   atomic.Bool
	cuts    atomic.Int64
}

func newCutter(t *testing.T, server, message string) *cutter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := &cutter{addr: l.Addr().String(), message: []byte(message)}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", server)
			if err != nil {
				client.Close()
				continue
			}
			answered := make(chan struct{}) // or the server has gone
			go c.forward(client, upstream, answered)
			go func() {
				defer close(answered)
				defer client.Close()
				_, _ = io.Copy(client, upstream)
			}()
		}
	}()
	return c
}

func (c *cutter) forward(client, upstream net.Conn, answered <-chan struct{}) {
	defer upstream.Close()
	buf := make([]byte, 1<<16)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		if bytes.Contains(bytes.ToLower(buf[:n]), c.message) && c.armed.CompareAndSwap(true, false) {
			c.cuts.Add(1)
			client.Close() // the answer will be lost
			if !c.before.Load() {
				_, _ = upstream.Write(buf[:n])
				<-answered
			}
			return
		}
		if _, err := upstream.Write(buf[:n]); err != nil {
			return
		}
	}
}

// The connection ends during a commit. Whether or not the server has done it, the error
// must not say that nothing was written.
func TestCommitLost(t *testing.T) {
	for name, target := range map[string]string{"postgres": testenv.Postgres(t), "mariadb": testenv.MariaDB(t)} {
		t.Run(name, func(t *testing.T) {
			direct := migrated(t, Config{URL: target})
			u, err := url.Parse(target)
			if err != nil {
				t.Fatal(err)
			}
			commit, insert := newCutter(t, u.Host, "commit"), newCutter(t, u.Host, "insert into settings")
			behind := func(c *cutter) *DB {
				u.Host = c.addr
				return open(t, Config{URL: u.String()})
			}
			has := func(name string) bool {
				t.Helper()
				err := direct.QueryRow(t.Context(), "SELECT value FROM settings WHERE name = ?", name).Scan(new(string))
				if err != nil && !errors.Is(err, ErrNoRows) {
					t.Fatal(err)
				}
				return err == nil
			}
			add := func(db *DB, name string) error {
				return db.InTx(t.Context(), func(ctx context.Context, q Q) error {
					_, err := q.Exec(ctx, insertSetting, name, "x")
					return err
				})
			}
			db := behind(commit)
			for _, test := range []struct {
				name   string
				before bool
			}{{"failed and not persisted", true}, {"failed but persisted", false}} {
				if err := add(db, "warm "+test.name); err != nil {
					t.Fatal(err)
				}
				commit.before.Store(test.before)
				commit.armed.Store(true)
				err := add(db, test.name)
				if err == nil || errors.Is(err, ErrBusy) || commit.cuts.Swap(0) != 1 {
					t.Errorf("%s: %v", test.name, err)
				}
				if test.before && has(test.name) {
					t.Errorf("%s: it is there", test.name)
				}
				for deadline := time.Now().Add(patience); !test.before && !has(test.name); time.Sleep(time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatalf("%s: it is not there", test.name)
					}
				}
				if err := add(db, "after "+test.name); err != nil {
					t.Errorf("the next one after %q: %v", test.name, err)
				}
			}
			// Lost before the commit, nothing was written, and the error says so.
			db = behind(insert)
			if err := db.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
			insert.armed.Store(true)
			if err := add(db, "early"); !errors.Is(err, ErrBusy) || has("early") || insert.cuts.Load() != 1 {
				t.Errorf("lost before the commit: %v", err)
			}
		})
	}
}

// A migration whose connection is lost is an ErrBusy, whether or not the server has run the
// statement, and runs again.
func TestMigrationLost(t *testing.T) {
	for name, fresh := range map[string]func(testing.TB) string{"postgres": testenv.Postgres, "mariadb": testenv.MariaDB} {
		for truth, before := range map[string]bool{"failed and not persisted": true, "failed but persisted": false} {
			t.Run(name+", "+truth, func(t *testing.T) {
				u, err := url.Parse(fresh(t))
				if err != nil {
					t.Fatal(err)
				}
				c := newCutter(t, u.Host, "create table if not exists state_rates")
				u.Host = c.addr
				db := open(t, Config{URL: u.String()})
				c.before.Store(before)
				c.armed.Store(true)
				if _, err := db.Migrate(t.Context()); !errors.Is(err, ErrBusy) || c.cuts.Load() != 1 {
					t.Errorf("cut off: %v", err)
				}
				if _, err := db.Migrate(t.Context()); err != nil {
					t.Errorf("afterwards: %v", err)
				}
				if pending, err := db.Pending(t.Context()); err != nil || len(pending) != 0 {
					t.Errorf("pending are %v, %v", pending, err)
				}
			})
		}
	}
}

// A transaction whose context ended right before its commit was rolled back, and the
// error says so. The result of a commit that was sent is unknown.
func TestACommitThatCameTooLate(t *testing.T) {
	p := &pool{dialect: Postgres}
	if err := p.explain(t.Context(), sql.ErrTxDone, false); !errors.Is(err, ErrBusy) {
		t.Errorf("rolled back: %v", err)
	}
	if err := p.explain(t.Context(), context.DeadlineExceeded, false); errors.Is(err, ErrBusy) {
		t.Errorf("sent, and not answered: %v", err)
	}
}
