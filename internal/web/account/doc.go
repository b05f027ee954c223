// Package account is the pages on which people see and change what is their own: sessions, second
// factors, the password, and what has happened at their account. They decide nothing: packages
// login, mfa and directory do.
package account

//go:generate go tool -modfile=../../../tools.mod templ generate
