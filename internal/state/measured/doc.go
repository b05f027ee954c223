// Package measured owns the metrics of the shared state: how long each operation takes, and how
// often the backend fails it. It changes nothing of what the state answers.
package measured
