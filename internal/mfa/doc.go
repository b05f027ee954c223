// Package mfa owns the second factors of users: TOTP, backup codes and passkeys. It decides who
// needs one, and enrols, checks and removes them. A login that waits for one goes on at any replica:
// what was begun lies in package state and is finished exactly once. What a factor accepts only
// once is spent by a transaction of package store, so that it stays spent when the state is lost.
package mfa
