// Package canary measures how soon what is taken back is refused: a token is issued,
// everybody accepts it, it is taken back, and everybody is asked until he refuses.
//
// Who calls it: app, for the command and for the job in the background.
package canary
