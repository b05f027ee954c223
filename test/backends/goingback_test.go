package backends

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
	"github.com/watchword-auth/watchword/verify"
)

// A resourceServer verifies tokens with package verify, and runs on while replicas end and
// databases go back in time.
type resourceServer struct {
	*verify.Verifier
	t  *testing.T
	at atomic.Pointer[string] // the URL of the replica that it asks
}

func newResourceServer(t *testing.T, w *replica.World) *resourceServer {
	t.Helper()
	r := &resourceServer{t: t}
	r.asks(w)
	var err error
	r.Verifier, err = verify.New(verify.Config{
		Issuer: w.Config.Server.PublicURL, HTTPClient: &http.Client{Transport: r}, MaxStaleness: time.Minute, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// asks has the resource server ask this replica from now on.
func (r *resourceServer) asks(w *replica.World) {
	url := w.URL // the replica gets another one when it starts again
	r.at.Store(&url)
}

// RoundTrip sends a request to the replica, whatever its host. An unknown key is asked about
// at once, as after the minutes for which a key set is cached.
func (r *resourceServer) RoundTrip(q *http.Request) (*http.Response, error) {
	there, err := http.NewRequestWithContext(q.Context(), q.Method, *r.at.Load()+q.URL.RequestURI(), nil)
	if err != nil {
		return nil, err
	}
	there.Header = q.Header
	res, err := http.DefaultTransport.RoundTrip(there)
	if res != nil {
		res.Header.Del("ETag")
	}
	return res, err
}

// accepts fails the test unless the resource server comes to accept a token. It may have to
// find the replica, and to fetch its key set, first.
func (r *resourceServer) accepts(token string) {
	r.t.Helper()
	deadline := time.Now().Add(kit.Promised)
	for {
		_, err := r.Verify(r.t.Context(), token)
		switch {
		case err == nil:
			return
		case errors.Is(err, verify.ErrRevoked) || time.Now().After(deadline):
			r.t.Fatalf("a resource server refuses a good token: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// refuses fails the test unless the resource server comes to refuse a token.
func (r *resourceServer) refuses(token string) {
	r.t.Helper()
	deadline := time.Now().Add(kit.Promised)
	for {
		_, err := r.Verify(r.t.Context(), token)
		if errors.Is(err, verify.ErrRevoked) {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("a resource server does not refuse a token that was revoked: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A present is what a user and an administrator have at the moment to which a database goes
// back, and what has been revoked since.
type present struct {
	w       *replica.World
	rs      *resourceServer
	user    string        // the id of ester
	kept    httpapi.Grant // ester's, which is never revoked by its session
	revoked string        // a token of ester's, from before everything of ester was revoked
}

// newPresent logs ester in.
func newPresent(t *testing.T, change func(*config.Config)) *present {
	t.Helper()
	w := replica.New(t, func(c *config.Config) { kit.StoredKeys(c); change(c) })
	p := &present{w: w, rs: newResourceServer(t, w)}
	p.user = p.addUser("ester")
	p.kept = w.Login("ester")
	p.revoked = p.kept.AccessToken
	p.rs.accepts(p.revoked)
	return p
}

// addUser makes a user, and leaves no connection to the database open.
func (p *present) addUser(name string) (id string) {
	t := p.w.T
	t.Helper()
	parts, err := operator.Open(t.Context(), p.w.Config, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	id = kit.AddUser(t, parts.Directory, name)
	if err := parts.Close(); err != nil {
		t.Fatal(err)
	}
	return id
}

// future revokes everything of ester several times. The resource server learns of it.
func (p *present) future() {
	p.w.T.Helper()
	for range 3 {
		token := p.w.Login("ester").AccessToken
		p.w.Revoke(p.w.Login("admin").AccessToken, map[string]any{"user": p.user})
		p.rs.refuses(token)
	}
	p.rs.refuses(p.revoked)
}

// goesOn fails the test unless ester can log in and use what the login gave, everywhere, and
// can again have everything revoked.
func (p *present) goesOn() {
	t := p.w.T
	t.Helper()
	p.rs.asks(p.w)
	for range 2 {
		grant := p.w.Login("ester")
		p.rs.accepts(grant.AccessToken)
		p.w.Verify(grant.AccessToken)
		renewed, answer := p.w.Renew(grant.RefreshToken)
		p.w.Want(answer, 200, "")
		p.rs.accepts(renewed.AccessToken)
		p.w.Verify(renewed.AccessToken)
		p.rs.refuses(p.revoked)
		p.w.Revoke(p.w.Login("admin").AccessToken, map[string]any{"user": p.user})
		p.w.Want(p.w.Do("GET", "/api/verify", renewed.AccessToken, nil), 401, "token_revoked")
		p.rs.refuses(grant.AccessToken)
		p.rs.refuses(renewed.AccessToken)
	}
}

// After a restore people can use what their logins give, also at resource servers that
// remember what was revoked after the backup was made. Without sign-out their sessions go on.
func TestRestoreIsUsableAtOnce(t *testing.T) {
	t.Parallel()
	for name, signOut := range map[string]bool{"sessions go on": false, "sign-out": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			quiet := slog.New(slog.DiscardHandler)
			p := newPresent(t, func(*config.Config) {})
			file := filepath.Join(t.TempDir(), "file")
			if _, err := operator.Backup(t.Context(), p.w.Config, quiet, file, ""); err != nil {
				t.Fatal(err)
			}
			p.future()
			p.w.Replica.Drain() // it serves the key set until the resource server asks the next one
			restored := func(c *config.Config) { kit.StoredKeys(c); c.Tokens.KeySetMaxAge = time.Second }
			cfg := kit.Config(t)
			restored(cfg)
			cfg.Admin.Username, cfg.Admin.Password = "", ""
			cfg.Complete()
			if _, err := operator.Restore(t.Context(), cfg, quiet, file, "", signOut); err != nil {
				t.Fatal(err)
			}
			p.w = replica.New(t, func(c *config.Config) { *c = *cfg })
			p.rs.asks(p.w)
			if _, answer := p.w.Renew(p.kept.RefreshToken); signOut {
				p.w.Want(answer, 401, "invalid_refresh_token")
			} else {
				p.w.Want(answer, 200, "")
				p.rs.accepts(kit.Decode[httpapi.Grant](t, answer).AccessToken)
			}
			if !signOut { // else nobody accepts the key
				p.goesOn()
				return
			}
			grant := p.w.Login("ester")
			p.rs.accepts(grant.AccessToken)
			if _, err := p.rs.Verify(t.Context(), p.revoked); err == nil {
				t.Error("a resource server accepts a token from before")
			}
		})
	}
}

// A copy that a file system or a database made does not know that it is old, and no replica
// remembers the future: all of them have ended.
func TestOldCopyIsUsableAtOnce(t *testing.T) {
	t.Parallel()
	p := newPresent(t, func(*config.Config) {})
	file := sqliteFile(p.w.Config)
	p.w.Stop()
	copyFile(t, file, file+".copy")
	p.w.Start()
	p.rs.asks(p.w)
	p.future()
	p.w.Stop()
	copyFile(t, file+".copy", file)
	p.w.Start()
	p.goesOn()
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	for _, suffix := range []string{"-wal", "-shm"} {
		if _, err := os.Stat(from + suffix); err == nil {
			t.Fatalf("%s%s is there", from, suffix)
		}
		os.Remove(to + suffix)
	}
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// A failover loses commits while replicas run on. They remember what they had read: no session
// that it may have ended is renewed. Everybody else goes on, and those who log in can use it.
func TestFailoverIsUsableAtOnce(t *testing.T) {
	t.Parallel()
	for name, database := range map[string]func() string{
		"sqlite":   func() string { return "sqlite:" + filepath.Join(t.TempDir(), "watchword.db") },
		"postgres": func() string { return testenv.Postgres(t) },
		"mariadb":  func() string { return testenv.MariaDB(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := database()
			p := newPresent(t, func(c *config.Config) { c.Database.URL = url })
			p.addUser("bystander")
			p.addUser("late")
			bystander, another := p.w.Login("bystander"), p.w.Login("ester")
			out := p.w.Login("bystander")
			back := remember(t, other(t, url))
			late := p.w.Login("late")
			p.w.Want(p.w.Do("POST", "/api/logout", out.AccessToken, nil), 204, "")
			p.future()
			back()
			p.w.Await("the replica has noticed", func() bool {
				return strings.Contains(p.w.Log.String(), "the revocation log is not the one that was read before")
			})
			if _, answer := p.w.Renew(p.kept.RefreshToken); answer.Status != 401 {
				t.Errorf("a session that has ended is renewed: %d %s", answer.Status, answer.Body)
			}
			if _, answer := p.w.Renew(out.RefreshToken); answer.Status != 401 {
				t.Errorf("a session that was logged out is renewed: %d %s", answer.Status, answer.Body)
			}
			renewed, answer := p.w.Renew(bystander.RefreshToken)
			p.w.Want(answer, 200, "")
			p.rs.accepts(renewed.AccessToken)
			p.rs.accepts(p.w.Login("ester").AccessToken)
			if _, answer := p.w.Renew(another.RefreshToken); answer.Status != 401 {
				t.Errorf("a session that has ended is renewed after the next login: %d %s", answer.Status, answer.Body)
			}
			p.goesOn()
			// The database has lost which epoch late's token has.
			p.w.Verify(late.AccessToken)
			p.w.Revoke(p.w.Login("admin").AccessToken, map[string]any{"user": "late"})
			p.w.Want(p.w.Do("GET", "/api/verify", late.AccessToken, nil), 401, "token_revoked")
			p.rs.refuses(late.AccessToken)
			p.w.Restart() // nobody remembers
			for what, grant := range map[string]httpapi.Grant{"was revoked": p.kept, "was logged out": out} {
				if _, answer := p.w.Renew(grant.RefreshToken); answer.Status != 401 {
					t.Errorf("a session that %s is renewed by a replica that does not remember: %d %s", what, answer.Status, answer.Body)
				}
			}
		})
	}
}

// remember returns a function that takes the users' epochs, the sessions and the revocation
// log back to what they are now, as a failover does that loses commits.
func remember(t *testing.T, db *sqldb.DB) (back func()) {
	t.Helper()
	type epochs struct {
		id             string
		epoch, session int64
	}
	type record struct {
		kind, owner, id  string
		value            []byte
		version, expires int64
	}
	ctx := t.Context()
	users, err := sqldb.All(ctx, db, func(scan sqldb.Scan) (u epochs, err error) { return u, scan(&u.id, &u.epoch, &u.session) },
		"SELECT id, epoch, session_epoch FROM users")
	if err != nil {
		t.Fatal(err)
	}
	records, err := sqldb.All(ctx, db, func(scan sqldb.Scan) (r record, err error) {
		return r, scan(&r.kind, &r.owner, &r.id, &r.value, &r.version, &r.expires)
	}, "SELECT kind, owner, id, value, version, expires_at FROM state_records")
	if err != nil {
		t.Fatal(err)
	}
	var head int64
	if err := db.QueryRow(ctx, "SELECT seq FROM revocation_head").Scan(&head); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		err := db.InTx(ctx, func(ctx context.Context, q sqldb.Q) error {
			run := func(query string, args ...any) {
				if err == nil {
					_, err = q.Exec(ctx, query, args...)
				}
			}
			err = nil
			run("DELETE FROM revocations WHERE seq > ?", head)
			run("UPDATE revocation_head SET seq = ?", head)
			for _, u := range users {
				run("UPDATE users SET epoch = ?, session_epoch = ? WHERE id = ?", u.epoch, u.session, u.id)
			}
			run("DELETE FROM state_records")
			for _, r := range records {
				run("INSERT INTO state_records (kind, owner, id, value, version, expires_at) VALUES (?, ?, ?, ?, ?, ?)", r.kind, r.owner, r.id, r.value, r.version, r.expires)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
