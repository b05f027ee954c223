package config

import "time"

// A Config is everything an operator can set. The comments of its sections and
// their fields are the manual; docs/configuration.md is made from it by `make docs`.
//
// Each field of a section is one key of the YAML file, named by its yaml tag, and one
// environment variable: WATCHWORD_ and the path of the key in capitals, joined by
// "_" (server.address is WATCHWORD_SERVER_ADDRESS). The tag env names a second
// variable, known from the deployment guide; a field that has one may also be
// read from a file, which is named by either variable with _FILE after it. The
// tag oneof lists the words that a field may hold, secret says what of its value
// is never printed: all, or of a URL the password, and live that a running node
// takes a change over.
type Config struct {
	Server     Server     `yaml:"server"`
	Database   Database   `yaml:"database"`
	Redis      Redis      `yaml:"redis"`
	State      State      `yaml:"state"`
	Storage    Storage    `yaml:"storage"`
	Cluster    Cluster    `yaml:"cluster"`
	Tokens     Tokens     `yaml:"tokens"`
	Sessions   Sessions   `yaml:"sessions"`
	Revocation Revocation `yaml:"revocation"`
	Password   Password   `yaml:"password"`
	Admin      Admin      `yaml:"admin"`
	Users      Users      `yaml:"users"`
	Health     Health     `yaml:"health"`
	Log        Log        `yaml:"log"`
	Telemetry  Telemetry  `yaml:"telemetry"`
}

// Server is where this node listens and how the world reaches it.
type Server struct {
	// Host and port to listen on. The default is reached from this machine only;
	// ":8080" listens on every address. Port 0 takes any free port, and then
	// public_url must be set.
	Address string `yaml:"address"`
	// The URL under which clients reach the service, without a slash at its end.
	// It is the tokens' issuer unless tokens.issuer is set, so set it before the
	// first token is issued, and the same on every node. Default: http, or https
	// with server.tls, and server.address.
	PublicURL string `yaml:"public_url"`
	// Addresses or networks (10.0.0.0/8) of the proxies in front of this node.
	// X-Forwarded-For is believed from them and from nobody else; leave it empty
	// when clients connect directly.
	TrustedProxies []string `yaml:"trusted_proxies"`
	// How long the node goes on serving after it was asked to stop, while /readyz
	// already answers 503, so that load balancers can turn away first. Set it to
	// a little more than their check interval.
	DrainDelay time.Duration `yaml:"drain_delay"`
	TLS        TLS           `yaml:"tls"`
}

// TLS on the listener itself. Without it, put a proxy in front that does TLS.
type TLS struct {
	// File with the certificate and its chain, PEM. Needs key_file. Both files are
	// read again when they change, so a renewed certificate needs no restart.
	CertFile string `yaml:"cert_file"`
	// File with the certificate's private key, PEM. Needs cert_file.
	KeyFile string `yaml:"key_file"`
}

// Database is where everything that must last is kept.
type Database struct {
	// sqlite:FILE (relative to the working directory), postgres://… or mysql://…
	// (MySQL and MariaDB), with user and password in the URL, percent-encoded.
	// The schema is created and kept up to date by the node itself.
	URL string `yaml:"url" env:"DATABASE_URL" secret:"password"`
	// The most connections this node opens, of which one is kept for its own look at
	// what was taken back; in a cluster on PostgreSQL it has one more, on which it
	// hears of news. All nodes together must stay below what the database allows.
	MaxConnections int `yaml:"max_connections"`
	// How long a request waits for a connection before it is answered 503.
	AcquireTimeout time.Duration `yaml:"acquire_timeout"`
}

// Redis, or Valkey, makes sessions faster; nothing depends on it unless
// state.backend is redis.
type Redis struct {
	// redis://user:password@host:port/db, or rediss:// for TLS, the password
	// percent-encoded. A cluster: more of its nodes as ?addr=host:port&addr=….
	// Sentinel: the Sentinels in the same way, and &master_set=name.
	URL string `yaml:"url" env:"REDIS_URL" secret:"password"`
	// PEM certificates of who vouches for the servers of a rediss:// URL, if not one
	// that the system trusts. Each server must have a certificate for the name or
	// address by which the URL, the cluster, or the Sentinels know it.
	CAFile string `yaml:"ca_file"`
}

// State is where sessions and other things that expire are kept.
type State struct {
	// sql keeps them in the database. tiered does so too and reads through Redis,
	// which may be lost at any moment. redis keeps them in Redis alone: what it
	// loses is lost. memory: everybody is signed out when the node restarts.
	// auto is tiered if redis.url is set, else sql.
	Backend string `yaml:"backend" oneof:"auto memory sql redis tiered"`
}

// Storage protects what is kept at rest.
type Storage struct {
	// The key under which private signing keys are encrypted in the database: 32
	// random bytes in base64 or hex (openssl rand -base64 32). Needed with
	// tokens.keys database, except on SQLite, where a key file is made beside the
	// database when this is empty. Keep it apart from the database's backups, and
	// do not lose it.
	Key string `yaml:"key" env:"AUTH_STORAGE_KEY" secret:"all"`
	// Other storage keys that may be met in the database: those of before, and
	// while the key is being changed the next one. What is sealed under them can
	// be read; nothing is sealed under them any more. docs/storage.md tells how a
	// key is changed.
	PreviousKeys []string `yaml:"previous_keys" env:"AUTH_STORAGE_KEY_PREVIOUS" secret:"all"`
}

// Cluster is this node as one of several equal ones. They share a database, each
// signs with keys of its own, and every one accepts the tokens of all.
// docs/high-availability.md tells how it is set up.
type Cluster struct {
	// Whether there are other nodes. They need a database that all of them reach,
	// PostgreSQL or MySQL/MariaDB, and the same settings, but for server.address,
	// server.tls, instance_id and advertise_url.
	Enabled bool `yaml:"enabled"`
	// How the nodes find each other to fetch each other's keys over HTTP, which
	// they do beside reading them in the database. database: at the
	// advertise_url that each has written there. static: at static_peers. dns and
	// kubernetes: behind service_url.
	Discovery string `yaml:"discovery" oneof:"database static dns kubernetes"`
	// The base URLs of all nodes, such as https://auth-0:8080. A node's own may be
	// among them. Needed with discovery static. A running node takes over another
	// list when its configuration file changes, or on SIGHUP.
	StaticPeers []string `yaml:"static_peers" live:"true"`
	// Where to look for the nodes, as scheme://name:port. With dns, each address of
	// the name is a node (a headless service); a name that begins with "_", such as
	// https://_watchword._tcp.example.com, has SRV records, which say the ports,
	// too. With kubernetes, the name is that of the service, or service.namespace,
	// and without a port the service's first one is taken. Over https, a node's
	// certificate must be for the name, or for the name in the SRV record.
	ServiceURL string `yaml:"service_url"`
	// How often the other nodes are asked for their keys, in seconds.
	RefreshSec int `yaml:"refresh_sec"`
	// The base URL at which the other nodes reach this one. With discovery database,
	// they find it there; if it is empty, they do not ask it, and know its keys from
	// the database alone. With any other, it spares the node asking itself.
	AdvertiseURL string `yaml:"advertise_url"`
	// File with the certificates, PEM, of those who may vouch for other nodes'
	// https URLs, and with cert_file for nodes that ask. Read at the start. Default:
	// the system's.
	CAFile string `yaml:"ca_file"`
	// File with the certificate, PEM, by which this node shows who it is when it
	// asks others (mutual TLS). With it, it answers only nodes that show one, too:
	// all nodes must have one, and listen with server.tls. Read for each connection,
	// so a renewed one needs no restart. Needs key_file and ca_file.
	CertFile string `yaml:"cert_file"`
	// File with the certificate's private key, PEM. Needs cert_file.
	KeyFile string `yaml:"key_file"`
	// The node's name: letters, digits, ".", "_" and "-". It begins the kid of
	// every signing key that the node makes. Two nodes of one name are refused.
	// Default: the host name and a random part, new at each start.
	InstanceID string `yaml:"instance_id"`
	// What the nodes know each other by: at least 32 bytes, the same for all
	// (openssl rand -base64 32). Who has it can make keys that every node
	// accepts.
	Secret string `yaml:"secret" env:"AUTH_CLUSTER_SECRET" secret:"all"`
	// The signature algorithms that are accepted of other nodes' keys. Default:
	// all, so that tokens.algorithm may be changed node by node.
	Algorithms []string `yaml:"algorithms"`
}

// Tokens is what is issued: by which keys, for whom, for how long.
type Tokens struct {
	// Where private signing keys live. database: encrypted in the database, so
	// that tokens stay valid over a restart. memory: they never leave the
	// process; tokens end with it, unless there is a cluster, whose other nodes
	// go on accepting them. auto is memory in a cluster, else database.
	Keys string `yaml:"keys" oneof:"auto memory database"`
	// The signature algorithm (RFC 7518, RFC 8037). Change it at any time: the
	// next key has it, and tokens of older keys stay valid.
	Algorithm string `yaml:"algorithm" oneof:"ES256 ES384 ES512 EdDSA RS256 PS256"`
	// The tokens' iss (RFC 7519 §4.1.1), compared byte for byte by everybody who
	// verifies. Default: server.public_url.
	Issuer string `yaml:"issuer"`
	// The tokens' aud: which services they are for. A service must find its own
	// name in it. Default: the issuer.
	Audience []string `yaml:"audience"`
	// How long a key signs before the next one takes over. At least as long as
	// token_duration, and twice as long as key_set_max_age.
	KeyDuration time.Duration `yaml:"key_duration"`
	// How long an access token is valid. Shorter is safer with services that do
	// not follow the revocation feed, and costs more renewals.
	TokenDuration time.Duration `yaml:"token_duration"`
	// How long a refresh token may lie unused. The session's own end comes first
	// if it is earlier.
	RefreshDuration time.Duration `yaml:"refresh_duration"`
	// For how long a spent refresh token still gives the same successor, so that
	// a client whose answer was lost may ask again. Later use counts as theft and
	// ends the session.
	RenewGrace time.Duration `yaml:"renew_grace"`
	// The max-age with which the key set is served. A new key signs only after it
	// has been in the key set for as long.
	KeySetMaxAge time.Duration `yaml:"key_set_max_age"`
	UserInfo     UserInfo      `yaml:"user_info"`
}

// UserInfo says which of the user's own data the tokens carry, and under which
// name. An empty name leaves it out.
type UserInfo struct {
	// Claim that holds the username.
	Username string `yaml:"username"`
	// Claim that holds first and last name.
	FullName string `yaml:"full_name"`
	// Claim that holds the e-mail address.
	Email string `yaml:"email"`
}

// Sessions is how long people stay signed in.
type Sessions struct {
	// How long a session lasts, however often it is renewed.
	TTL time.Duration `yaml:"ttl"`
	// A session that is not renewed for so long ends. 0s: it never ends by being
	// idle. Not shorter than tokens.token_duration.
	Idle time.Duration `yaml:"idle"`
	// How many sessions a user may have at once; one more ends the oldest, up to 100
	// with each sign-in, so that a lower number than before takes effect in steps.
	// 0: no bound but 10000, beyond which the oldest end now and then.
	MaxPerUser int `yaml:"max_per_user"`
}

// Revocation is how soon, and how strictly, what was taken back is refused.
type Revocation struct {
	// Whom a token is asked of. local: this node's own knowledge of the log, which
	// is as old as poll at most, or a bell's ring. shared: the shared store, for
	// every token: Redis if state.backend uses it, and the database whenever Redis
	// cannot be sure. Then a token is refused by every node from the moment in
	// which it was taken back, and by all of them while there is nobody to ask.
	Check string `yaml:"check" oneof:"local shared"`
	// How often the log of revocations is asked for news.
	Poll time.Duration `yaml:"poll"`
	// How old the node's knowledge of the log may be. It is the promised bound:
	// after it, a revoked token is refused by every node, or on_outage applies.
	// Longer than poll.
	MaxStaleness time.Duration `yaml:"max_staleness"`
	// What happens to tokens while the log has been out of reach for longer than
	// max_staleness. deny: 503. allow: they are accepted by signature and expiry
	// alone. allow 2m: so for two minutes, then deny.
	OnOutage OnOutage `yaml:"on_outage"`
}

// Bounds of what a password hash may cost, so that one from the database or the init
// file cannot take a replica down.
const (
	MaxHashMemory      KiB = 256 << 10
	MaxHashIterations      = 16
	MaxHashParallelism     = 16
	MaxHashWork        KiB = 4 * MaxHashMemory // memory × iterations
)

// Password is the price of a password hash (Argon2id, RFC 9106), and how many are
// computed at once. Stored hashes keep the price they were made with until their
// user logs in. After the price was lowered, and with dearer hashes of the init file,
// the time of an answer tells until then that there is such a user.
type Password struct {
	// Memory of one hash, such as 19MiB; a number alone is KiB. At least 8KiB for each
	// lane, at most 256MiB, and memory × iterations at most 1GiB.
	Memory KiB `yaml:"memory"`
	// Passes over the memory, 1 to 16.
	Iterations int `yaml:"iterations"`
	// Lanes of one hash, 1 to 16.
	Parallelism int `yaml:"parallelism"`
	// How many hashes are computed at once. Together they take workers × memory.
	// 0: one for each CPU.
	Workers int `yaml:"workers"`
	// How many logins may wait for a worker; one more is answered 503.
	Queue int `yaml:"queue"`
}

// Admin is the first administrator. It is created at start while there is none,
// and never changed afterwards.
type Admin struct {
	// Its username. Needs password.
	Username string `yaml:"username" env:"ADMIN_GUI_USERNAME"`
	// Its password. Needs username.
	Password string `yaml:"password" env:"ADMIN_GUI_PASSWORD" secret:"all"`
}

// Users is where users come from.
type Users struct {
	// YAML file of claims, groups and users that are created at start if they are
	// not there. It may grow; what it has asked for once is not done again, so that
	// what was changed or removed in the database since stays so. That is remembered
	// also of entries that have left the file: replicas of one cluster may start with
	// different files for a while, or with an empty one by mistake, and must not bring
	// back by that what was removed. What the file asked for before is made again with
	// the command line or the API. It never removes anything and never overwrites a
	// password.
	InitFile string `yaml:"init_file"`
}

// Health is what GET /health asks.
type Health struct {
	// How long a storage backend may take to answer before it counts as down.
	Timeout time.Duration `yaml:"timeout"`
}

// Log is what the node says about itself, on standard error.
type Log struct {
	// The least level that is written.
	Level string `yaml:"level" oneof:"debug info warn error"`
	// auto is text on a terminal and json elsewhere.
	Format string `yaml:"format" oneof:"auto text json"`
}

// Telemetry is what the node measures of itself.
type Telemetry struct {
	// How often the node issues a token of nobody's, has every node that it reaches
	// and a resource server of its own accept it, takes it back, and measures until
	// the last of them refuses it (watchword_revocation_propagation_seconds). Other
	// nodes are asked over HTTP (cluster.discovery), the resource server follows
	// server.public_url. 0s: never.
	Canary time.Duration `yaml:"canary"`
}

// Default returns the settings as they are when nothing is set.
func Default() *Config {
	return &Config{
		Server: Server{
			Address: "127.0.0.1:8080",
		},
		Database: Database{
			URL:            "sqlite:data/watchword.db",
			MaxConnections: 10,
			AcquireTimeout: 5 * time.Second,
		},
		State: State{
			Backend: "auto",
		},
		Cluster: Cluster{
			Discovery:  "database",
			RefreshSec: 30,
		},
		Tokens: Tokens{
			Keys:            "auto",
			Algorithm:       "ES256",
			KeyDuration:     3 * time.Hour,
			TokenDuration:   30 * time.Minute,
			RefreshDuration: 30 * 24 * time.Hour,
			RenewGrace:      10 * time.Second,
			KeySetMaxAge:    30 * time.Second,
			UserInfo: UserInfo{
				Username: "preferred_username",
				FullName: "name",
				Email:    "email",
			},
		},
		Sessions: Sessions{
			TTL: 24 * time.Hour,
		},
		Revocation: Revocation{
			Check:        "local",
			Poll:         time.Second,
			MaxStaleness: 5 * time.Second,
		},
		Password: Password{
			Memory:      19 * 1024,
			Iterations:  2,
			Parallelism: 1,
			Queue:       64,
		},
		Health: Health{
			Timeout: 2 * time.Second,
		},
		Log: Log{
			Level:  "info",
			Format: "auto",
		},
	}
}
