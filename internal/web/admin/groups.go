package admin

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/web/page"
)

const groupsPath = "/admin/groups"

func (f *face) mountGroups() {
	f.get(groupsPath, f.groups)
	f.get(groupsPath+"/new", f.askGroup)
	f.post(groupsPath+"/new", f.createGroup)
	f.get(groupsPath+"/{id}", f.group)
	f.get(groupsPath+"/{id}/edit", f.askRename)
	f.post(groupsPath+"/{id}/edit", f.renameGroup)
	f.get(groupsPath+"/{id}/delete", f.askDeleteGroup)
	f.post(groupsPath+"/{id}/delete", f.deleteGroup)
	f.post(groupsPath+"/{id}/claims/add", f.giveClaim)
	f.post(groupsPath+"/{id}/claims/remove", f.takeClaim)
	f.post(groupsPath+"/{id}/members/add", f.addMember)
	f.post(groupsPath+"/{id}/members/remove", f.removeMember)
}

func groupPath(id string) string { return groupsPath + "/" + id }

func (f *face) groups(v *visit) error {
	items, list, err := listed(v, groupsPath, func(g store.Group) string { return g.NameKey }, func(p directory.Page) (directory.List[store.Group], error) {
		p.Prefix = v.Field("q")
		return f.Directory.Groups(v.Request.Context(), v.Actor(), p)
	})
	if err != nil {
		return err
	}
	if v.IsHTMX() {
		return v.Fragment(http.StatusOK, groupList(items, list))
	}
	return v.show(page.Layout{Title: "Groups", Active: groupsPath, Live: true, Content: groupsContent(items, list, v.can(directory.GroupsWrite))})
}

// A groupView is a group as its page shows it.
type groupView struct {
	store.Group
	Message     page.Message
	Undo        *undo
	Claims      []store.Claim
	Members     []store.User
	List        listing // of the members
	SeeMembers  bool
	SeeClaims   bool     // the visitor may see the pages of claims
	Missing     []string // rights of the group that the visitor does not hold
	Write       bool     // the visitor may change what the group gives
	Join        bool     // the visitor may change who is in it
	ClaimOffers []string
}

// Beyond reports whether the group gives rights that the visitor does not hold.
func (g groupView) Beyond() bool { return len(g.Missing) > 0 }

func (f *face) groupOf(v *visit) (groupView, error) {
	ctx := v.Request.Context()
	found, err := f.Directory.Group(ctx, v.Actor(), v.Request.PathValue("id"))
	if err != nil {
		return groupView{}, err
	}
	g := groupView{Group: found, SeeMembers: v.can(directory.UsersRead), SeeClaims: v.can(directory.ClaimsRead)}
	if g.Claims, err = f.Directory.ClaimsOfGroup(ctx, v.Actor(), g.ID); err != nil {
		return g, err
	}
	for _, c := range g.Claims {
		if right := (directory.Right{ShortName: c.ShortName, Value: c.Value}); !v.Rights.Holds(right) {
			g.Missing = append(g.Missing, c.ShortName+"="+c.Value)
		}
	}
	g.Write, g.Join = v.can(directory.GroupsWrite) && !g.Beyond(), v.can(directory.UsersWrite) && !g.Beyond()
	if g.SeeMembers {
		if g.Members, g.List, err = listed(v, groupPath(g.ID), func(u store.User) string { return u.NameKey }, func(p directory.Page) (directory.List[store.User], error) {
			p.Prefix = v.Field("q")
			return f.Directory.MembersOfGroup(ctx, v.Actor(), g.ID, p)
		}); err != nil {
			return g, err
		}
	}
	if g.Write {
		claims, err := f.someClaims(v)
		if err != nil {
			return g, err
		}
		for _, c := range claims {
			g.ClaimOffers = append(g.ClaimOffers, c.Name)
		}
	}
	if v.Request.Method == http.MethodGet {
		g.Undo, err = f.undoOfGroup(v, g)
	}
	return g, err
}

// someClaims are claims that a form offers; none if the visitor may not see claims.
func (f *face) someClaims(v *visit) ([]store.Claim, error) {
	if !v.can(directory.ClaimsRead) {
		return nil, nil
	}
	l, err := f.Directory.Claims(v.Request.Context(), v.Actor(), directory.Page{Limit: offered})
	return l.Items, err
}

// undoOfGroup is what the page offers to undo after the change that the address names.
func (f *face) undoOfGroup(v *visit, g groupView) (*undo, error) {
	ctx, id := v.Request.Context(), v.Field("of")
	given := slices.IndexFunc(g.Claims, func(c store.Claim) bool { return c.ID == id })
	switch done := v.Field("done"); {
	case id == "" || !v.WasDone(): // a link
	case done == "given" && g.Write && given >= 0:
		return &undo{Text: g.Name + " now gives " + g.Claims[given].Name + ".", Action: groupPath(g.ID) + "/claims/remove", Name: "claim", Value: id}, nil
	case done == "taken" && g.Write && given < 0:
		name := "the claim"
		if g.SeeClaims {
			c, err := f.Directory.Claim(ctx, v.Actor(), id)
			if errors.Is(err, directory.ErrClaimNotFound) {
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
			name = c.Name
		}
		return &undo{Text: g.Name + " no longer gives " + name + ". The tokens of its members are revoked.", Action: groupPath(g.ID) + "/claims/add", Name: "claim", Value: id}, nil
	case (done == "joined" || done == "left") && g.Join:
		u, err := f.Directory.User(ctx, v.Actor(), id)
		if errors.Is(err, directory.ErrUserNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		groups, err := f.Directory.GroupsOf(ctx, v.Actor(), id)
		if err != nil {
			return nil, err
		}
		switch member := slices.ContainsFunc(groups, func(one store.Group) bool { return one.ID == g.ID }); {
		case member && done == "joined":
			return &undo{Text: u.Username + " is now a member of " + g.Name + ".", Action: groupPath(g.ID) + "/members/remove", Name: "user", Value: id}, nil
		case !member && done == "left":
			return &undo{Text: u.Username + " is no longer a member of " + g.Name + ". Their tokens are revoked.", Action: groupPath(g.ID) + "/members/add", Name: "user", Value: id}, nil
		}
	}
	return nil, nil
}

func groupLayout(g groupView) page.Layout {
	return page.Layout{Title: g.Name, Active: groupsPath, Live: true, Content: groupContent(g)}
}

func (f *face) group(v *visit) error {
	g, err := f.groupOf(v)
	if err != nil {
		return err
	}
	if v.IsHTMX() {
		return v.Fragment(http.StatusOK, memberList(g))
	}
	return v.show(groupLayout(g))
}

// groupChanged leads to a group's page after a change, or shows it with what an error says.
func (f *face) groupChanged(v *visit, err error, to string) error {
	if err == nil {
		return v.Done(to)
	}
	if errors.Is(err, directory.ErrGroupNotFound) {
		return err
	}
	g, failed := f.groupOf(v)
	if failed != nil {
		return err
	}
	return v.retry(err, func(m page.Message) page.Layout {
		g.Message = m
		return groupLayout(g)
	})
}

// A groupForm is the form of a new group.
type groupForm struct {
	Message page.Message
	Name    string
	Claims  []page.Option
}

func (f *face) newGroupForm(v *visit) (groupForm, error) {
	form := groupForm{Name: v.Field("name")}
	claims, err := f.someClaims(v)
	for _, c := range claims {
		if v.Rights.Holds(directory.Right{ShortName: c.ShortName, Value: c.Value}) {
			form.Claims = append(form.Claims, page.Option{
				Value: c.ID, Text: c.Name + " (" + c.ShortName + "=" + c.Value + ")", Selected: slices.Contains(v.Fields("claims[]"), c.ID),
			})
		}
	}
	return form, err
}

func (f *face) askGroup(v *visit) error {
	if err := f.Directory.Authorize(v.Request.Context(), v.Actor(), directory.GroupsWrite); err != nil {
		return err
	}
	form, err := f.newGroupForm(v)
	if err != nil {
		return err
	}
	return v.show(page.Layout{Title: "New group", Active: groupsPath, Content: groupFormContent(form)})
}

func (f *face) createGroup(v *visit) error {
	g, err := f.Directory.CreateGroup(v.Request.Context(), v.Actor(), directory.NewGroup{Name: v.Field("name"), Claims: v.Fields("claims[]")})
	if err == nil {
		v.Flash(page.Success, g.Name+" has been created.")
		return v.Redirect(groupPath(g.ID))
	}
	form, failed := f.newGroupForm(v)
	if failed != nil {
		return err
	}
	return v.retry(err, func(m page.Message) page.Layout {
		form.Message = m
		return page.Layout{Title: "New group", Active: groupsPath, Content: groupFormContent(form)}
	})
}

func renameLayout(g groupView, name string) page.Layout {
	return page.Layout{Title: "Rename " + g.Name, Active: groupsPath, Content: renameContent(g, name, strconv.FormatInt(g.Version, 10))}
}

func (f *face) askRename(v *visit) error {
	if err := f.Directory.Authorize(v.Request.Context(), v.Actor(), directory.GroupsWrite); err != nil {
		return err
	}
	g, err := f.groupOf(v)
	if err != nil {
		return err
	}
	return v.show(renameLayout(g, g.Name))
}

func (f *face) renameGroup(v *visit) error {
	name := v.Field("name")
	g, err := f.Directory.UpdateGroup(v.Request.Context(), v.Actor(), v.Request.PathValue("id"), directory.GroupPatch{Name: &name, Version: version(v)})
	if err == nil {
		v.Flash(page.Success, "The group is called "+g.Name+" now.")
		return v.Redirect(groupPath(g.ID))
	}
	found, failed := f.groupOf(v)
	if failed != nil || errors.Is(err, directory.ErrGroupNotFound) {
		return err
	}
	return v.retry(err, func(m page.Message) page.Layout {
		found.Message = m
		return renameLayout(found, name)
	})
}

func (f *face) askDeleteGroup(v *visit) error {
	if err := f.Directory.Authorize(v.Request.Context(), v.Actor(), directory.GroupsWrite); err != nil {
		return err
	}
	g, err := f.groupOf(v)
	if err != nil {
		return err
	}
	text := "Deleting the group " + g.Name
	var gives []string
	for _, c := range g.Claims {
		gives = append(gives, c.ShortName+"="+c.Value)
	}
	members := "its members"
	switch n := len(g.Members); {
	case !g.SeeMembers:
	case n == 0:
		members = "nobody, because it has no members"
	case g.List.Pages.Next != "":
		members = "its more than " + strconv.Itoa(n) + " members"
	default:
		members = "its " + count(n, "member", "members")
	}
	if len(gives) == 0 {
		text += " takes no claims from " + members + "."
	} else {
		text += " takes " + enumerate(gives) + " from " + members + "."
	}
	if len(gives) > 0 && (!g.SeeMembers || len(g.Members) > 0) {
		text += " Their tokens are revoked; their sessions go on."
	}
	return v.show(page.Layout{Title: "Delete " + g.Name, Active: groupsPath, Content: page.Confirm(page.Confirmation{
		Action: groupPath(g.ID) + "/delete", Text: text + " This cannot be undone.", Button: "Delete " + g.Name, Danger: true, Cancel: groupPath(g.ID),
		Fields: map[string]string{"name": g.Name},
	})})
}

func (f *face) deleteGroup(v *visit) error {
	if err := f.Directory.DeleteGroup(v.Request.Context(), v.Actor(), v.Request.PathValue("id")); err != nil {
		return f.groupChanged(v, err, "")
	}
	v.Flash(page.Success, cmp.Or(v.Field("name"), "The group")+" has been deleted.")
	return v.Redirect(groupsPath)
}

func (f *face) giveClaim(v *visit) error {
	ctx, id, ref := v.Request.Context(), v.Request.PathValue("id"), v.Field("claim")
	err := f.Directory.AddClaim(ctx, v.Actor(), id, ref)
	if err == nil { // the page names it by its id
		if claims, err := f.Directory.ClaimsOfGroup(ctx, v.Actor(), id); err == nil {
			for _, c := range claims {
				if strings.EqualFold(c.Name, ref) {
					ref = c.ID
				}
			}
		}
	}
	return f.groupChanged(v, err, linkTo(groupPath(id), "done", "given", "of", ref))
}

func (f *face) takeClaim(v *visit) error {
	id, claim := v.Request.PathValue("id"), v.Field("claim")
	err := f.Directory.RemoveClaim(v.Request.Context(), v.Actor(), id, claim)
	return f.groupChanged(v, err, linkTo(groupPath(id), "done", "taken", "of", claim))
}

func (f *face) addMember(v *visit) error {
	ctx, id, ref := v.Request.Context(), v.Request.PathValue("id"), v.Field("user")
	err := f.Directory.AddToGroup(ctx, v.Actor(), ref, id)
	if err == nil {
		if u, err := f.Directory.User(ctx, v.Actor(), ref); err == nil {
			ref = u.ID
		}
	}
	return f.groupChanged(v, err, linkTo(groupPath(id), "done", "joined", "of", ref))
}

func (f *face) removeMember(v *visit) error {
	id, user := v.Request.PathValue("id"), v.Field("user")
	err := f.Directory.RemoveFromGroup(v.Request.Context(), v.Actor(), user, id)
	return f.groupChanged(v, err, linkTo(groupPath(id), "done", "left", "of", user))
}
