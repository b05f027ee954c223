package config

import "time"

// A Config is everything an operator can set. The comments of its sections and
// their fields are the manual; docs/configuration.md is made from it by `make docs`.
//
// Each field of a section is one key of the YAML file, named by its yaml tag, and one
// environment variable: WATCHWORD_ and the path of the key in capitals, joined by
// "_" (server.address is WATCHWORD_SERVER_ADDRESS). Other tags of a field are:
//
//   - env names a second variable, known from the deployment guide. A field that has one
//     may also be read from a file, which is named by either variable with _FILE after it.
//   - oneof lists the words that the field may hold.
//   - secret says which part of the value is never printed: all of it, the password of a
//     URL, or, of a list of secrets, all but the end that may follow each.
//   - live says that a running replica takes over a change.
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
	Limits     Limits     `yaml:"limits"`
	MFA        MFA        `yaml:"mfa"`
	Pages      Pages      `yaml:"pages"`
	Audit      Audit      `yaml:"audit"`
	Admin      Admin      `yaml:"admin"`
	Users      Users      `yaml:"users"`
	Health     Health     `yaml:"health"`
	Log        Log        `yaml:"log"`
	Telemetry  Telemetry  `yaml:"telemetry"`
	Debug      Debug      `yaml:"debug"`
}

// Server is where this replica listens, and how the world reaches it.
type Server struct {
	// Host and port to listen on. The default is reached from this machine only;
	// ":8080" listens on every address. Port 0 takes any free port, and then
	// public_url must be set.
	Address string `yaml:"address"`
	// Host and port on which /metrics is served, in plain HTTP, instead of on address:
	// one that only Prometheus reaches. Default: none, and /metrics is on address, for
	// every client. A program that embeds the replica serves /metrics with the rest.
	MetricsAddress string `yaml:"metrics_address"`
	// The URL under which clients reach the service, without a slash at its end.
	// It is the tokens' issuer unless tokens.issuer is set, so set it before the
	// first token is issued, and the same on every replica. Default: http, or https
	// with server.tls, and server.address.
	PublicURL string `yaml:"public_url"`
	// Addresses or networks (10.0.0.0/8) of the proxies in front of this replica. What
	// X-Forwarded-For or Forwarded says of a client's address is believed from them and
	// from nobody else; leave it empty when clients connect directly.
	TrustedProxies []string `yaml:"trusted_proxies"`
	// The header in which trusted_proxies say a client's address: the one that they write
	// themselves, and do not pass on as the client has written it. auto takes the one that
	// is there; when both are, and name different clients, the address of the proxy counts
	// instead. So a client can hide its address from this replica, until the header is named
	// here, but take no other.
	ForwardedHeader ForwardedHeader `yaml:"forwarded_header" oneof:"auto X-Forwarded-For Forwarded"`
	// The origins, such as https://app.example.com, whose web pages may log in, renew and
	// log out from a browser (CORS), and read the key sets and the feed. Each is written as
	// browsers send it: scheme, host, and a port that is not the scheme's own. There are no
	// patterns. Default: none.
	CORSOrigins []string `yaml:"cors_origins"`
	// How many requests of one user this replica serves at once. Seven times as many wait,
	// for half a second; others are answered 429. /api/login, /api/verify, the key sets,
	// the feed and the probes have bounds of their own.
	MaxRequestsPerUser int `yaml:"max_requests_per_user"`
	// The same for the requests from one address, or from one /64 of IPv6, with or without
	// a token. Behind a load balancer that is not among trusted_proxies, all clients have
	// one address. This machine's own has no bound.
	MaxRequestsPerAddress int `yaml:"max_requests_per_address"`
	// How long the replica goes on serving after it was asked to stop. /readyz answers
	// 503 meanwhile, so that load balancers turn away before it stops. Set it to a little
	// more than their check interval.
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

// MaxAcquireTimeout is the longest database.acquire_timeout. It is how long package sqldb lets a
// statement or a transaction take, the wait for a connection included.
const MaxAcquireTimeout = 15 * time.Second

// Database is where everything that must last is kept.
type Database struct {
	// sqlite:FILE (relative to the working directory), postgres://… or mysql://…
	// (MySQL and MariaDB), with user and password in the URL, percent-encoded.
	// The schema is created and kept up to date by the replicas themselves. User and
	// password may change while the replica runs; the rest needs a restart.
	URL string `yaml:"url" env:"DATABASE_URL" secret:"password"`
	// The most connections that this replica opens. One of them is kept for reading the
	// revocation log, the keys and the replicas. In a cluster on PostgreSQL the replica
	// opens one more, on which the database notifies it. All replicas together must stay
	// below what the database allows.
	MaxConnections int `yaml:"max_connections"`
	// How long a request waits for a connection before it is answered 503, 15 s at most:
	// a statement that waits for longer is given up whatever it waits for.
	AcquireTimeout time.Duration `yaml:"acquire_timeout"`
}

// Redis, or Valkey, makes sessions faster; nothing depends on it unless
// state.backend is redis.
type Redis struct {
	// redis://user:password@host:port/db, or rediss:// for TLS, the password
	// percent-encoded. A Redis Cluster: more of its servers as ?addr=host:port&addr=….
	// Sentinel: the Sentinels in the same way, and &master_set=name. Users and passwords may
	// change while the replica runs; the rest needs a restart.
	URL string `yaml:"url" env:"REDIS_URL" secret:"password"`
	// File with the certificates, PEM, of the authorities that may sign the certificates
	// of the servers of a rediss:// URL. Default: the system's. Each server must have a
	// certificate for the name or address by which the URL, the Redis Cluster, or the
	// Sentinels know it.
	CAFile string `yaml:"ca_file"`
}

// State is where sessions and other things that expire are kept.
type State struct {
	// sql keeps them in the database. tiered does so too and keeps copies in Redis,
	// which may be lost at any moment. redis keeps them in Redis alone: what it
	// loses is lost. memory: everybody is signed out when the replica restarts.
	// auto is tiered if redis.url is set, else sql.
	Backend StateBackend `yaml:"backend" oneof:"auto memory sql redis tiered"`
}

// Storage protects what is kept at rest.
type Storage struct {
	// The key under which private signing keys and second factors are encrypted in the
	// database: 32 random bytes in base64 or hex (openssl rand -base64 32). Needed with
	// tokens.keys database, and without a cluster also with pkcs11 and remote, except on SQLite, where a key file is made beside the
	// database when this is empty. Factors are otherwise encrypted under a key that is
	// derived from cluster.secret, and without that either nobody can enrol. Keep it apart
	// from the database's backups, and do not lose it.
	Key string `yaml:"key" env:"AUTH_STORAGE_KEY" secret:"all"`
	// Other storage keys under which keys in the database may be encrypted: former ones,
	// and while the storage key is being changed the next one. They are used for
	// decryption alone. docs/storage.md says how to change the storage key.
	PreviousKeys []string `yaml:"previous_keys" env:"AUTH_STORAGE_KEY_PREVIOUS" secret:"all"`
}

// Cluster is this replica as one of several equal ones. They share a database, each signs
// with keys of its own or with shared ones (tokens.keys), and every one accepts the tokens of all. docs/high-availability.md
// says how to set it up.
type Cluster struct {
	// Whether there are other replicas. They need a database that all of them reach,
	// PostgreSQL or MySQL/MariaDB, and the same settings, but for server.address,
	// server.tls, instance_id and advertise_url.
	Enabled bool `yaml:"enabled"`
	// How the replicas find each other. They read each other's keys in the database, and
	// fetch them over HTTP as well. database: at the advertise_url that each has written
	// there. static: at static_peers. dns and kubernetes: behind service_url.
	Discovery Discovery `yaml:"discovery" oneof:"database static dns kubernetes"`
	// The base URLs of all replicas, such as https://auth-0:8080. A replica's own may be
	// among them. Needed with discovery static. A running replica takes over another list
	// when its configuration file changes, or on SIGHUP.
	StaticPeers []string `yaml:"static_peers" live:"true"`
	// Where to look for the replicas, as scheme://name:port. With dns, each address of
	// the name is a replica (a headless service); a name that begins with "_", such as
	// https://_watchword._tcp.example.com, has SRV records, which say the ports, too. With
	// kubernetes, the name is that of the service, or service.namespace, and without a
	// port the service's first one is used. Over https, a replica's certificate must be
	// for the name, or for the name in the SRV record.
	ServiceURL string `yaml:"service_url"`
	// How often the other replicas are asked for their keys, in seconds.
	RefreshSec int `yaml:"refresh_sec"`
	// The base URL at which the other replicas reach this one. With discovery database,
	// they read it there; if it is empty, they do not ask this replica, and know its keys
	// from the database alone. With any other discovery, the replica finds itself in the
	// list by it, and does not ask itself.
	AdvertiseURL string `yaml:"advertise_url"`
	// File with the certificates, PEM, of the authorities that may sign the certificates
	// of other replicas: those of https URLs, and with cert_file those of replicas that
	// connect. Read at the start. Default: the system's.
	CAFile string `yaml:"ca_file"`
	// File with the certificate, PEM, that this replica shows to others when it asks them
	// (mutual TLS). With it, this replica answers only replicas that show one, too: all
	// must have one, and listen with server.tls. Read for each connection, so a renewed
	// certificate needs no restart. Needs key_file and ca_file.
	CertFile string `yaml:"cert_file"`
	// File with the certificate's private key, PEM. Needs cert_file.
	KeyFile string `yaml:"key_file"`
	// The replica's name: letters, digits, ".", "_" and "-". It begins the kid of every
	// signing key that the replica makes. Two replicas of one name are refused.
	// Default: the host name and a random part, new at each start.
	InstanceID string `yaml:"instance_id"`
	// The secret by which the replicas recognise each other: at least 32 bytes, the same
	// for all (openssl rand -base64 32). Whoever has it can make keys that every
	// replica accepts. Where there is no storage key, second factors are encrypted under a
	// key that is derived from it: before it is changed, give the replicas a storage.key
	// and run "watchword storage rekey", or the factors are lost.
	Secret string `yaml:"secret" env:"AUTH_CLUSTER_SECRET" secret:"all"`
	// The signature algorithms that other replicas' keys may have. Default: all, so that
	// tokens.algorithm may be changed replica by replica.
	Algorithms []string `yaml:"algorithms"`
}

// Tokens is what is issued: by which keys, for whom, for how long.
type Tokens struct {
	// Where the keys live with which tokens are signed. memory: each replica makes its own,
	// which never leave the process. database: encrypted in the database. In a cluster all
	// replicas sign with the same key then, so that one that joins or restarts is ready at
	// once. secret: the tokens are HMACs under tokens.secret, which every replica has; no
	// key set shows it. pkcs11: in an HSM, which signs (tokens.pkcs11). remote: in a signer
	// that is reached over HTTP, such as Vault or OpenBao (tokens.remote). auto is memory in
	// a cluster, else database. docs/signing-keys.md says which to choose, and how to change.
	Keys KeyMode `yaml:"keys" oneof:"auto memory database secret pkcs11 remote"`
	// The signature algorithm (RFC 7518, RFC 8037). Change it at any time: the next key has
	// it, and tokens of older keys stay valid. HS256, HS384 and HS512 are for tokens.keys
	// secret, which takes no others; there, the default stands for HS256.
	Algorithm string `yaml:"algorithm" oneof:"ES256 ES384 ES512 EdDSA RS256 PS256 HS256 HS384 HS512"`
	// Several signature algorithms, such as ES256,RS256: there is a key for each in the key
	// set. The first one signs, unless something else is asked for. Not with tokens.keys
	// secret. Default: tokens.algorithm alone.
	Algorithms []string `yaml:"algorithms"`
	// The secret for tokens.keys secret: the same for all replicas (openssl rand -hex 32).
	// It has at least 32 bytes, 48 for HS384 and 64 for HS512, and no comma, no @, no line
	// break, and no space at an end. Everybody who has it can make tokens that are accepted. With
	// other tokens.keys it signs nothing, but tokens of it are accepted: leave it set until
	// the last of them has expired. A running replica takes over another one: first put the
	// present one into previous_secrets as well, then change this one.
	Secret string `yaml:"secret" env:"AUTH_JWT_SECRET" secret:"all" live:"true"`
	// Former secrets, whose tokens are still accepted. Each may be followed by the moment at
	// which that ends, as SECRET@2026-12-31T00:00:00Z, or SECRET@2026-12-31 for the
	// beginning of that day (UTC). In the variable they are separated by commas, in its file
	// by commas or line breaks. A running replica takes over another list.
	PreviousSecrets []string `yaml:"previous_secrets" env:"AUTH_JWT_SECRET_PREVIOUS" secret:"end" live:"true"`
	// The tokens' iss (RFC 7519 §4.1.1), which every verifier compares byte for byte.
	// Default: server.public_url.
	Issuer string `yaml:"issuer"`
	// The tokens' aud: which services they are for. A service must find its own
	// name in it. Default: the issuer, which is also the audience of Watchword's own
	// API. Every service that is given an administrator's token for that API could use it
	// there. So name the services as soon as there is one that you trust less than
	// Watchword; administrators then ask for a token for the issuer when they log in
	// (docs/api.md).
	Audience []string `yaml:"audience"`
	// How long a key signs before the next one takes over. At least as long as
	// token_duration, and twice as long as key_set_max_age and key_publish_ahead. An HSM or a
	// remote signer makes no key by itself; there, the next one is one that it has not
	// signed with yet, and while there is none the present key goes on.
	KeyDuration time.Duration `yaml:"key_duration"`
	// How long an access token is valid. Shorter is safer with services that do
	// not follow the revocation feed, and costs more renewals.
	TokenDuration time.Duration `yaml:"token_duration"`
	// How long a refresh token may lie unused, and a browser's session on the pages. The
	// session's own end comes first if it is earlier.
	RefreshDuration time.Duration `yaml:"refresh_duration"`
	// For how long a spent refresh token still gives the same successor, so that two
	// tabs may renew at once. After it the token gives another one, as long as none has
	// been used. After that it counts as theft and ends the session. Two parties that
	// renew within this time of each other are not told apart.
	RenewGrace time.Duration `yaml:"renew_grace"`
	// The max-age with which the key set is served. A new key signs only after it
	// has been in the key set for as long.
	KeySetMaxAge time.Duration `yaml:"key_set_max_age"`
	// How long a key that follows another one is in the key set before it signs: longer
	// than verifiers keep a key set. Many keep it for 5 to 20 minutes whatever max-age says,
	// and do not ask again when they meet an unknown key. Less than key_set_max_age counts as
	// key_set_max_age. The default is shortened to half of key_duration if that is less.
	KeyPublishAhead time.Duration `yaml:"key_publish_ahead"`
	PKCS11          PKCS11        `yaml:"pkcs11"`
	Remote          Remote        `yaml:"remote"`
	UserInfo        UserInfo      `yaml:"user_info"`
}

// PKCS11 is the HSM that signs with tokens.keys pkcs11, by its PKCS #11 library. It takes a
// build with support for HSMs (make build-hsm).
type PKCS11 struct {
	// File of the PKCS #11 library, such as /usr/lib/softhsm/libsofthsm2.so.
	Library string `yaml:"library" env:"CRYPTOKI_LIB"`
	// The user's PIN. A wrong one is tried once and not again, because an HSM locks itself
	// after a few. A running replica takes over another one.
	PIN string `yaml:"pin" env:"PKCS11_PIN" secret:"all" live:"true"`
	// Label of the token (RFC 7512). Needed, unless serial is set, where the library has
	// several tokens.
	Token string `yaml:"token"`
	// Serial number of the token. With token, both must be right.
	Serial string `yaml:"serial"`
	// Label of the signing keys on the token. Several may have it. "watchword keys create
	// --pkcs11" makes one.
	Key string `yaml:"key"`
	// How many sessions this replica opens on the token at most; so many signatures are
	// made at once.
	Sessions int `yaml:"sessions"`
}

// Remote is the signer that signs with tokens.keys remote, over HTTP.
type Remote struct {
	// What the signer speaks. transit: the API of the transit engine of Vault and OpenBao.
	// http: the contract of docs/signing-keys.md.
	Kind RemoteKind `yaml:"kind" oneof:"transit http"`
	// The base URL, such as https://vault:8200. https, unless the signer is on this machine.
	URL string `yaml:"url"`
	// The token that is shown to the signer (X-Vault-Token, or Bearer). A running replica
	// takes over another one.
	Token string `yaml:"token" env:"AUTH_SIGNER_TOKEN" secret:"all" live:"true"`
	// Where the transit engine is mounted. Of no meaning to other signers.
	Mount string `yaml:"mount"`
	// Name of the signing key.
	Key string `yaml:"key"`
	// File with the certificates, PEM, of the authorities that may sign the signer's
	// certificate. Read at the start. Default: the system's.
	CAFile string `yaml:"ca_file"`
	// File with the certificate, PEM, that this replica shows to the signer (mutual TLS).
	// Needs key_file.
	CertFile string `yaml:"cert_file"`
	// File with the certificate's private key, PEM. Needs cert_file.
	KeyFile string `yaml:"key_file"`
	// How long the signer may take to answer.
	Timeout time.Duration `yaml:"timeout"`
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
	// How long a session lasts, however often it is renewed, and a browser's, however much
	// it is used.
	TTL time.Duration `yaml:"ttl"`
	// A session that is not renewed for so long ends, and a browser's that is not used. A
	// page that keeps itself up to date is no use. 0s: no session ends by being idle before
	// tokens.refresh_duration. Not shorter than tokens.token_duration.
	Idle time.Duration `yaml:"idle"`
	// How many sessions a user may have at once; one more ends the oldest, up to 100
	// with each sign-in, so that a lower number than before takes effect in steps. Each
	// sign-in reads all sessions of the user twice, so that many of them make it slow.
	// 0: no bound but 10000, beyond which the oldest end now and then.
	MaxPerUser int `yaml:"max_per_user"`
}

// Revocation is how soon, and how strictly, revoked tokens are refused.
type Revocation struct {
	// Where a replica looks up whether a token is revoked. local: in its own copy of the
	// revocation log, which is as old as poll at most. shared: in the shared store, for
	// every token: in Redis if state.backend uses it, and in the database whenever Redis
	// cannot be sure. Then every replica refuses a token from the moment in which it was
	// revoked, and refuses all tokens while the store does not answer.
	Check RevocationCheck `yaml:"check" oneof:"local shared"`
	// How often the revocation log is read.
	Poll time.Duration `yaml:"poll"`
	// How old a replica's copy of the revocation log may be. It is the promised bound:
	// after it, every replica refuses a revoked token, or on_outage applies. Longer than
	// poll.
	MaxStaleness time.Duration `yaml:"max_staleness"`
	// What happens to tokens while the revocation log has been out of reach for longer
	// than max_staleness. deny: 503. allow: they are accepted by signature and expiry
	// alone. allow 2m: allow for two minutes, then deny.
	OnOutage OnOutage `yaml:"on_outage"`
}

// Bounds of what a password hash may cost, so that a hash from the database or the init
// file cannot take a replica down.
const (
	MaxHashMemory      KiB = 256 << 10
	MaxHashIterations      = 16
	MaxHashParallelism     = 16
	MaxHashWork        KiB = 4 * MaxHashMemory // memory × iterations
)

// Password is the cost of a password hash (Argon2id, RFC 9106), and how many are computed
// at once. A stored hash keeps the cost it was made with until its user logs in. While it
// costs more than today's, because the cost was lowered or the hash is from the init
// file, the time that a login takes reveals that the user exists.
type Password struct {
	// Memory of one hash, such as 19MiB; a number alone is KiB. At least 8KiB for each
	// lane, at most 256MiB, and memory × iterations at most 1GiB.
	Memory KiB `yaml:"memory"`
	// Passes over the memory, 1 to 16.
	Iterations int `yaml:"iterations"`
	// Lanes of one hash, 1 to 16.
	Parallelism int `yaml:"parallelism"`
	// How many hashes are computed at once. Together they take workers × memory.
	// 0: one fewer than there are CPUs at the start, so that requests that need no hash find
	// one free, but at least one.
	Workers int `yaml:"workers"`
	// How many logins may wait for a worker. When one more comes, the client that has asked
	// for the most of late is refused: with 429 if that is its own fault, otherwise with 503.
	Queue int `yaml:"queue"`
}

// Limits bounds how often something may be attempted, counted over all replicas.
// docs/limits.md says what is counted where, and how a user who is locked out is helped.
//
// A rate such as 20/1m allows 20 attempts at once, and one more every three seconds; off
// counts nothing. It is counted from each address (or /64 of IPv6), and for each account,
// whether or not there is such a user. What is beyond is answered 429. A running replica takes
// over a change; what has been counted stays counted.
type Limits struct {
	// What happens while the store of the counters does not answer. deny: what would be
	// counted is answered 503. local: each replica counts by itself, with its part of each
	// rate and threshold, so that restarts and the number of replicas make a difference.
	OnOutage LimitsOutage `yaml:"on_outage" oneof:"deny local" live:"true"`
	// Passwords that are presented, at a login and to change one's own.
	Login Limit `yaml:"login"`
	// Second factors that are presented.
	MFA Limit `yaml:"mfa"`
	// Refresh tokens that are presented. The account is that of a good one.
	Renew Limit `yaml:"renew"`
	// Requests with an access token, GET /api/verify among them.
	API Limit `yaml:"api"`
	// Requests with an access token to administer users, groups, claims, keys and so on.
	Admin   Limit   `yaml:"admin"`
	Lockout Lockout `yaml:"lockout"`
	Spray   Spray   `yaml:"spray"`
}

// Limit is the rates of one class of requests.
type Limit struct {
	// How many from one address, or from one /64 of IPv6.
	PerAddress Rate `yaml:"per_address" live:"true"`
	// How many for one account.
	PerAccount Rate `yaml:"per_account" live:"true"`
}

// Lockout slows down who guesses at one account. A locked account is answered as a wrong
// password is, also if the password is right.
type Lockout struct {
	// After how many failures from one address attempts from there wait. A success, or a
	// day without a failure, resets them. 0: attempts never wait.
	After int `yaml:"after" live:"true"`
	// The same for all addresses together from which the user has not signed in during the
	// last 30 days. 0: only the address counts.
	AfterAll int `yaml:"after_all" live:"true"`
	// The first wait. Each further failure doubles it.
	Delay time.Duration `yaml:"delay" live:"true"`
	// The longest wait.
	Max time.Duration `yaml:"max" live:"true"`
}

// Spray slows down addresses that fail and from which nobody has signed in during the last
// 30 days, whatever accounts they name. They wait as lockout.delay and lockout.max say.
type Spray struct {
	// After how many failures such an address waits. 0: it never does.
	After int `yaml:"after" live:"true"`
	// How many failures all such addresses may have together. When there are more, each
	// of them waits from its first failure on, for as long as this rate's time.
	Total Rate `yaml:"total" live:"true"`
}

// MFA is second factors and passkeys. docs/mfa.md says how they are enrolled and used, and
// what an operator does for a user who has lost one.
type MFA struct {
	// Who must present a second factor at a login. when-enrolled: the users who have one.
	// always: everybody; a user who has none can enrol one at the login, and do nothing
	// else before. claims:[a, b=c]: the users who hold the claim a with any value, or b with
	// the value c, must have one, as with always; for the others it is when-enrolled. never:
	// nobody; a password is enough also for a user who has a factor. A session that began
	// with a password alone is not renewed while its user must have a factor (always,
	// claims), unless the device was remembered. A token tells what was presented (amr, acr),
	// so that services can ask for more than this setting does.
	Required Required `yaml:"required"`
	// For how long a device on which a second factor was presented needs none of that user,
	// if the client asks to be remembered. A change of the password or of a factor ends it.
	// 0s: every login needs one. At most 2160h (90 days).
	RememberDevice time.Duration `yaml:"remember_device"`
	// The name of this service in authenticator apps. Users who have enrolled keep the name
	// from then. Default: the host of tokens.issuer.
	IssuerName string   `yaml:"issuer_name"`
	Passkeys   Passkeys `yaml:"passkeys"`
}

// Passkeys are public keys of users, for this service (WebAuthn).
type Passkeys struct {
	// The domain that passkeys are made for (RP ID), such as example.com: the host of the
	// pages on which users sign in, or a domain above it that is no public suffix. With
	// another one than before, no passkey works any more, so set it before tokens.issuer
	// changes. Default: the host of tokens.issuer, or of server.public_url if the issuer is
	// no http or https URL. If that is an IP address, or is reached over http, there are no
	// passkeys: browsers make them for names and over https, or on localhost, alone.
	RPID string `yaml:"rp_id"`
	// The origins of the pages on which users sign in with passkeys, such as
	// https://app.example.com, as browsers send them. The host of each is rp_id or below it.
	// Pages elsewhere than on this service need server.cors_origins as well. Default: the
	// origin of the URL from which rp_id has its default.
	Origins []string `yaml:"origins"`
}

// Pages are what people see: the sign-in, their account, and the administration. docs/pages.md
// shows them.
type Pages struct {
	// Enabled serves /signin, /account and /admin. Without it there are no pages, and
	// everything is done over the API and the command.
	Enabled bool `yaml:"enabled"`
	// Name is what the pages call this service: one line of at most 40 characters.
	Name string `yaml:"name"`
	// LogoFile is a picture that stands beside the name: SVG, PNG or WebP of at most 64 KiB. It
	// is read at the start. Default: Watchword's own.
	LogoFile string `yaml:"logo_file"`
	// Accent is the color of buttons and links, written #rrggbb. It has to be readable on the
	// light pages: a contrast of 4.5 to 1 is required. The dark pages have a lighter one, which
	// is derived from it.
	Accent string `yaml:"accent"`
	// Header is the color of the bar at the top, written #rrggbb. The text on it is white or
	// nearly black, whichever is easier to read.
	Header string `yaml:"header"`
}

// Audit is the trail of who did what.
type Audit struct {
	// How long events are kept. An event takes about 400 bytes in the database;
	// docs/storage.md says how many there may be.
	Retention time.Duration `yaml:"retention"`
}

// Admin is the first administrator, and what holds for all of them. The first one is
// created at start while there is none, and never changed afterwards.
type Admin struct {
	// The first administrator's username. Needs password.
	Username string `yaml:"username" env:"ADMIN_GUI_USERNAME"`
	// The first administrator's password. Needs username.
	Password string `yaml:"password" env:"ADMIN_GUI_PASSWORD" secret:"all"`
	// How long after a login its tokens may change something over the API: users, groups,
	// claims, other users' sessions, keys. Then the administrator has to log in again; a
	// renewal does not help. At least 1m.
	FreshFor time.Duration `yaml:"fresh_for"`
}

// Users is where users come from.
type Users struct {
	// YAML file of claims, groups and users that are created at start if they are not
	// there. It may grow. What it has asked for once is not done again, so what was
	// changed or removed in the database since then stays so; use the command line or the
	// API to create it again. Entries that have left the file are remembered too: the
	// replicas of one cluster may start with different files for a while, or with an empty
	// one by mistake, and must not bring back what was removed. The file never removes
	// anything and never overwrites a password.
	InitFile string `yaml:"init_file"`
}

// Health is how GET /health and GET /readyz check the backends.
type Health struct {
	// How long a storage backend may take to answer, and to take a small write, before it
	// counts as down.
	Timeout time.Duration `yaml:"timeout"`
}

// Log is what the replica writes about itself, to standard error.
type Log struct {
	// The least level that is written. A running replica takes over another one.
	Level string `yaml:"level" oneof:"debug info warn error" live:"true"`
	// auto is text on a terminal and json elsewhere.
	Format LogFormat `yaml:"format" oneof:"auto text json"`
}

// Telemetry is what the replica measures of itself.
type Telemetry struct {
	// How often the replica measures how soon a revoked token is refused everywhere
	// (watchword_revocation_propagation_seconds). It issues a token that belongs to no
	// user and that nothing else accepts, waits until all replicas and a resource server
	// of its own accept it, revokes it, and measures the time until the last of them
	// refuses it. Other replicas are asked over HTTP (cluster.discovery), encrypted under
	// cluster.secret; the resource server follows server.public_url. 0s: never.
	Canary time.Duration `yaml:"canary"`
	Traces Traces        `yaml:"traces"`
}

// Traces say what took how long within a request, also across replicas (OpenTelemetry).
// docs/observability.md shows what is in them.
type Traces struct {
	// The URL to which traces are sent, by OTLP over HTTP, such as
	// http://collector:4318/v1/traces; without a path, /v1/traces is added. While nobody
	// answers there, requests go on as ever, and traces are lost. Default: none, and there
	// are no traces.
	Endpoint string `yaml:"endpoint" env:"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"`
	// Headers that are sent along, as NAME=VALUE with special characters of the value written
	// %XX: credentials, for instance.
	Headers []string `yaml:"headers" env:"OTEL_EXPORTER_OTLP_TRACES_HEADERS" secret:"all"`
	// Which part of the requests are traced, from 0 to 1. A request that a proxy among
	// server.trusted_proxies, or another replica, says is part of a trace is traced as its
	// sender wishes.
	SampleRatio Ratio `yaml:"sample_ratio"`
}

// Debug is for whoever looks for the cause of a fault on this machine.
type Debug struct {
	// Host and port, of this machine alone, such as 127.0.0.1:6060, on which profiles
	// (/debug/pprof/) and the level of the log (/debug/log-level) are served, in plain HTTP
	// and without a login: a profile may have secrets in it. In Kubernetes, kubectl
	// port-forward reaches it. Default: none.
	Address string `yaml:"address"`
}

// Default returns the settings as they are when none is set.
func Default() *Config {
	return &Config{
		Server: Server{
			Address:               "127.0.0.1:8080",
			ForwardedHeader:       ForwardedAuto,
			MaxRequestsPerUser:    8,
			MaxRequestsPerAddress: 64,
		},
		Database: Database{
			URL:            "sqlite:data/watchword.db",
			MaxConnections: 10,
			AcquireTimeout: 5 * time.Second,
		},
		State: State{
			Backend: StateAuto,
		},
		Cluster: Cluster{
			Discovery:  DiscoveryDatabase,
			RefreshSec: 30,
		},
		Tokens: Tokens{
			Keys:            KeysAuto,
			Algorithm:       defaultAlgorithm,
			KeyDuration:     3 * time.Hour,
			TokenDuration:   30 * time.Minute,
			RefreshDuration: 30 * 24 * time.Hour,
			RenewGrace:      10 * time.Second,
			KeySetMaxAge:    30 * time.Second,
			KeyPublishAhead: defaultPublishAhead,
			PKCS11: PKCS11{
				Key:      "watchword",
				Sessions: 16,
			},
			Remote: Remote{
				Kind:    RemoteTransit,
				Mount:   "transit",
				Key:     "watchword",
				Timeout: 2 * time.Second,
			},
			UserInfo: UserInfo{
				Username: "preferred_username",
				FullName: "name",
				Email:    "email",
			},
		},
		Sessions: Sessions{
			TTL:        24 * time.Hour,
			MaxPerUser: 100,
		},
		Revocation: Revocation{
			Check:        CheckLocal,
			Poll:         time.Second,
			MaxStaleness: 5 * time.Second,
		},
		Password: Password{
			Memory:      19 * 1024,
			Iterations:  2,
			Parallelism: 1,
			Queue:       64,
		},
		Limits: Limits{
			Login:    Limit{PerAddress: Rate{60, time.Minute}, PerAccount: Rate{30, 5 * time.Minute}},
			MFA:      Limit{PerAddress: Rate{60, time.Minute}, PerAccount: Rate{10, 5 * time.Minute}},
			Lockout:  Lockout{After: 5, AfterAll: 50, Delay: 30 * time.Second, Max: 15 * time.Minute},
			Spray:    Spray{After: 50, Total: Rate{300, 10 * time.Minute}},
			OnOutage: LimitsDeny,
		},
		MFA: MFA{
			Required: Required{Mode: RequiredWhenEnrolled},
		},
		Pages: Pages{
			Enabled: true,
			Name:    "Watchword",
			Accent:  "#2454c6",
			Header:  "#14213d",
		},
		Admin: Admin{
			FreshFor: 10 * time.Minute,
		},
		Audit: Audit{
			Retention: 365 * 24 * time.Hour,
		},
		Health: Health{
			Timeout: time.Second,
		},
		Log: Log{
			Level:  "info",
			Format: LogAuto,
		},
		Telemetry: Telemetry{
			Traces: Traces{SampleRatio: 1},
		},
	}
}
