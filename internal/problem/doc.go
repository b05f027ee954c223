// Package problem is what a client may read of an error: a stable code, a plain
// sentence, when to try again. The cause travels along for the log and is never
// shown. Every package above makes its errors here; httpapi turns them into RFC
// 9457 problem details in one place, the command line into one sentence.
package problem
