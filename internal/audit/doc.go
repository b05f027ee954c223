// Package audit writes down who did what: to the log at once, and to the store
// for those who ask later. It never holds a secret.
//
// Who calls it: login and directory, for what they do; app, for the commands that
// change keys, and to have old events deleted.
package audit
