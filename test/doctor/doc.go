// Package doctor tests the checks of package doctor on a real cluster: a healthy one, in which
// nothing is found, and one with each fault planted, which is found by the check that is for it.
package doctor
