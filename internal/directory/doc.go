// Package directory owns users, groups and claims: what they may be named, who
// holds which right, who may change what, and the checking of passwords.
//
// Its promise to an operator: nobody gives a right, to himself or to anybody,
// that he does not hold.
//
// Who calls it: login, httpapi, the command line.
package directory
