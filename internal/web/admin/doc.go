// Package admin is the pages of administration. What they show follows the rights of who is
// signed in; what is done is decided by the use cases, as for the API.
package admin

//go:generate go tool -modfile=../../../tools.mod templ generate
