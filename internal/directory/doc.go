// Package directory owns users, groups and claims: who holds which right, who may change
// what, and who a username and a password belong to.
//
// Its promise to an operator: no actor gives a right, to itself or to anybody, that the
// actor does not hold.
package directory
