// Package directory owns users, groups and claims: who holds which right, who may change
// what, and who a username and a password belong to.
//
// Its promise to an operator: no actor gives a right, to itself or to anybody, that the
// actor does not hold. And nobody is given an e-mail address or a username by which they
// could be taken for another user, or any name of a user who is stronger than the actor.
package directory
