// Package signin is the pages on which people sign in and out: password, second factor, passkeys,
// enrolment where a factor is needed, a further authentication, and the recovery of an account.
// They decide nothing: package login does.
package signin

//go:generate go tool -modfile=../../../tools.mod templ generate
