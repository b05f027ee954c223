// Package audit writes down who did what: to the log at once, and to the store
// for those who ask later. It never holds a secret.
package audit
