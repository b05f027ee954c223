package httpapi

import (
	"context"
	"net/http"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/limit"
)

// Limits shows administrators who waits after failures, and lifts it.
type Limits struct {
	Limits    limit.Administration
	Directory *directory.Service
}

// Failures is what a counter of failures has (exported: huma sees no other embedded fields).
type Failures struct {
	Failures   int          `json:"failures"`
	Since      httpkit.Time `json:"since,omitzero" doc:"of the first of them"`
	LastAt     httpkit.Time `json:"last_at,omitzero" doc:"of the last of them"`
	WaitsUntil httpkit.Time `json:"waits_until,omitzero" doc:"until about when attempts wait; missing: they do not wait now"`
}

// WaitingAccount is a user at whose account there were so many failures that attempts wait.
type WaitingAccount struct {
	ID       string `json:"id" doc:"the user's"`
	Username string `json:"username"`
	Address  string `json:"address,omitempty" doc:"the address that waits; missing: all from which the user has not signed in"`
	Failures
}

// LimitedAddress is what is counted of an address.
type LimitedAddress struct {
	Address string `json:"address" example:"2001:db8::/64" doc:"IPv6 counts by /64"`
	Known   bool   `json:"known" doc:"whether the user, or without an account any user, has signed in from there in the last 30 days"`
	Failures
}

// LimitList is a page of the accounts and addresses that wait.
type LimitList struct {
	Accounts  []WaitingAccount `json:"accounts"`
	Unnamed   int              `json:"unnamed" doc:"how many more accounts of this page wait, whose names nobody has"`
	Addresses []LimitedAddress `json:"addresses"`
	Next      string           `json:"next,omitempty" doc:"for after; missing on the last page. A page may have fewer items than limit, or none, and a next"`
}

// LimitedAccount is what is counted for a user.
type LimitedAccount struct {
	ID        string           `json:"id" doc:"the user's"`
	Username  string           `json:"username"`
	Locked    bool             `json:"locked" doc:"whether some attempts wait now"`
	Strangers Failures         `json:"strangers" doc:"of all addresses together from which the user has not signed in in the last 30 days"`
	Addresses []LimitedAddress `json:"addresses" doc:"from which the user has signed in, or attempts have failed"`
	Next      string           `json:"next,omitempty" doc:"for after; missing on the last page. A page may have fewer addresses than limit, or none, and a next"`
}

// LimitPage asks for a part of a list (exported: huma sees no other embedded fields).
type LimitPage struct {
	After string `query:"after" maxLength:"300" doc:"next of the page before"`
	Limit int    `query:"limit" minimum:"0" maximum:"200" doc:"how many; 0 means 50"`
}

// PathAddress is the address in a path (exported: huma sees no other embedded fields).
type PathAddress struct {
	Address string `path:"address" maxLength:"128" doc:"in any spelling; a /64 is written with %2F"`
}

// Mount adds the routes.
func (l *Limits) Mount(api *httpkit.API) {
	const path, account, address = "/api/limits", "/api/limits/accounts/{id}", "/api/limits/addresses/{address}"
	httpkit.Register(api, endpoint(http.MethodGet, path, "limits", "list-limits", "The accounts and addresses that wait after failures"),
		func(ctx context.Context, c httpkit.Caller, in *LimitPage) (*output[LimitList], error) {
			w, err := l.Limits.List(ctx, l.rights(c), in.After, in.Limit)
			return answerWith(LimitListOf, w, err)
		})
	httpkit.Register(api, endpoint(http.MethodGet, account, "limits", "get-account-limits", "What is counted for a user"),
		func(ctx context.Context, c httpkit.Caller, in *struct {
			PathID
			LimitPage
		}) (*output[LimitedAccount], error) {
			a, err := l.Limits.Account(ctx, l.rights(c), in.ID, in.After, in.Limit)
			return answerWith(limitedAccount, a, err)
		})
	httpkit.Register(api, endpoint(http.MethodDelete, account, "limits", "lift-account-limits", "Forget what is counted for a user"),
		func(ctx context.Context, c httpkit.Caller, in *PathID) (*noContent, error) {
			return nil, l.Limits.LiftAccount(ctx, l.rights(c), in.ID)
		})
	httpkit.Register(api, endpoint(http.MethodGet, address, "limits", "get-address-limits", "What is counted of an address"),
		func(ctx context.Context, c httpkit.Caller, in *PathAddress) (*output[LimitedAddress], error) {
			a, err := l.Limits.Address(ctx, l.rights(c), in.Address)
			return answerWith(limitedAddress, a, err)
		})
	httpkit.Register(api, endpoint(http.MethodDelete, address, "limits", "lift-address-limits", "Forget what is counted of an address"),
		func(ctx context.Context, c httpkit.Caller, in *PathAddress) (*noContent, error) {
			return nil, l.Limits.LiftAddress(ctx, l.rights(c), in.Address)
		})
}

func (l *Limits) rights(c httpkit.Caller) limit.Rights { return l.Directory.LimitRights(c.Actor()) }

// LimitListOf is a page of what waits as the API, and the command that lists it, show it.
func LimitListOf(w limit.Waiting) LimitList {
	return LimitList{views(waitingAccount, w.Accounts), w.Unnamed, views(limitedAddress, w.Addresses), w.Next}
}

func waitingAccount(a limit.WaitingAccount) WaitingAccount {
	return WaitingAccount{a.ID, a.Username, a.From, failures(a.Failures)}
}

func limitedAccount(a limit.AccountFailures) LimitedAccount {
	return LimitedAccount{a.ID, a.Username, a.Locked, failures(a.Strangers), views(limitedAddress, a.Addresses), a.Next}
}

func limitedAddress(a limit.AddressFailures) LimitedAddress {
	return LimitedAddress{a.Address, a.Known, failures(a.Failures)}
}

func failures(f limit.Failures) Failures {
	return Failures{f.Count, httpkit.At(f.Since), httpkit.At(f.Last), httpkit.At(f.Until)}
}
