package timing

import "time"

// How replicas learn of each other, over the registry in the database.
const (
	// RegistryPoll is how often a replica reads the registry while no bell rings.
	RegistryPoll = time.Second
	// RegistryTimeout bounds reading and writing the registry once.
	RegistryTimeout = 3 * time.Second
	// Beat is how often a replica writes into the registry that it is live.
	Beat = 2 * time.Second
	// LiveFor is for how long after its last beat a replica counts as live, by the
	// database's clock. A replica that has not read the registry for as long reads it
	// before it answers.
	LiveFor = 7 * time.Second
	// CutOff is for how long, beyond LiveFor, a silent replica is given to get a new
	// key from the key's maker before the key is used. A replica that cannot reach the
	// registry asks all peers for their keys.
	CutOff = 6 * time.Second
	// PeerTimeout bounds asking one peer.
	PeerTimeout = 2 * time.Second
	// LookTimeout bounds how long a request with an unknown kid waits for the registry
	// to be read.
	LookTimeout = 1500 * time.Millisecond
	// Forget is for how long a silent replica may still be running somewhere. After
	// that its row is deleted.
	Forget = 10 * time.Minute
)

// Patience is how long the other replicas may take to get a new key.
const Patience = LiveFor + CutOff + 2*RegistryPoll

// How a replica keeps its own keys.
const (
	// KeyPoll is how often a replica reads the signing keys in the store, at least.
	KeyPoll = time.Second
	// ForeignRows is for how long the rows of other replicas' keys are left after the
	// keys have ended. Their own replica deletes them sooner, unless it is gone.
	ForeignRows = 24 * time.Hour
)

// How a replica notices that the shared state is away.
const (
	// StatePoll is how often a replica asks whether the state can be reached.
	StatePoll = time.Second
	// StateTimeout is how long the state may take to answer that. What takes longer counts as
	// away, and the grace period of a renewal does not run meanwhile.
	StateTimeout = 3 * time.Second
)

// How clocks may differ, and what is kept for how long.
const (
	// Leeway is by how much the clocks of replicas, the database and resource servers
	// may differ without a good token being refused. A replica whose clock is off by
	// more logs that.
	Leeway = 5 * time.Second
	// ClockSkew is for how long what has expired is kept in the revocation log and its
	// copies: clocks may differ by as much before one replica deletes what another
	// still needs. Package verify keeps its list for as long.
	ClockSkew = 10 * time.Minute
	// KeySetOutage is for how long a resource server that cannot refresh its key set
	// may use the one it has (stale-if-error, RFC 5861 §4; package verify does). The
	// revocation of a key is kept for at least as long.
	KeySetOutage = 24 * time.Hour
)
