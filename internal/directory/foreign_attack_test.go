package directory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/watchword-auth/watchword/internal/limit/limittest"
	"github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/store"
)

// A failingStore fails to write a user outside of a transaction, as Authenticate does when it replaces
// a hash.
type failingStore struct {
	store.Store
	persists bool // although it fails
}

func (s failingStore) UpdateUser(ctx context.Context, u store.User) error {
	if s.persists {
		if err := s.Store.UpdateUser(ctx, u); err != nil {
			return err
		}
	}
	return errors.New("the connection is gone")
}

// Wherever a password is checked, a hash of another system does what one of ours does, and its
// replacement, whatever becomes of it, changes nothing else: not the answer, the epochs, the sessions
// or the trail.
func TestForeignHashesWhereverAPasswordIsChecked(t *testing.T) {
	const next = "another good password"
	ways := map[string]func(w *world, u store.User, plain string) error{
		"log in": func(w *world, u store.User, plain string) error {
			found, err := w.Authenticate(w.t.Context(), u.Username, plain)
			if err == nil && (found.PasswordHash != "" || found.ID != u.ID || found.SessionEpoch != u.SessionEpoch) {
				err = fmt.Errorf("%+v", found)
			}
			return err
		},
		"step up, then log in": func(w *world, u store.User, plain string) error { // login.presentPassword
			for range 2 {
				if _, err := w.Authenticate(w.t.Context(), u.Username, plain); err != nil {
					return err
				}
			}
			return nil
		},
		"change the password": func(w *world, u store.User, plain string) error {
			_, err := w.ChangeOwnPassword(w.t.Context(), as(u), 1<<62, plain, next)
			return err
		},
	}
	faults := map[string]func(w *world){
		"none":                     func(*world) {},
		"failed and not persisted": func(w *world) { w.Store = failingStore{w.Store, false} },
		"failed but persisted":     func(w *world) { w.Store = failingStore{w.Store, true} },
		"no worker":                func(w *world) { w.Hasher = occupied{w.Hasher} },
	}
	for hash, text := range map[string]string{"bcrypt": bcryptOfSecret, "pbkdf2": pbkdf2OfSecret, "django": djangoOfSecret} {
		for way, check := range ways {
			for fault, with := range faults {
				if hash != "pbkdf2" && (fault != "none" || way != "log in") {
					continue // they do not depend on the hash, and bcrypt is slow under the race detector
				}
				t.Run(hash+"/"+way+"/"+fault, func(t *testing.T) {
					w := newWorld(t)
					u := w.fromElsewhere("bob", text)
					with(w)
					changes := way == "change the password"
					w.want(check(w, u, secret+"!"), "invalid_credentials")
					if now := w.stored(u); now != u {
						t.Errorf("a wrong password: %+v", now)
					}
					gone, disabled := w.fromElsewhere("eve", text), true
					if _, err := w.UpdateUser(t.Context(), System(), gone.ID, UserPatch{Disabled: &disabled}); err != nil {
						t.Fatal(err)
					}
					w.want(check(w, gone, secret), "invalid_credentials")
					if now := w.stored(gone); now.PasswordHash != gone.PasswordHash {
						t.Error("the hash of a disabled user was replaced")
					}
					revoked := len(w.revocations())
					events, ended := len(w.events(u.ID)), len(w.ended)
					if err := check(w, u, secret); err != nil {
						t.Fatal(err)
					}
					now := w.stored(u)
					if changes {
						if isOurs(now) && now.SessionEpoch > u.SessionEpoch {
							return
						}
						t.Fatalf("%+v", now)
					}
					if now.Epoch != u.Epoch || now.SessionEpoch != u.SessionEpoch || len(w.events(u.ID)) != events || len(w.ended) != ended || len(w.revocations()) > revoked {
						t.Errorf("%+v, was %+v; %d events", now, u, len(w.events(u.ID))-events)
					}
					if replaced := fault == "failed but persisted" || fault == "none"; isOurs(now) != replaced {
						t.Errorf("%s", now.PasswordHash)
					}
					if err := check(w, now, secret); err != nil {
						t.Errorf("once more: %v", err)
					}
				})
			}
		}
	}
}

// occupied is a Hasher none of whose workers is free when a hash is to be replaced.
type occupied struct{ Hasher }

func (o occupied) HashNow(context.Context, string) (string, error) {
	return "", password.ErrNoWorker
}

// What becomes of a user between the check of the password and the replacement stays so.
func TestReplacingAHashBringsNothingBack(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		name, yes := "robert", true
		for what, do := range map[string]func(u store.User) error{
			"disabled": func(u store.User) error {
				_, err := w.UpdateUser(t.Context(), System(), u.ID, UserPatch{Disabled: &yes})
				return err
			},
			"renamed": func(u store.User) error {
				_, err := w.UpdateUser(t.Context(), System(), u.ID, UserPatch{Username: &name})
				return err
			},
			"deleted": func(u store.User) error { return w.DeleteUser(t.Context(), System(), u.ID) },
			"reset":   func(u store.User) error { return w.SetPassword(t.Context(), System(), u.ID, "set by somebody") },
		} {
			u := w.fromElsewhere(what, pbkdf2OfSecret)
			ours := w.Hasher
			var after []store.User
			w.Hasher = between{ours, func() {
				if err := do(u); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				if now, err := w.Store.User(t.Context(), u.ID); err == nil {
					after = append(after, now)
				}
			}}
			found, err := w.Service.Authenticate(t.Context(), limittest.Attempt(t.Context()), what, secret)
			w.Hasher = ours
			if err != nil || found.Epoch != u.Epoch || found.SessionEpoch != u.SessionEpoch {
				t.Errorf("%s: %+v, %v; want the user as before, whose epochs tell", what, found, err)
			}
			var left []store.User
			if now, err := w.Store.User(t.Context(), u.ID); err == nil {
				left = append(left, now)
			}
			if !slices.Equal(left, after) {
				t.Errorf("%s: %+v, was %+v", what, left, after)
			}
		}
	})
}
