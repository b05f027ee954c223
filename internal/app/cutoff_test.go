package app

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// A link passes TCP connections on to a server, until it is cut.
type link struct {
	url    string // the server's, by way of the link
	target string

	mu    sync.Mutex
	cut   bool
	mute  bool
	conns map[net.Conn]bool
}

// linkTo puts a link before the server that a URL names.
func linkTo(t *testing.T, server string) *link {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{target: u.Host, conns: map[net.Conn]bool{}}
	u.Host = listener.Addr().String()
	l.url = u.String()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go l.serve(conn)
		}
	}()
	t.Cleanup(func() { listener.Close(); l.sever() })
	return l
}

func (l *link) serve(in net.Conn) {
	defer l.forget(in)
	l.mu.Lock()
	l.conns[in] = true
	cut := l.cut
	l.mu.Unlock()
	if cut {
		return
	}
	out, err := net.Dial("tcp", l.target)
	if err != nil {
		return
	}
	defer l.forget(out)
	l.mu.Lock()
	l.conns[out] = true
	l.mu.Unlock()
	done := make(chan struct{})
	go func() { defer close(done); l.pump(out, in); out.Close() }()
	l.pump(in, out)
	in.Close()
	<-done
}

// pump copies, and throws away what comes while the link is mute.
func (l *link) pump(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		l.mu.Lock()
		mute := l.mute
		l.mu.Unlock()
		if n > 0 && !mute {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (l *link) forget(c net.Conn) {
	c.Close()
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
}

// sever refuses connections from now on, and ends those that there are.
func (l *link) sever() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for c := range l.conns {
		c.Close()
	}
}

// silence keeps the connections and lets nothing through.
func (l *link) silence() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mute = true
}

// mend makes the link as it was; what was under way while it was mute is lost.
func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut, l.mute = false, false
	for c := range l.conns {
		c.Close()
	}
}

// reachable starts a replica that the others reach.
func reachable(t *testing.T, database string, change func(*config.Config)) (w *world, unreachable func()) {
	t.Helper()
	at, l := opened(t)
	w = join(t, database, func(cfg *config.Config) {
		cfg.Cluster.AdvertiseURL = at
		if change != nil {
			change(cfg)
		}
	})
	server := &http.Server{Handler: w.node.Handler()}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return w, func() { server.Close() }
}

// A replica that is cut off from the database goes on, by what the others tell it:
// it accepts what is good and refuses in time what was taken back. Without the others
// it refuses all.
func TestCutOffFromTheDatabase(t *testing.T) {
	for name, cut := range map[string]func(*link){"refused": (*link).sever, "silent": (*link).silence} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := testenv.Postgres(t)
			way := linkTo(t, database)
			bound := func(cfg *config.Config) {
				cfg.Revocation.Poll, cfg.Revocation.MaxStaleness = 200*time.Millisecond, 3*time.Second
			}
			one, leaveAlone := reachable(t, database, bound)
			island, _ := reachable(t, way.url, bound)
			kept := one.login("admin").AccessToken
			var gone []string
			for range 5 {
				gone = append(gone, one.login("admin").AccessToken)
			}
			cut(way)
			began := time.Now()
			for time.Since(began) < 2*island.cfg.Revocation.MaxStaleness {
				island.verify(kept)
			}
			for _, token := range gone {
				island.verify(token)
				one.want(one.do("POST", "/api/logout", token, nil), 204, "")
				logout := time.Now()
				eventually(t, island.cfg.Revocation.MaxStaleness, func() error {
					island.verify(kept)
					if a := island.do("GET", "/api/verify", token, nil); a.code() != "token_revoked" {
						return fmt.Errorf("%d %s", a.status, a.body)
					}
					return nil
				})
				t.Logf("refused %v after the logout", time.Since(logout).Round(time.Millisecond))
			}
			if island.metric(`watchword_cluster_feed_fetches_total{result="ok"}`) == 0 {
				t.Error("it has not asked the other replica")
			}

			// A key of the other replica's that is made now is learned from it.
			if err := one.node.parts.RotateKeys(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := one.node.keys.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			known := len(one.kids())
			eventually(t, cutOff, func() error {
				if n := len(island.kids()); n != known {
					return fmt.Errorf("it knows %d keys of %d", n, known)
				}
				return nil
			})

			leaveAlone()
			eventually(t, island.cfg.Revocation.MaxStaleness+time.Second, func() error {
				if a := island.do("GET", "/api/verify", kept, nil); a.code() != "revocation_stale" {
					return fmt.Errorf("%d %s", a.status, a.body)
				}
				return nil
			})
			way.mend()
			eventually(t, 20*time.Second, func() error {
				if a := island.do("GET", "/api/verify", kept, nil); a.status != 200 {
					return fmt.Errorf("%d %s", a.status, a.body)
				}
				return nil
			})
			for _, token := range gone {
				island.want(island.do("GET", "/api/verify", token, nil), 401, "token_revoked")
			}
		})
	}
}
