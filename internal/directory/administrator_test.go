package directory

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/watchword-auth/watchword/internal/store"
)

func TestTheLastAdministratorStays(t *testing.T) {
	w := newWorld(t)
	root := w.superuser("root")
	second := w.superuser("second")
	ctx := t.Context()
	if _, err := w.UpdateUser(ctx, System(), second.ID, UserPatch{Disabled: new(true)}); err != nil {
		t.Fatalf("one of two: %v", err)
	}
	for _, actor := range []Actor{as(root), System()} {
		_, errDisable := w.UpdateUser(ctx, actor, root.ID, UserPatch{Disabled: new(true)})
		_, errChange := w.UpdateClaim(ctx, actor, "Superuser", ClaimPatch{Value: new(UsersRead)})
		for what, err := range map[string]error{
			"disable":      errDisable,
			"delete":       w.DeleteUser(ctx, actor, root.ID),
			"strip":        w.RemoveFromGroup(ctx, actor, root.ID, "Administrators"),
			"unlink":       w.RemoveClaim(ctx, actor, "Administrators", "Superuser"),
			"delete group": w.DeleteGroup(ctx, actor, "Administrators"),
			"delete claim": w.DeleteClaim(ctx, actor, "Superuser"),
			"change claim": errChange,
		} {
			if !errors.Is(err, ErrLastAdministrator) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	if has, err := w.HasAdministrator(ctx); !has || err != nil {
		t.Errorf("%v, %v", has, err)
	}
	if before, after := root, w.stored(root); before.Epoch != after.Epoch || len(w.revocations()) != 1 {
		t.Error("something of what was refused was done")
	}
}

// Two administrators who delete each other at once: one stays.
func TestTwoAdministratorsCannotDeleteEachOther(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		other := replica(t, w.url)
		for i := range rounds(5) {
			a, b := w.superuser(fmt.Sprint("a", i)), w.superuser(fmt.Sprint("b", i))
			if i > 0 {
				w.removeOtherSuperusers(a, b)
			}
			var errA, errB error
			var both sync.WaitGroup
			both.Go(func() { errA = w.DeleteUser(t.Context(), as(a), b.ID) })
			both.Go(func() { errB = other.DeleteUser(t.Context(), as(b), a.ID) })
			both.Wait()
			if (errA == nil) == (errB == nil) {
				t.Errorf("%v and %v", errA, errB)
			}
			if has, err := w.HasAdministrator(t.Context()); !has || err != nil {
				t.Fatalf("nobody is left: %v", err)
			}
		}
	})
}

func (w *world) removeOtherSuperusers(keep ...store.User) {
	w.t.Helper()
	members, err := w.MembersOfGroup(w.t.Context(), System(), "Administrators", Page{})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, m := range members.Items {
		if m.ID != keep[0].ID && m.ID != keep[1].ID {
			if err := w.DeleteUser(w.t.Context(), System(), m.ID); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

func TestWithoutAnyAdministratorTheSystemMayDoEverything(t *testing.T) {
	w := newWorld(t)
	u := w.user("alice", "log=r")
	if err := w.DeleteUser(t.Context(), System(), u.ID); err != nil {
		t.Error(err)
	}
}

func TestTenReplicasMakeOneAdministrator(t *testing.T) {
	onEach(t, func(t *testing.T, first *world) {
		const replicas = 10
		worlds := []*world{first}
		for len(worlds) < replicas {
			worlds = append(worlds, replica(t, first.url))
		}
		created := make([]bool, replicas)
		var all sync.WaitGroup
		for i, w := range worlds {
			all.Go(func() {
				var err error
				created[i], err = w.EnsureAdministrator(t.Context(), Bootstrap{fmt.Sprint("admin", i), fmt.Sprint("password of ", i)})
				if err != nil {
					t.Errorf("replica %d: %v", i, err)
				}
			})
		}
		all.Wait()
		made := 0
		for i, is := range created {
			_, err := first.Authenticate(t.Context(), fmt.Sprint("admin", i), fmt.Sprint("password of ", i))
			if is {
				made++
			}
			if is != (err == nil) {
				t.Errorf("replica %d says created=%t, and its password gives %v", i, is, err)
			}
		}
		members, err := first.MembersOfGroup(t.Context(), System(), "Administrators", Page{})
		if made != 1 || len(members.Items) != 1 || err != nil {
			t.Errorf("%d made, %d members, %v", made, len(members.Items), err)
		}
		if got := first.claimsOf(members.Items[0]); got != "admin=all" {
			t.Errorf("the administrator holds %q", got)
		}
	})
}

// If the administrators are lost, a replica that starts does not make one by
// itself; the operator does.
func TestTheFirstAdministratorIsMadeOnce(t *testing.T) {
	w := newWorld(t)
	if created, err := w.EnsureAdministrator(t.Context(), Bootstrap{"root", secret}); !created || err != nil {
		t.Fatal(created, err)
	}
	root, err := w.User(t.Context(), System(), "root")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Store.DeleteUser(t.Context(), root.ID); err != nil { // behind the service's back
		t.Fatal(err)
	}
	if created, err := w.EnsureAdministrator(t.Context(), Bootstrap{"root", secret}); created || err != nil {
		t.Errorf("%v, %v", created, err)
	}
	w.superuser("root")
	if has, err := w.HasAdministrator(t.Context()); !has || err != nil {
		t.Errorf("%v, %v", has, err)
	}
}

// The password is known to the caller alone, so created must be true whenever the
// administrator exists, also if the commit was answered with an error.
func TestTheFirstAdministratorAndAFailedCommit(t *testing.T) {
	for _, persisted := range []bool{true, false} {
		t.Run(fmt.Sprint("persisted ", persisted), func(t *testing.T) {
			w := newWorld(t)
			real := w.Store
			w.Store = failedCommit{real, persisted}
			created, err := w.EnsureAdministrator(t.Context(), Bootstrap{"root", secret})
			if created != persisted || (err == nil) != persisted {
				t.Errorf("%v, %v", created, err)
			}
			w.Store = real
			_, err = w.Authenticate(t.Context(), "root", secret)
			if (err == nil) != persisted {
				t.Errorf("a login: %v", err)
			}
			if created, err := w.EnsureAdministrator(t.Context(), Bootstrap{"other", secret}); created == persisted || err != nil {
				t.Errorf("the next start: %v, %v", created, err)
			}
		})
	}
}

// failedCommit is a store whose transactions fail, persisted or not.
type failedCommit struct {
	store.Store
	persisted bool
}

func (f failedCommit) Update(ctx context.Context, change func(store.Records) error) error {
	lost := errors.New("the connection is lost")
	err := f.Store.Update(ctx, func(r store.Records) error {
		if err := change(r); err != nil || f.persisted {
			return err
		}
		return lost
	})
	if err == nil {
		err = lost
	}
	return err
}

func TestEnsureAdministratorTakesNobodyOver(t *testing.T) {
	t.Run("a user of the name", func(t *testing.T) {
		w := newWorld(t)
		alice := w.user("alice")
		_, err := w.EnsureAdministrator(t.Context(), Bootstrap{"Alice", "another password"})
		w.want(err, "username_taken")
		if w.claimsOf(alice) != "" || len(w.events(alice.ID)) != 1 {
			t.Error("alice was changed")
		}
		if created, err := w.EnsureAdministrator(t.Context(), Bootstrap{"root", secret}); !created || err != nil {
			t.Errorf("with another name afterwards: %v, %v", created, err)
		}
	})
	t.Run("a group of the name", func(t *testing.T) {
		w := newWorld(t)
		bob := w.user("bob")
		w.group("administrators", "log=r")
		if err := w.AddToGroup(t.Context(), System(), bob.ID, "administrators"); err != nil {
			t.Fatal(err)
		}
		_, err := w.EnsureAdministrator(t.Context(), Bootstrap{"root", secret})
		w.want(err, "administrators_taken")
		if got := w.claimsOf(bob); got != "log=r" {
			t.Errorf("bob holds %s", got)
		}
	})
	t.Run("a claim of the name", func(t *testing.T) {
		w := newWorld(t)
		if _, err := w.CreateClaim(t.Context(), System(), NewClaim{"SUPERUSER", "log", "r"}); err != nil {
			t.Fatal(err)
		}
		_, err := w.EnsureAdministrator(t.Context(), Bootstrap{"root", secret})
		w.want(err, "superuser_taken")
	})
	t.Run("there is one", func(t *testing.T) {
		w := newWorld(t)
		w.superuser("root")
		if created, err := w.EnsureAdministrator(t.Context(), Bootstrap{"root", "another password"}); created || err != nil {
			t.Errorf("%v, %v", created, err)
		}
		if _, err := w.Authenticate(t.Context(), "root", secret); err != nil {
			t.Errorf("root's password was changed: %v", err)
		}
	})
}

func TestEnsureAdministratorRefusesWeakPasswords(t *testing.T) {
	w := newWorld(t)
	_, err := w.EnsureAdministrator(t.Context(), Bootstrap{"root", "short"})
	w.want(err, "password_too_short")
	_, err = w.EnsureAdministrator(t.Context(), Bootstrap{"", secret})
	w.want(err, "invalid_username")
}
