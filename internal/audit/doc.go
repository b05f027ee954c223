// Package audit writes down who did what, and shows it: to the log at once, and to the
// store, from which it is read by actor, action, target, outcome and time.
//
// It promises that an event of a change is stored if and only if the change is, that no
// other event is lost without an error in the log and a count in a metric, that neither
// clients that are refused nor readers can make the store do more than a bounded amount
// of work, and that no event holds a secret or text that forges a log line.
//
// It seals the events that are in the store (Chain), so that whoever can write the database and
// has not the key changes, deletes and adds nothing that is sealed without being found out by
// Verify. docs/design/audit-log.md says how.
package audit
