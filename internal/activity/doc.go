// Package activity says what goes on in the whole cluster, over up to two days, without a
// monitoring system: sign-ins, verifications, revocations, latency, per replica and in total.
//
// Nothing is counted for it where requests are served. Each replica reads its own Prometheus
// metrics every Every and adds the differences to three rings: points of Every for the last
// minutes, of a minute for three hours, and of a quarter of an hour for two days. It writes the
// rings as one record into the shared state. Any replica reads the records of all replicas with
// one List.
//
// Of a busy replica with 500 time series that is 7 ms of CPU (2.5 of them to gather the metrics) and
// one record of 19 KB every ten seconds, and an overview of eleven such replicas 14 ms (go test -run xxx -bench Activity).
//
// What the figures promise:
//
//   - A replica that is killed loses what it has counted since its last record, Every at most.
//     One that ends by itself loses nothing. While the state does not answer, the points are kept
//     in memory and written later.
//   - A replica that starts again with the same id goes on with its rings. Without
//     cluster.instance_id each start has an id of its own.
//   - A point of a time in which a replica did not run, or could not write, is not known. It is
//     not zero.
//   - Points begin at whole multiples of their length by the clock of the replica that counted.
//     Where clocks differ, a total adds what happened at slightly different times.
//
// Whoever can write to the state can forge figures. Records that are none are left out and
// counted, and no record makes a reader do more than its bounds allow.
package activity
