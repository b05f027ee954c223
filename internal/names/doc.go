// Package names owns what users, groups and claims may be called, and when two names
// are the same one, or are easily taken for each other.
//
// Each name has a form in which it is shown and a key by which it is compared. The key
// of a key is the key itself, so two names that are equal today stay equal; and nothing
// has a name that could be taken for an id, so that whatever is asked for by id or by
// name is never found by the wrong one of the two.
package names
