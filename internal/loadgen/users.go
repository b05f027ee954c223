package loadgen

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/httpkit"
)

// UserPrefix begins the name of every user that is made for a run.
const UserPrefix = "bench-"

const (
	// makers is how many users are made or removed at once.
	makers = 4
	// removeWithin bounds the time in which users are removed.
	removeWithin = 2 * time.Minute
	// adminTimeout bounds one request of an administrator.
	adminTimeout = 30 * time.Second
)

// Made is users that were made for a run.
type Made struct {
	Users []User

	admin administrator
	ids   []string
}

// MakeUsers makes users with passwords of their own, as an administrator who has no second
// factor. After an error, those that were made are removed.
func MakeUsers(ctx context.Context, client *http.Client, base string, admin User, n int) (*Made, error) {
	m := &Made{admin: administrator{caller: caller{client: client, timeout: adminTimeout}, base: base, user: admin}}
	bearer, err := m.admin.login(ctx)
	if err != nil {
		return nil, err
	}
	var name [4]byte
	_, _ = rand.Read(name[:]) // which never fails
	var mu sync.Mutex
	err = side(n, func(i int) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		ctx := context.WithoutCancel(ctx) // a user whose id did not come could not be removed
		u := User{fmt.Sprintf("%s%s-%d", UserPrefix, hex.EncodeToString(name[:]), i), rand.Text()}
		var made struct {
			ID string `json:"id"`
		}
		if err := m.admin.call(ctx, http.MethodPost, "/api/users", bearer, httpapi.NewUser{Username: u.Username, Password: u.Password}, http.StatusCreated, &made); err != nil {
			return fmt.Errorf("the user %s was not made: %w", u.Username, err)
		}
		mu.Lock()
		defer mu.Unlock()
		m.Users, m.ids = append(m.Users, u), append(m.ids, made.ID)
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, m.Remove(ctx))
	}
	return m, nil
}

// Remove removes the users, also when ctx has ended.
func (m *Made) Remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeWithin)
	defer cancel()
	if len(m.ids) == 0 {
		return nil
	}
	m.admin.patient = true            // the load may have used up what this address may do
	bearer, err := m.admin.login(ctx) // anew: what changes something needs a fresh one
	if err != nil {
		return fmt.Errorf("users whose names begin with %s are left, all %d: %w", UserPrefix, len(m.ids), err)
	}
	var left atomic.Int64
	first := make(chan error, 1) // why the first one is left
	_ = side(len(m.ids), func(i int) error {
		if err := m.admin.call(ctx, http.MethodDelete, "/api/users/"+m.ids[i], bearer, nil, http.StatusNoContent, nil); err != nil {
			left.Add(1)
			select {
			case first <- err:
			default:
			}
		}
		return nil // the others are removed all the same
	})
	if n := left.Load(); n > 0 {
		return fmt.Errorf("users whose names begin with %s are left, %d of %d: %w", UserPrefix, n, len(m.ids), <-first)
	}
	return nil
}

// side does something n times, makers at once, and returns the first errors.
func side(n int, do func(i int) error) error {
	var next atomic.Int64
	var all sync.WaitGroup
	errs := make([]error, makers)
	for k := range makers {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && errs[k] == nil; i = next.Add(1) - 1 {
				errs[k] = do(int(i))
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// An administrator makes and removes users.
type administrator struct {
	caller
	base    string
	user    User
	patient bool // where the service has too much to do, they wait until the context ends
}

// login returns a token for the administration.
func (a *administrator) login(ctx context.Context) (string, error) {
	// Where services have an audience of their own, administration needs a token for the issuer.
	var of httpapi.ServerMetadata
	var audience string
	if err := a.call(ctx, http.MethodGet, "/.well-known/oauth-authorization-server", "", nil, http.StatusOK, &of); err == nil {
		audience = of.Issuer
	}
	var g httpapi.Grant
	err := a.call(ctx, http.MethodPost, "/api/login", "", httpapi.LoginRequest{Username: a.user.Username, Password: a.user.Password, Audience: audience}, http.StatusOK, &g)
	if err != nil {
		return "", fmt.Errorf("the administrator %s cannot log in: %w", a.user.Username, err)
	}
	return g.AccessToken, nil
}

// call sends a request, and again where the service has too much to do.
func (a *administrator) call(ctx context.Context, method, path, bearer string, body any, want int, into any) error {
	for try := 0; ; try++ {
		got := a.send(ctx, method, a.base+path, bearer, body)
		switch {
		case got.err != nil:
			return got.err
		case got.status == want && into == nil:
			return nil
		case got.status == want:
			if err := json.Unmarshal(got.body, into); err != nil {
				return fmt.Errorf("%s%s: the answer is not JSON of the API", a.base, path)
			}
			return nil
		case (got.status == http.StatusServiceUnavailable || got.status == http.StatusTooManyRequests) && (a.patient || try < 5):
			if sleepUntil(ctx, time.Now().Add(time.Second)) {
				continue
			}
		}
		var p httpkit.Problem
		_ = json.Unmarshal(got.body, &p)
		return fmt.Errorf("%s%s answers %v: %q", a.base, path, got, p.Detail)
	}
}
