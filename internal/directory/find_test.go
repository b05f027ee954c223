package directory

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/store"
)

// found returns the usernames of all pages.
func (w *world) found(text string, p Page) (names []string) {
	w.t.Helper()
	for {
		l, err := w.FindUsers(w.t.Context(), System(), text, p)
		if err != nil {
			w.t.Fatal(err)
		}
		if len(l.Items) > p.Limit && p.Limit > 0 {
			w.t.Fatalf("%d users on a page of %d", len(l.Items), p.Limit)
		}
		for _, u := range l.Items {
			names = append(names, u.Username)
			if u.PasswordHash != "" {
				w.t.Error("a hash leaves the package")
			}
		}
		if p.After = l.Next; p.After == "" {
			return names
		}
	}
}

func TestFindUsers(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	add := func(name, email string) store.User {
		t.Helper()
		u, err := w.CreateUser(ctx, System(), NewUser{Username: name, Email: email, Password: secret})
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for i := range 5 {
		add(fmt.Sprint("mail", i), "")
	}
	add("aaron", "Mail@example.org")
	zoe := add("Zoe", "mail2@example.org")
	add("mail2@example.org", "") // a username may be another's address
	add("mail", "mail@Example.COM")
	add("straße", "ä@bücher.example")

	for _, c := range []struct {
		text string
		want []string
	}{
		{"", []string{"aaron", "mail", "mail0", "mail1", "mail2", "mail2@example.org", "mail3", "mail4", "straße", "Zoe"}},
		{"MAIL", []string{"mail", "mail0", "mail1", "mail2", "mail2@example.org", "mail3", "mail4"}},
		{"ｍａｉｌ2", []string{"mail2", "mail2@example.org"}},
		{"mail2@example.org", []string{"mail2@example.org", "Zoe"}},
		{"MAIL2@EXAMPLE.org", []string{"mail2@example.org", "Zoe"}},
		{"mail2@example.or", []string{"mail2@example.org"}},
		{"mail@example.org", []string{"aaron"}},
		{"mail@example.com", []string{"mail"}},
		{"Ä@xn--bcher-kva.example", []string{"straße"}},
		{"stra", []string{"straße"}},
		{zoe.ID, []string{"Zoe"}},
		{strings.ToUpper(zoe.ID), []string{"Zoe"}},
		{"019ac2f8-3b5e-7000-8000-5a2b3c4d5e6f", nil},
		{"%", nil},
		{"m_il", nil},
		{"ada lovelace", nil},
		{"a,b", nil},
		{"\xff", nil},
		{"mail\x00", nil},
		{"' OR '1'='1", nil},
		{strings.Repeat("m", 100), nil},
		{strings.Repeat("m", 100) + "@example.org", nil},
	} {
		for _, limit := range []int{0, 1, 2, 3, MaxPage} {
			if got := w.found(c.text, Page{Limit: limit}); !slices.Equal(got, c.want) {
				t.Errorf("%q, %d a page: %q, want %q", c.text, limit, got, c.want)
			}
			back := w.found(c.text, Page{Limit: limit, Descending: true})
			slices.Reverse(back)
			if !slices.Equal(back, c.want) {
				t.Errorf("%q backwards, %d a page: %q, want %q", c.text, limit, back, c.want)
			}
		}
	}

	// Before the first item of a page stands what the descending page after its key has.
	page, err := w.FindUsers(ctx, System(), "mail", Page{After: "mail1", Limit: 2})
	if err != nil || len(page.Items) != 2 || page.Items[0].Username != "mail2" {
		t.Fatalf("%+v, %v", page, err)
	}
	before, err := w.FindUsers(ctx, System(), "mail", Page{After: page.Items[0].NameKey, Limit: 2, Descending: true})
	if err != nil || len(before.Items) != 2 || before.Items[0].Username != "mail1" || before.Items[1].Username != "mail0" || before.Next != "mail0" {
		t.Errorf("%+v, %v", before, err)
	}

	// An address that was given up finds nobody, nor does that of a user who is gone.
	if _, err := w.UpdateUser(ctx, System(), zoe.ID, UserPatch{Email: new("zoe@example.org")}); err != nil {
		t.Fatal(err)
	}
	if err := w.DeleteUser(ctx, System(), "aaron"); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][]string{"mail2@example.org": {"mail2@example.org"}, "zoe@example.org": {"Zoe"}, "mail@example.org": nil} {
		if got := w.found(text, Page{}); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	// So does one that a version changed which knows nothing of marks.
	changed := w.stored(zoe)
	changed.Email = "other@example.org"
	if err := w.Store.UpdateUser(ctx, changed); err != nil {
		t.Fatal(err)
	}
	if got := w.found("zoe@example.org", Page{}); got != nil {
		t.Errorf("an address of before finds %q", got)
	}

	for _, p := range []Page{{Limit: -1}, {Limit: MaxPage + 1}, {After: "\xff"}, {After: "\x00"}} {
		if _, err := w.FindUsers(ctx, System(), "mail", p); err == nil {
			t.Errorf("%+v is taken", p)
		}
	}
	for name, want := range map[string]string{"users:read": "", "users:write": "", "groups:write": "permission_missing", "audit:read": "permission_missing"} {
		holder := as(w.user("holds-"+strings.ReplaceAll(name, ":", "-"), "admin="+name))
		users, err := w.UsersWithIDs(ctx, holder, []string{zoe.ID, "nobody", zoe.ID})
		w.attack(err, want)
		if may := want == ""; may != (len(users) == 1 && users[0].ID == zoe.ID && users[0].PasswordHash == "") || !may && len(users) > 0 {
			t.Errorf("%s: by id %v", name, users)
		}
		l, err := w.FindUsers(ctx, holder, "mail", Page{Limit: 300})
		if want == "" {
			want = "invalid_limit"
		}
		w.attack(err, want)
		if len(l.Items) > 0 {
			t.Errorf("%s: %d users", name, len(l.Items))
		}
	}
}

func TestEffectiveClaims(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.group("Readers", "log=r", "shop=buyer")
	w.group("Writers", "log=w", "log=r")
	w.group("Bare")
	if _, err := w.CreateClaim(ctx, System(), NewClaim{Name: "again", ShortName: "log", Value: "r"}); err != nil {
		t.Fatal(err)
	}
	if err := w.AddClaim(ctx, System(), "Readers", "again"); err != nil {
		t.Fatal(err)
	}
	ada, err := w.CreateUser(ctx, System(), NewUser{Username: "ada", Groups: []string{"Writers", "Readers", "Bare", "readers"}})
	if err != nil {
		t.Fatal(err)
	}
	text := func(claims []EffectiveClaim) (all []string) {
		for _, c := range claims {
			line := c.ShortName + "=" + c.Value + " by"
			for _, g := range c.Groups {
				line += " " + g.Name
			}
			all = append(all, line)
		}
		return all
	}
	want := []string{"log=r by Readers Writers", "log=w by Writers", "shop=buyer by Readers"}
	for name, c := range map[string]struct {
		actor Actor
		code  string
	}{
		"system":         {System(), ""},
		"oneself":        {as(ada), ""},
		"both rights":    {as(w.user("both", "admin=users:read", "admin=groups:read")), ""},
		"users alone":    {as(w.user("users", "admin=users:write")), "permission_missing"},
		"groups alone":   {as(w.user("groups", "admin=groups:write")), "permission_missing"},
		"somebody else":  {as(w.user("bob")), "permission_missing"},
		"not for an API": {Actor{ID: ada.ID}, "wrong_audience"},
	} {
		got, err := w.EffectiveClaims(ctx, c.actor, "ada")
		w.attack(err, c.code)
		if c.code == "" && !slices.Equal(text(got), want) || c.code != "" && got != nil {
			t.Errorf("%s: %q, want %q", name, text(got), want)
		}
	}
	if got, err := w.EffectiveClaims(ctx, System(), "bob"); err != nil || len(got) > 0 {
		t.Errorf("bob: %v, %v", got, err)
	}
	_, err = w.EffectiveClaims(ctx, System(), "nobody")
	w.want(err, "user_not_found")
	if _, err := w.UpdateUser(ctx, System(), "ada", UserPatch{Disabled: new(true)}); err != nil {
		t.Fatal(err)
	}
	_, err = w.EffectiveClaims(ctx, as(ada), "ada")
	w.attack(err, "permission_missing")
}
