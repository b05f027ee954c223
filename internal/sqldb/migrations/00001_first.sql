-- The first schema.
--
-- Times are microseconds since 1970, UTC; 0 is none. Indexes stand inside the
-- tables as unique constraints that end with the primary key, because that is
-- the one form which all databases know and which may run twice. Names that
-- somebody reserves (groups, key, value of MySQL 8...) are avoided.

-- +goose Up

CREATE TABLE IF NOT EXISTS settings (
	name  VARCHAR(255){{bin}} NOT NULL PRIMARY KEY,
	value TEXT NOT NULL
){{table}};

INSERT INTO settings (name, value)
	SELECT 'schema_oldest', '1' FROM (SELECT 1 AS one) AS d
	WHERE NOT EXISTS (SELECT 1 FROM settings WHERE name = 'schema_oldest');

CREATE TABLE IF NOT EXISTS users (
	id            VARCHAR(64){{bin}} NOT NULL PRIMARY KEY,
	username      VARCHAR(255) NOT NULL,
	name_key      VARCHAR(255){{bin}} NOT NULL,
	email         TEXT NOT NULL,
	first_name    TEXT NOT NULL,
	last_name     TEXT NOT NULL,
	password_hash TEXT NOT NULL,
	disabled      SMALLINT NOT NULL,
	epoch         BIGINT NOT NULL,
	session_epoch BIGINT NOT NULL,
	created_at    BIGINT NOT NULL,
	updated_at    BIGINT NOT NULL,
	version       BIGINT NOT NULL,
	CONSTRAINT users_name UNIQUE (name_key)
){{table}};

CREATE TABLE IF NOT EXISTS usergroups (
	id         VARCHAR(64){{bin}} NOT NULL PRIMARY KEY,
	name       VARCHAR(255) NOT NULL,
	name_key   VARCHAR(255){{bin}} NOT NULL,
	created_at BIGINT NOT NULL,
	updated_at BIGINT NOT NULL,
	version    BIGINT NOT NULL,
	CONSTRAINT usergroups_name UNIQUE (name_key)
){{table}};

CREATE TABLE IF NOT EXISTS claims (
	id         VARCHAR(64){{bin}} NOT NULL PRIMARY KEY,
	name       VARCHAR(255) NOT NULL,
	name_key   VARCHAR(255){{bin}} NOT NULL,
	short_name VARCHAR(255){{bin}} NOT NULL,
	held_value VARCHAR(255){{bin}} NOT NULL,
	created_at BIGINT NOT NULL,
	updated_at BIGINT NOT NULL,
	version    BIGINT NOT NULL,
	CONSTRAINT claims_name UNIQUE (name_key),
	CONSTRAINT claims_held UNIQUE (short_name, held_value, id)
){{table}};

-- Who is in which group. user_key is the user's name_key, so that a page of a
-- large group's members is read off the index.
CREATE TABLE IF NOT EXISTS memberships (
	user_id  VARCHAR(64){{bin}} NOT NULL,
	group_id VARCHAR(64){{bin}} NOT NULL,
	user_key VARCHAR(255){{bin}} NOT NULL,
	PRIMARY KEY (user_id, group_id),
	CONSTRAINT memberships_group UNIQUE (group_id, user_key, user_id),
	CONSTRAINT memberships_to_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
	CONSTRAINT memberships_to_group FOREIGN KEY (group_id) REFERENCES usergroups (id) ON DELETE CASCADE
){{table}};

-- Which group gives which claim.
CREATE TABLE IF NOT EXISTS group_claims (
	group_id VARCHAR(64){{bin}} NOT NULL,
	claim_id VARCHAR(64){{bin}} NOT NULL,
	PRIMARY KEY (group_id, claim_id),
	CONSTRAINT group_claims_claim UNIQUE (claim_id, group_id),
	CONSTRAINT group_claims_to_group FOREIGN KEY (group_id) REFERENCES usergroups (id) ON DELETE CASCADE,
	CONSTRAINT group_claims_to_claim FOREIGN KEY (claim_id) REFERENCES claims (id) ON DELETE CASCADE
){{table}};

CREATE TABLE IF NOT EXISTS signing_keys (
	id          VARCHAR(255){{bin}} NOT NULL PRIMARY KEY,
	instance    VARCHAR(255) NOT NULL,
	algorithm   VARCHAR(64) NOT NULL,
	public_jwk  {{blob}} NOT NULL,
	sealed      {{blob}},
	created_at  BIGINT NOT NULL,
	activate_at BIGINT NOT NULL,
	retire_at   BIGINT NOT NULL,
	remove_at   BIGINT NOT NULL,
	revoked_at  BIGINT NOT NULL
){{table}};

-- A kid is never used again, also when its key is gone.
CREATE TABLE IF NOT EXISTS used_kids (
	id VARCHAR(255){{bin}} NOT NULL PRIMARY KEY
){{table}};

-- The log of what was taken back, and its end: one row, which every writer locks
-- until it commits, so that numbers become visible in their order.
CREATE TABLE IF NOT EXISTS revocation_head (
	id     SMALLINT NOT NULL PRIMARY KEY,
	log_id VARCHAR(64) NOT NULL,
	seq    BIGINT NOT NULL
){{table}};

INSERT INTO revocation_head (id, log_id, seq)
	SELECT 1, {{random}}, 0 FROM (SELECT 1 AS one) AS d
	WHERE NOT EXISTS (SELECT 1 FROM revocation_head WHERE id = 1);

CREATE TABLE IF NOT EXISTS revocations (
	seq           BIGINT NOT NULL PRIMARY KEY,
	kind          VARCHAR(32) NOT NULL,
	subject       VARCHAR(255){{bin}} NOT NULL,
	epoch         BIGINT NOT NULL,
	issued_before BIGINT NOT NULL,
	expires_at    BIGINT NOT NULL,
	created_at    BIGINT NOT NULL,
	actor         VARCHAR(64) NOT NULL,
	reason        VARCHAR(64) NOT NULL,
	CONSTRAINT revocations_expiry UNIQUE (expires_at, seq)
){{table}};

CREATE TABLE IF NOT EXISTS audit_events (
	id      VARCHAR(64){{bin}} NOT NULL PRIMARY KEY,
	at_time BIGINT NOT NULL,
	actor   VARCHAR(255){{bin}} NOT NULL,
	action  VARCHAR(64) NOT NULL,
	target  VARCHAR(255){{bin}} NOT NULL,
	outcome VARCHAR(64) NOT NULL,
	address VARCHAR(255) NOT NULL,
	detail  TEXT NOT NULL,
	CONSTRAINT audit_events_time UNIQUE (at_time, id),
	CONSTRAINT audit_events_actor UNIQUE (actor, id),
	CONSTRAINT audit_events_target UNIQUE (target, id)
){{table}};

-- Package state/sqlstate: what expires.
CREATE TABLE IF NOT EXISTS state_records (
	kind       VARCHAR(64){{bin}} NOT NULL,
	owner      VARCHAR(128){{bin}} NOT NULL,
	id         VARCHAR(128){{bin}} NOT NULL,
	value      {{blob}} NOT NULL,
	version    BIGINT NOT NULL,
	expires_at BIGINT NOT NULL,
	PRIMARY KEY (kind, owner, id),
	CONSTRAINT state_records_expiry UNIQUE (expires_at, kind, owner, id)
){{table}};

CREATE TABLE IF NOT EXISTS state_rates (
	kind       VARCHAR(64){{bin}} NOT NULL,
	owner      VARCHAR(128){{bin}} NOT NULL,
	id         VARCHAR(128){{bin}} NOT NULL,
	tat        BIGINT NOT NULL,
	expires_at BIGINT NOT NULL,
	PRIMARY KEY (kind, owner, id),
	CONSTRAINT state_rates_expiry UNIQUE (expires_at, kind, owner, id)
){{table}};
