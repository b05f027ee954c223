package admin

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/a-h/templ"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/web/page"
)

const usersPath = "/admin/users"

// offered is how many groups or claims a form offers.
const offered = 100

func (f *face) mountUsers() {
	f.get(usersPath, f.users)
	f.get(usersPath+"/new", f.askUser)
	f.post(usersPath+"/new", f.createUser)
	f.get(usersPath+"/{id}", f.user)
	// One pattern for all parts: a second one beside /admin/users/import/{id} would contradict it.
	f.get(usersPath+"/{id}/{part}", part(map[string]func(*visit) error{
		"edit": f.askEdit, "password": f.askPassword, "delete": f.askDelete, "token": f.userToken,
		"factors": f.userFactors, "recovery": f.askRecovery, "sessions": f.userSessions, "events": f.userEvents,
	}))
	f.post(usersPath+"/{id}/{part}", part(map[string]func(*visit) error{
		"edit": f.editUser, "password": f.setPassword, "delete": f.deleteUser, "disable": f.disableUser, "enable": f.enableUser,
		"recovery": f.issueRecovery,
	}))
	f.post(usersPath+"/{id}/groups/add", f.joinGroup)
	f.post(usersPath+"/{id}/groups/remove", f.leaveGroup)
	f.get(usersPath+"/{id}/factors/remove", f.askRemoveFactor)
	f.post(usersPath+"/{id}/factors/remove", f.removeFactor)
	f.get(usersPath+"/{id}/factors/reset", f.askResetFactors)
	f.post(usersPath+"/{id}/factors/reset", f.resetFactors)
	f.get(usersPath+"/{id}/sessions/end", f.askEndSession)
	f.post(usersPath+"/{id}/sessions/end", f.endSession)
	f.get(usersPath+"/{id}/sessions/end-all", f.askEndSessions)
	f.post(usersPath+"/{id}/sessions/end-all", f.endSessions)
}

var errNoPart = problem.New(problem.NotFound, "no_such_page", "there is no such page")

// part calls the handler of the part that the path names.
func part(parts map[string]func(*visit) error) func(*visit) error {
	return func(v *visit) error {
		h, ok := parts[v.Request.PathValue("part")]
		if !ok {
			return errNoPart
		}
		return h(v)
	}
}

func userPath(id string) string { return usersPath + "/" + id }

func (f *face) users(v *visit) error {
	items, list, err := listed(v, usersPath, func(u store.User) string { return u.NameKey }, func(p directory.Page) (directory.List[store.User], error) {
		return f.Directory.FindUsers(v.Request.Context(), v.Actor(), v.Field("q"), p)
	})
	if err != nil {
		return err
	}
	if v.IsHTMX() {
		return v.Fragment(http.StatusOK, userList(items, list, v.can(directory.UsersWrite)))
	}
	return v.show(page.Layout{Title: "Users", Active: usersPath, Live: true, Content: usersContent(items, list, v.can(directory.UsersWrite))})
}

// A person is a user as their page shows them.
type person struct {
	store.User
	Message page.Message
	Undo    *undo
	Self    bool // the user is the visitor
	// Beyond: the user holds rights that the visitor does not hold, so that the visitor may not
	// change the user. Missing are those rights, as far as the visitor may see them.
	Beyond  bool
	Missing []string
	// What the visitor may do to the user.
	Write, Sessions, EndOne, EndAll, Groups, Events, Token bool
}

// meet finds out what the visitor may do to a user.
func (f *face) meet(v *visit, u store.User) (person, error) {
	ctx := v.Request.Context()
	p := person{User: u, Self: u.ID == v.User.ID}
	_, err := f.Directory.AuthorizeOn(ctx, v.Actor(), directory.UsersRead, u.ID)
	switch {
	case errors.Is(err, directory.ErrBeyondOwnRights):
		p.Beyond = true
	case err != nil && !errors.Is(err, directory.ErrPermissionMissing):
		return p, err
	}
	p.Groups = v.can(directory.GroupsRead) || p.Self
	if p.Beyond && p.Groups {
		claims, err := f.Directory.EffectiveClaims(ctx, v.Actor(), u.ID)
		if err != nil {
			return p, err
		}
		for _, c := range claims {
			if !v.Rights.Holds(directory.Right{ShortName: c.ShortName, Value: c.Value}) {
				p.Missing = append(p.Missing, c.ShortName+"="+c.Value)
			}
		}
	}
	can := func(permission string) bool { return v.can(permission) && !p.Beyond }
	p.Write, p.EndAll = can(directory.UsersWrite), can(directory.SessionsWrite)
	p.EndOne = v.mayEndOneOf(u.ID) && !p.Beyond
	p.Sessions = can(directory.SessionsRead) || p.Self
	p.Token = can(directory.UsersRead)
	p.Events = v.can(directory.AuditRead)
	return p, nil
}

// someone returns the user whom the path names, as a visitor sees them who may read users.
func (f *face) someone(v *visit) (person, error) {
	u, err := f.Directory.User(v.Request.Context(), v.Actor(), v.Request.PathValue("id"))
	if err != nil {
		return person{}, err
	}
	return f.meet(v, u)
}

// fullName is the name of a user as people say it.
func fullName(u store.User) string { return strings.TrimSpace(u.FirstName + " " + u.LastName) }

// tabs are the parts of a user's page that the visitor may see.
func (p person) tabs(active string) []page.Tab {
	var tabs []page.Tab
	for _, t := range []struct {
		part, text string
		may        bool
	}{{"", "Details", true}, {"token", "Claims and token", true}, {"factors", "Second factors", true}, {"sessions", "Sessions", p.Sessions}, {"events", "Events", p.Events}} {
		href := userPath(p.ID)
		if t.part != "" {
			href += "/" + t.part
		}
		if t.may {
			tabs = append(tabs, page.Tab{Href: href, Text: t.text, Active: t.part == active})
		}
	}
	return tabs
}

// layout is a part of a user's page.
func (p person) layout(tab string, content templ.Component) page.Layout {
	return page.Layout{Title: p.Username, Active: usersPath, Content: userFrame(p, tab, content)}
}

// question is a page that asks something about a user.
func (p person) question(title string, c page.Confirmation) page.Layout {
	c.Cancel = cmp.Or(c.Cancel, userPath(p.ID))
	return page.Layout{Title: title, Active: usersPath, Content: page.Confirm(c)}
}

func (f *face) user(v *visit) error {
	p, err := f.someone(v)
	if err != nil {
		return err
	}
	l, err := f.details(v, p)
	if err != nil {
		return err
	}
	return v.show(l)
}

// details is the first part of a user's page.
func (f *face) details(v *visit, p person) (page.Layout, error) {
	groups, err := f.Directory.GroupsOf(v.Request.Context(), v.Actor(), p.ID)
	if err != nil {
		return page.Layout{}, err
	}
	var names []string
	if p.Write {
		if names, err = f.groupNames(v); err != nil {
			return page.Layout{}, err
		}
	}
	if p.Write && v.Request.Method == http.MethodGet {
		if p.Undo, err = f.undoOfUser(v, p, groups); err != nil {
			return page.Layout{}, err
		}
	}
	return p.layout("", userDetails(p, groups, names, v.can(directory.GroupsRead))), nil
}

// groupNames are the names of groups that a form offers; none if the visitor may not see groups.
func (f *face) groupNames(v *visit) ([]string, error) {
	groups, err := f.someGroups(v)
	var names []string
	for _, g := range groups {
		names = append(names, g.Name)
	}
	return names, err
}

// someGroups are groups that a form offers; none if the visitor may not see groups.
func (f *face) someGroups(v *visit) ([]store.Group, error) {
	if !v.can(directory.GroupsRead) {
		return nil, nil
	}
	l, err := f.Directory.Groups(v.Request.Context(), v.Actor(), directory.Page{Limit: offered})
	return l.Items, err
}

// undoOfUser is what the page offers to undo after the change that the address names.
func (f *face) undoOfUser(v *visit, p person, groups []store.Group) (*undo, error) {
	id := v.Field("group")
	at := slices.IndexFunc(groups, func(g store.Group) bool { return g.ID == id })
	switch done := v.Field("done"); {
	case !v.WasDone(): // a link
	case done == "disabled" && p.Disabled:
		return &undo{Text: p.Username + " is disabled. Their sessions have ended and their tokens are revoked.", Action: userPath(p.ID) + "/enable"}, nil
	case done == "enabled" && !p.Disabled:
		return &undo{Text: p.Username + " can sign in again.", Action: userPath(p.ID) + "/disable"}, nil
	case done == "joined" && at >= 0:
		return &undo{Text: p.Username + " is now a member of " + groups[at].Name + ".", Action: userPath(p.ID) + "/groups/remove", Name: "group", Value: id}, nil
	case done == "left" && at < 0 && id != "":
		name := "the group"
		if v.can(directory.GroupsRead) {
			g, err := f.Directory.Group(v.Request.Context(), v.Actor(), id)
			if errors.Is(err, directory.ErrGroupNotFound) {
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
			name = g.Name
		}
		return &undo{Text: p.Username + " is no longer a member of " + name + ". Their tokens are revoked.", Action: userPath(p.ID) + "/groups/add", Name: "group", Value: id}, nil
	}
	return nil, nil
}

// changed leads to the user's page after a change, or shows it with what an error says.
func (f *face) changed(v *visit, err error, to string) error {
	if err == nil {
		return v.Done(to)
	}
	if errors.Is(err, directory.ErrUserNotFound) {
		return err
	}
	p, failed := f.someone(v)
	if failed != nil {
		return err
	}
	return v.again(err, func(m page.Message) (page.Layout, error) {
		p.Message = m
		return f.details(v, p)
	})
}

func (f *face) disableUser(v *visit) error { return f.setDisabled(v, true, "disabled") }
func (f *face) enableUser(v *visit) error  { return f.setDisabled(v, false, "enabled") }

func (f *face) setDisabled(v *visit, disabled bool, done string) error {
	u, err := f.Directory.UpdateUser(v.Request.Context(), v.Actor(), v.Request.PathValue("id"), directory.UserPatch{Disabled: &disabled})
	return f.changed(v, err, linkTo(userPath(u.ID), "done", done))
}

func (f *face) joinGroup(v *visit) error {
	ctx, id, ref := v.Request.Context(), v.Request.PathValue("id"), v.Field("group")
	if err := f.Directory.AddToGroup(ctx, v.Actor(), id, ref); err != nil {
		return f.changed(v, err, "")
	}
	// The page names it by its id.
	if groups, err := f.Directory.GroupsOf(ctx, v.Actor(), id); err == nil {
		for _, g := range groups {
			if g.ID == ref || strings.EqualFold(g.Name, ref) {
				return v.Done(linkTo(userPath(id), "done", "joined", "group", g.ID))
			}
		}
	}
	v.Flash(page.Success, "The user is now a member of the group.")
	return v.Redirect(userPath(id))
}

func (f *face) leaveGroup(v *visit) error {
	id, group := v.Request.PathValue("id"), v.Field("group")
	err := f.Directory.RemoveFromGroup(v.Request.Context(), v.Actor(), id, group)
	return f.changed(v, err, linkTo(userPath(id), "done", "left", "group", group))
}

// A userForm is the form of a new or changed user.
type userForm struct {
	ID          string // empty: a new user
	Message     page.Message
	Fields      func(name string) string // what was typed, or what there is
	Verified    bool
	MayVerify   bool
	WasVerified bool
	Groups      []page.Option
	MoreGroups  bool
	Recovery    bool
	Version     string
	Invalid     string // the field of the message; empty: none
}

// fieldOf are the fields that problems of users are about, by code.
var fieldOf = map[string]string{
	"invalid_username": "username", "username_taken": "username", "username_confusable": "username", "name_reserved": "username",
	"username_mixes_scripts": "username", "name_of_stronger": "username",
	"invalid_email": "email", "email_taken": "email", "email_missing": "email",
	"password_too_short": "password", "invalid_password": "password",
}

// wrong returns what is wrong with a field.
func (u userForm) wrong(field string) string {
	if u.Invalid == field {
		return u.Message.Text
	}
	return ""
}

// refuse puts a message to the field that it is about.
func (u userForm) refuse(m page.Message) userForm {
	u.Message, u.Invalid = m, fieldOf[m.Code]
	if m.Code == "invalid_name" {
		u.Invalid = "first_name"
		if _, err := names.Person(u.Fields("first_name")); err == nil {
			u.Invalid = "last_name"
		}
	}
	return u
}

func (f *face) newUserForm(v *visit) (userForm, error) {
	form := userForm{Fields: v.Field, Verified: v.Field("email_verified") != "", MayVerify: v.can(directory.UsersVerify), Recovery: v.Field("first") == "link"}
	groups, err := f.someGroups(v)
	for _, g := range groups {
		form.Groups = append(form.Groups, page.Option{Value: g.ID, Text: g.Name, Selected: slices.Contains(v.Fields("groups[]"), g.ID)})
	}
	form.MoreGroups = len(groups) == offered
	return form, err
}

func (f *face) askUser(v *visit) error {
	if err := f.Directory.Authorize(v.Request.Context(), v.Actor(), directory.UsersWrite); err != nil {
		return err
	}
	form, err := f.newUserForm(v)
	if err != nil {
		return err
	}
	return v.show(page.Layout{Title: "New user", Active: usersPath, Content: userFormContent(form)})
}

func (f *face) createUser(v *visit) error {
	ctx := v.Request.Context()
	link := v.Field("first") == "link"
	n := directory.NewUser{
		Username: v.Field("username"), Email: v.Field("email"), EmailVerified: v.Field("email_verified") != "",
		FirstName: v.Field("first_name"), LastName: v.Field("last_name"), Groups: v.Fields("groups[]"),
	}
	if !link {
		n.Password = v.Form().Get("password")
	}
	u, err := f.Directory.CreateUser(ctx, v.Actor(), n)
	if err != nil {
		form, failed := f.newUserForm(v)
		if failed != nil {
			return err
		}
		return v.retry(err, func(m page.Message) page.Layout {
			return page.Layout{Title: "New user", Active: usersPath, Content: userFormContent(form.refuse(m))}
		})
	}
	if !link {
		v.Flash(page.Success, u.Username+" has been created.")
		return v.Redirect(userPath(u.ID))
	}
	p, err := f.meet(v, u)
	if err == nil {
		err = f.showRecovery(v, p, false, 0)
	}
	if err != nil { // the user is there, and another link can be made
		v.Flash(page.Warning, u.Username+" has been created, but no recovery link: "+v.Problem(err).Text)
		return v.Redirect(userPath(u.ID))
	}
	return nil
}

// editForm is the form of a user as they are.
func (f *face) editForm(v *visit, p person) userForm {
	now := map[string]string{"username": p.Username, "email": p.Email, "first_name": p.FirstName, "last_name": p.LastName}
	return userForm{
		ID: p.ID, Fields: func(name string) string { return now[name] }, Verified: p.EmailVerified, WasVerified: p.EmailVerified,
		MayVerify: v.can(directory.UsersVerify) || p.EmailVerified, Version: strconv.FormatInt(p.Version, 10),
	}
}

// changeable returns the user whom the path names, if the visitor may change them now.
func (f *face) changeable(v *visit) (person, error) {
	u, err := f.Directory.AuthorizeOn(v.Request.Context(), v.Actor(), directory.UsersWrite, v.Request.PathValue("id"))
	if err != nil {
		return person{}, err
	}
	return f.meet(v, u)
}

func (f *face) askEdit(v *visit) error {
	p, err := f.changeable(v)
	if err != nil {
		return err
	}
	return v.show(page.Layout{Title: "Edit " + p.Username, Active: usersPath, Content: userFormContent(f.editForm(v, p))})
}

func (f *face) editUser(v *visit) error {
	ctx, id := v.Request.Context(), v.Request.PathValue("id")
	field := func(name string) *string { s := v.Field(name); return &s }
	verified := v.Field("email_verified") != ""
	patch := directory.UserPatch{
		Username: field("username"), Email: field("email"), FirstName: field("first_name"), LastName: field("last_name"),
		EmailVerified: &verified, Version: version(v),
	}
	if verified && v.Field("verified") != "" || *patch.Email == "" {
		patch.EmailVerified = nil // it stays as it is, and another address is not verified yet
	}
	u, err := f.Directory.UpdateUser(ctx, v.Actor(), id, patch)
	if err == nil {
		v.Flash(page.Success, u.Username+" has been changed.")
		return v.Redirect(userPath(u.ID))
	}
	p, failed := f.someone(v)
	if failed != nil || errors.Is(err, directory.ErrUserNotFound) {
		return err
	}
	return v.retry(err, func(m page.Message) page.Layout {
		form := f.editForm(v, p) // with the version of what there is now
		form.Fields, form.Verified = v.Field, verified
		content := userFormContent(form.refuse(m))
		if m.Code == directory.ErrChangedMeanwhile.Code {
			content = editConflict(p, content)
		}
		return page.Layout{Title: "Edit " + p.Username, Active: usersPath, Content: content}
	})
}

// version is that of the thing that a form was filled with; nil: the form has none.
func version(v *visit) *int64 {
	n, err := strconv.ParseInt(v.Field("version"), 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

func (f *face) askPassword(v *visit) error {
	p, err := f.changeable(v)
	if err != nil {
		return err
	}
	if p.Self {
		return v.Redirect("/account/password")
	}
	return v.show(passwordLayout(p))
}

func passwordLayout(p person) page.Layout {
	return page.Layout{Title: "New password for " + p.Username, Active: usersPath, Content: passwordContent(p)}
}

func (f *face) setPassword(v *visit) error {
	id := v.Request.PathValue("id")
	err := f.Directory.SetPassword(v.Request.Context(), v.Actor(), id, v.Form().Get("password"))
	if err == nil {
		v.Flash(page.Success, "The password is set. The user's sessions have ended and their tokens are revoked.")
		return v.Redirect(userPath(id))
	}
	p, failed := f.someone(v)
	if failed != nil || errors.Is(err, directory.ErrUserNotFound) {
		return err
	}
	return v.retry(err, func(m page.Message) page.Layout {
		p.Message = m
		return passwordLayout(p)
	})
}

func (f *face) askDelete(v *visit) error {
	p, err := f.changeable(v)
	if err != nil {
		return err
	}
	groups, err := f.Directory.GroupsOf(v.Request.Context(), v.Actor(), p.ID)
	if err != nil {
		return err
	}
	factors, err := f.Factors.Overview(v.Request.Context(), v.Actor(), p.ID)
	if err != nil {
		return err
	}
	text := "Deleting " + p.Username + " ends their sessions and revokes their tokens."
	if n := len(factors.Factors); n > 0 {
		text += " It removes " + count(n, "second factor", "second factors") + "."
	}
	if len(groups) > 0 {
		var names []string
		for _, g := range groups {
			names = append(names, g.Name)
		}
		text += " They are no longer a member of " + enumerate(names) + "."
	}
	if p.Self {
		text += " This is your own account: you will be signed out."
	}
	return v.show(p.question("Delete "+p.Username, page.Confirmation{
		Action: userPath(p.ID) + "/delete", Text: text + " This cannot be undone.", Button: "Delete " + p.Username, Danger: true,
		Fields: map[string]string{"name": p.Username},
	}))
}

func (f *face) deleteUser(v *visit) error {
	err := f.Directory.DeleteUser(v.Request.Context(), v.Actor(), v.Request.PathValue("id"))
	if err != nil {
		return f.changed(v, err, "")
	}
	v.Flash(page.Success, cmp.Or(v.Field("name"), "The user")+" has been deleted.")
	return v.Redirect(usersPath)
}

// count is a number with its word.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// enumerate joins names as a sentence does, and counts those for which there is no room.
func enumerate(names []string) string {
	const most = 5
	if len(names) > most {
		names = append(slices.Clone(names[:most]), strconv.Itoa(len(names)-most)+" more")
	}
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}
