// The constants of the protocol (docs/protocol.md), by the names that testdata/verifier/constants.json
// has. Times are in milliseconds, lengths in bytes.

const second = 1000
const minute = 60 * second

// A token travels in a header, and servers commonly take 8 KiB of them.
export const tokenLength = 8 << 10
// Of keys: an id travels in every token and is looked up before anything is verified; an RSA modulus
// decides how long verifying takes.
export const kidLength = 256
export const keySetLength = 1 << 20
export const rsaBitsLeast = 2048
export const rsaBitsMost = 8192
// A revocation is forgotten some minutes after its tokens have expired; a token that was accepted for
// longer would be valid again.
export const leewayMost = 5 * minute

// A key set is fetched again before the max-age of its answer has passed, but after keyLifeLeast at the
// earliest and keyLifeMost at the latest. keyLifeDefault is for an answer without max-age, keyLifeStale
// for one that must not be stored, or is too old already.
export const keyLifeDefault = 30 * second
export const keyLifeLeast = second
export const keyLifeStale = 5 * second
export const keyLifeMost = 60 * minute
// The least time between a fetch and one because of an unknown kid: a client that invents kids causes
// twelve fetches a minute at most.
export const keyCooldown = 5 * second
export const keyTimeout = 5 * second
export const keyRetryFirst = second
export const keyRetryMost = 30 * second
// For how long a kid counts as unknown that a fetch did not bring, and how many are remembered.
export const unknownKidKept = minute
export const unknownKids = 1024
// How long a set is used after its last good answer. The server keeps the revocation of a key for as long.
export const keyOutage = 24 * 60 * minute

export const maxStalenessDefault = 10 * second
// Below this the feed would seem broken between two heartbeats.
export const maxStalenessLeast = 3 * second
export const pageLimit = 10_000 // entries
export const pageLength = 16 << 20
export const pageTimeout = 5 * second
// How long the next bytes of a page are waited for at least.
export const patienceLeast = second / 2
// How long the server may hold a page back until there is something new.
export const waitMost = 20 * second
// How often pages are read from a server that holds none back.
export const pollEvery = second
export const pageRetryFirst = second / 2
export const pageRetryMost = 3 * second
// A stream that was useful for pollEvery and then ends is begun again within reattachMost: its replica
// has ended, and another one is there. One that ends sooner is begun again more slowly.
export const reattachMost = second / 10
// Of an event, and of a line of it. The server's have a few hundred.
export const eventLength = 64 << 10
// Then a stream is begun again: clocks drift apart, and replicas come and go.
export const streamLifeMost = 10 * minute
// How late the events of a stream may be; pages come sooner.
export const streamLag = 2 * second
// How long pages are read after a stream that brought nothing in time: something on the way may hold
// streams back. It doubles each time, because nothing is learned while a stream is tried.
export const withoutStream = minute
export const withoutStreamMost = 15 * minute
// By how much two clocks may differ about what lies between two moments half a minute apart.
export const clockDrift = 50
// How long entries are kept after they have expired: clocks differ.
export const expiredKept = 10 * minute
