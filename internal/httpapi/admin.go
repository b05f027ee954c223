package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/store"
)

// Admin is the administration of users, groups and claims. Who may do what is
// the directory's matter.
type Admin struct{ Directory *directory.Service }

// Mount adds the routes.
func (a *Admin) Mount(api *httpkit.API) {
	a.mountUsers(api)
	a.mountGroups(api)
	a.mountClaims(api)
}

// endpoint names an operation of administration; the tag is the resource. The errors are those that it
// has beside the usual ones.
func endpoint(method, path, tag, id, summary string, errors ...int) huma.Operation {
	op := huma.Operation{OperationID: id, Method: method, Path: path, Tags: []string{tag}, Summary: summary}
	op.Errors = append(errors, http.StatusForbidden)
	if method != http.MethodGet {
		op.Errors = append(op.Errors, http.StatusConflict)
	}
	switch method {
	case http.MethodPost:
		op.DefaultStatus = http.StatusCreated
	case http.MethodDelete:
		op.DefaultStatus = http.StatusNoContent
	}
	return httpkit.Administration(op)
}

// link is an endpoint that ties two things together: nothing new to be shown.
func link(path, tag, id, summary string) huma.Operation {
	op := endpoint(http.MethodPost, path, tag, id, summary)
	op.DefaultStatus = http.StatusNoContent
	return op
}

// PageQuery asks for a part of a list (exported: huma sees no other embedded fields).
type PageQuery struct {
	After  string `query:"after" maxLength:"512" doc:"next of the page before"`
	Prefix string `query:"prefix" maxLength:"256" doc:"only names that begin with this"`
	Limit  int    `query:"limit" minimum:"0" maximum:"200" doc:"how many; 0 means 50"`
}

func (p PageQuery) page() directory.Page {
	return directory.Page{After: p.After, Prefix: p.Prefix, Limit: p.Limit}
}

// output is an answer with a body.
type output[T any] struct{ Body T }

// answerWith shows what a use case returned.
func answerWith[T, V any](view func(T) V, v T, err error) (*output[V], error) {
	if err != nil {
		return nil, err
	}
	return &output[V]{view(v)}, nil
}

// views shows each item of a list.
func views[T, V any](view func(T) V, items []T) []V {
	out := make([]V, 0, len(items))
	for _, one := range items {
		out = append(out, view(one))
	}
	return out
}

// User is a user as administrators see it.
type User struct {
	ID            string       `json:"id" doc:"the token's sub"`
	Username      string       `json:"username"`
	Email         string       `json:"email"`
	EmailVerified bool         `json:"email_verified" doc:"whether an administrator with users:verify said that the address is the user's"`
	FirstName     string       `json:"first_name"`
	LastName      string       `json:"last_name"`
	Disabled      bool         `json:"disabled"`
	CreatedAt     httpkit.Time `json:"created_at"`
	UpdatedAt     httpkit.Time `json:"updated_at"`
}

// UserList is a page of users.
type UserList struct {
	Users []User `json:"users"`
	Next  string `json:"next,omitempty" doc:"for after; missing on the last page"`
}

// NewUser is the body of POST /api/users.
type NewUser struct {
	Username      string   `json:"username" doc:"of one script, and not like another user's"`
	Password      string   `json:"password,omitempty" format:"password" doc:"left out: no login by password"`
	Email         string   `json:"email,omitempty" doc:"that no other user has; case does not count"`
	EmailVerified bool     `json:"email_verified,omitempty" doc:"the address is the user's; true needs users:verify"`
	FirstName     string   `json:"first_name,omitempty"`
	LastName      string   `json:"last_name,omitempty"`
	Disabled      bool     `json:"disabled,omitempty"`
	Groups        []string `json:"groups,omitempty" maxItems:"100" doc:"by id or name"`
}

// UserPatch is the body of PATCH /api/users/{id}: what is left out stays.
type UserPatch struct {
	Username      *string `json:"username,omitempty" doc:"another username, name or e-mail address revokes the user's tokens; the sessions go on"`
	Password      *string `json:"password,omitempty" format:"password" doc:"ends all sessions of the user; one's own is changed by PUT /api/me/password"`
	Email         *string `json:"email,omitempty" doc:"another address is not verified"`
	EmailVerified *bool   `json:"email_verified,omitempty" doc:"true needs users:verify"`
	FirstName     *string `json:"first_name,omitempty"`
	LastName      *string `json:"last_name,omitempty"`
	Disabled      *bool   `json:"disabled,omitempty" doc:"true ends all sessions of the user"`
}

// GroupRef names a group.
type GroupRef struct {
	Group string `json:"group" doc:"by id or name"`
}

func (a *Admin) mountUsers(api *httpkit.API) {
	const path, one = "/api/users", "/api/users/{id}"
	httpkit.Register(api, endpoint(http.MethodGet, path, "users", "list-users", "Users in the order of their names"),
		func(ctx context.Context, c httpkit.Caller, in *PageQuery) (*output[UserList], error) {
			l, err := a.Directory.Users(ctx, c.Actor(), in.page())
			return answerWith(userList, l, err)
		})
	httpkit.Register(api, endpoint(http.MethodPost, path, "users", "create-user", "Make a user", http.StatusNotFound, http.StatusTooManyRequests),
		func(ctx context.Context, c httpkit.Caller, in *struct{ Body NewUser }) (*output[User], error) {
			u, err := a.Directory.CreateUser(ctx, c.Actor(), directory.NewUser{
				Username: in.Body.Username, Password: in.Body.Password, Email: in.Body.Email, EmailVerified: in.Body.EmailVerified,
				FirstName: in.Body.FirstName, LastName: in.Body.LastName, Disabled: in.Body.Disabled, Groups: in.Body.Groups,
			})
			return answerWith(userView, u, err)
		})
	httpkit.Register(api, endpoint(http.MethodGet, one, "users", "get-user", "One user; oneself always"),
		func(ctx context.Context, c httpkit.Caller, in *PathID) (*output[User], error) {
			u, err := a.Directory.User(ctx, c.Actor(), in.ID)
			return answerWith(userView, u, err)
		})
	httpkit.Register(api, endpoint(http.MethodPatch, one, "users", "update-user", "Change a user", http.StatusTooManyRequests),
		func(ctx context.Context, c httpkit.Caller, in *struct {
			PathID
			Body UserPatch
		}) (*output[User], error) {
			u, err := a.Directory.UpdateUser(ctx, c.Actor(), in.ID, directory.UserPatch{
				Username: in.Body.Username, Password: in.Body.Password, Email: in.Body.Email, EmailVerified: in.Body.EmailVerified,
				FirstName: in.Body.FirstName, LastName: in.Body.LastName, Disabled: in.Body.Disabled,
			})
			return answerWith(userView, u, err)
		})
	httpkit.Register(api, endpoint(http.MethodDelete, one, "users", "delete-user", "Delete a user, its sessions and its tokens"),
		func(ctx context.Context, c httpkit.Caller, in *PathID) (*noContent, error) {
			return nil, a.Directory.DeleteUser(ctx, c.Actor(), in.ID)
		})
	httpkit.Register(api, endpoint(http.MethodGet, one+"/groups", "users", "list-user-groups", "The groups of a user"),
		func(ctx context.Context, c httpkit.Caller, in *PathID) (*output[GroupList], error) {
			groups, err := a.Directory.GroupsOf(ctx, c.Actor(), in.ID)
			return answerWith(func(g []store.Group) GroupList { return GroupList{Groups: views(groupView, g)} }, groups, err)
		})
	httpkit.Register(api, link(one+"/groups", "users", "add-user-to-group", "Make a user a member of a group"),
		func(ctx context.Context, c httpkit.Caller, in *struct {
			PathID
			Body GroupRef
		}) (*noContent, error) {
			return nil, a.Directory.AddToGroup(ctx, c.Actor(), in.ID, in.Body.Group)
		})
	httpkit.Register(api, endpoint(http.MethodDelete, one+"/groups/{group}", "users", "remove-user-from-group", "End a user's membership of a group"),
		func(ctx context.Context, c httpkit.Caller, in *struct {
			PathID
			Group string `path:"group" maxLength:"256"`
		}) (*noContent, error) {
			return nil, a.Directory.RemoveFromGroup(ctx, c.Actor(), in.ID, in.Group)
		})
}

// Group is a group.
type Group struct {
	ID        string       `json:"id"`
	Name      string       `json:"name"`
	CreatedAt httpkit.Time `json:"created_at"`
	UpdatedAt httpkit.Time `json:"updated_at"`
}

// GroupList is a page of groups.
type GroupList struct {
	Groups []Group `json:"groups"`
	Next   string  `json:"next,omitempty" doc:"for after; missing on the last page"`
}

// NewGroup is the body of POST /api/groups.
type NewGroup struct {
	Name   string   `json:"name"`
	Claims []string `json:"claims,omitempty" maxItems:"100" doc:"by id or name"`
}

// GroupPatch is the body of PATCH /api/groups/{id}.
type GroupPatch struct {
	Name *string `json:"name,omitempty"`
}

// ClaimRef names a claim.
type ClaimRef struct {
	Claim string `json:"claim" doc:"by id or name"`
}

func (a *Admin) mountGroups(api *httpkit.API) {
	const path, one = "/api/groups", "/api/groups/{id}"
	httpkit.Register(api, endpoint(http.MethodGet, path, "groups", "list-groups", "Groups in the order of their names"),
		func(ctx context.Context, c httpkit.Caller, in *PageQuery) (*output[GroupList], error) {
			l, err := a.Directory.Groups(ctx, c.Actor(), in.page())
			return answerWith(groupList, l, err)
		})
	httpkit.Register(api, endpoint(http.MethodPost, path, "groups", "create-group", "Make a group", http.StatusNotFound),
		func(ctx context.Context, c httpkit.Caller, in *struct{ Body NewGroup }) (*output[Group], error) {
			g, err := a.Directory.CreateGroup(ctx, c.Actor(), directory.NewGroup{Name: in.Body.Name, Claims: in.Body.Claims})
			return answerWith(groupView, g, err)
		})
	httpkit.Register(api, endpoint(http.MethodGet, one, "groups", "get-group", "One group"),
		func(ctx context.Context, c httpkit.Caller, in *PathID) (*output[Group], error) {
			g, err := a.Directory.Group(ctx, c.Actor(), in.ID)
			return answerWith(groupView, g, err)
		})
	httpkit.Register(api, endpoint(http.MethodPatch, one, "groups", "update-group", "Change a group"),
		func(ctx context.Context, c httpkit.Caller, in *struct {
			PathID
			Body GroupPatch
		}) (*output[Group], error) {
			g, err := a.Directory.UpdateGroup(ctx, c.Actor(), in.ID, directory.GroupPatch{Name: in.Body.Name})
			return answerWith(groupView, g, err)
		})
	httpkit.Register(api, endpoint(http.MethodDelete, one, "groups", "delete-group", "Delete a group"),
		func(ctx context.Context, c httpkit.Caller, in *PathID) (*noContent, error) {
			return nil, a.Directory.DeleteGroup(ctx, c.Actor(), in.ID)
		})
	httpkit.Register(api, endpoint(http.MethodGet, one+"/members", "groups", "list-group-members", "The members of a group"),
		func(ctx context.Context, c httpkit.Caller, in *struct {
			PathID
			PageQuery
		}) (*output[UserList], error) {
			l, err := a.Directory.MembersOfGroup(ctx, c.Actor(), in.ID, in.page())
			return answerWith(userList, l, err)
		})
	httpkit.Register(api, endpoint(http.MethodGet, one+"/claims", "groups", "list-group-claims", "The claims that a group gives"),
		func(ctx context.Context, c httpkit.Caller, in *PathID) (*output[ClaimList], error) {
			claims, err := a.Directory.ClaimsOfGroup(ctx, c.Actor(), in.ID)
			return answerWith(func(l []store.Claim) ClaimList { return ClaimList{Claims: views(claimView, l)} }, claims, err)
		})
	httpkit.Register(api, link(one+"/claims", "groups", "add-claim-to-group", "Let a group give a claim"),
		func(ctx context.Context, c httpkit.Caller, in *struct {
			PathID
			Body ClaimRef
		}) (*noContent, error) {
			return nil, a.Directory.AddClaim(ctx, c.Actor(), in.ID, in.Body.Claim)
		})
	httpkit.Register(api, endpoint(http.MethodDelete, one+"/claims/{claim}", "groups", "remove-claim-from-group", "End that a group gives a claim"),
		func(ctx context.Context, c httpkit.Caller, in *struct {
			PathID
			Claim string `path:"claim" maxLength:"256"`
		}) (*noContent, error) {
			return nil, a.Directory.RemoveClaim(ctx, c.Actor(), in.ID, in.Claim)
		})
}

// Claim is one right that groups can give.
type Claim struct {
	ID        string       `json:"id"`
	Name      string       `json:"name"`
	ShortName string       `json:"short_name" doc:"the token's claim name"`
	Value     string       `json:"value" doc:"one value; several of a user are joined with commas"`
	CreatedAt httpkit.Time `json:"created_at"`
	UpdatedAt httpkit.Time `json:"updated_at"`
}

// ClaimList is a page of claims.
type ClaimList struct {
	Claims []Claim `json:"claims"`
	Next   string  `json:"next,omitempty" doc:"for after; missing on the last page"`
}

// NewClaim is the body of POST /api/claims.
type NewClaim struct {
	Name      string `json:"name"`
	ShortName string `json:"short_name"`
	Value     string `json:"value"`
}

// ClaimPatch is the body of PATCH /api/claims/{id}.
type ClaimPatch struct {
	Name      *string `json:"name,omitempty"`
	ShortName *string `json:"short_name,omitempty"`
	Value     *string `json:"value,omitempty"`
}

func (a *Admin) mountClaims(api *httpkit.API) {
	const path, one = "/api/claims", "/api/claims/{id}"
	httpkit.Register(api, endpoint(http.MethodGet, path, "claims", "list-claims", "Claims in the order of their names"),
		func(ctx context.Context, c httpkit.Caller, in *PageQuery) (*output[ClaimList], error) {
			l, err := a.Directory.Claims(ctx, c.Actor(), in.page())
			return answerWith(claimList, l, err)
		})
	httpkit.Register(api, endpoint(http.MethodPost, path, "claims", "create-claim", "Make a claim"),
		func(ctx context.Context, c httpkit.Caller, in *struct{ Body NewClaim }) (*output[Claim], error) {
			one, err := a.Directory.CreateClaim(ctx, c.Actor(), directory.NewClaim(in.Body))
			return answerWith(claimView, one, err)
		})
	httpkit.Register(api, endpoint(http.MethodGet, one, "claims", "get-claim", "One claim"),
		func(ctx context.Context, c httpkit.Caller, in *PathID) (*output[Claim], error) {
			one, err := a.Directory.Claim(ctx, c.Actor(), in.ID)
			return answerWith(claimView, one, err)
		})
	httpkit.Register(api, endpoint(http.MethodPatch, one, "claims", "update-claim", "Change a claim"),
		func(ctx context.Context, c httpkit.Caller, in *struct {
			PathID
			Body ClaimPatch
		}) (*output[Claim], error) {
			one, err := a.Directory.UpdateClaim(ctx, c.Actor(), in.ID, directory.ClaimPatch{Name: in.Body.Name, ShortName: in.Body.ShortName, Value: in.Body.Value})
			return answerWith(claimView, one, err)
		})
	httpkit.Register(api, endpoint(http.MethodDelete, one, "claims", "delete-claim", "Delete a claim"),
		func(ctx context.Context, c httpkit.Caller, in *PathID) (*noContent, error) {
			return nil, a.Directory.DeleteClaim(ctx, c.Actor(), in.ID)
		})
}

func userView(u store.User) User {
	return User{
		ID: u.ID, Username: u.Username, Email: u.Email, EmailVerified: u.EmailVerified, FirstName: u.FirstName, LastName: u.LastName,
		Disabled: u.Disabled, CreatedAt: httpkit.At(u.CreatedAt), UpdatedAt: httpkit.At(u.UpdatedAt),
	}
}

func userList(l directory.List[store.User]) UserList {
	return UserList{Users: views(userView, l.Items), Next: l.Next}
}

func groupView(g store.Group) Group {
	return Group{ID: g.ID, Name: g.Name, CreatedAt: httpkit.At(g.CreatedAt), UpdatedAt: httpkit.At(g.UpdatedAt)}
}

func groupList(l directory.List[store.Group]) GroupList {
	return GroupList{Groups: views(groupView, l.Items), Next: l.Next}
}

func claimView(c store.Claim) Claim {
	return Claim{ID: c.ID, Name: c.Name, ShortName: c.ShortName, Value: c.Value, CreatedAt: httpkit.At(c.CreatedAt), UpdatedAt: httpkit.At(c.UpdatedAt)}
}

func claimList(l directory.List[store.Claim]) ClaimList {
	return ClaimList{Claims: views(claimView, l.Items), Next: l.Next}
}
