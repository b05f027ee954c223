-- By what users are recognised, so that nobody takes what another user has.

-- +goose Up

-- A mark is the digest of something by which a user is recognised, such as the
-- e-mail address. Two users may have the same mark: whether they may is decided by
-- the transaction that writes it. until_at is 0 while the user has it; after that, until
-- when nobody else gets it. A mark outlives its user, so it does not refer to one.
CREATE TABLE IF NOT EXISTS identity_marks (
	digest   VARCHAR(64){{bin}} NOT NULL,
	kind     VARCHAR(32){{bin}} NOT NULL,
	user_id  VARCHAR(64){{bin}} NOT NULL,
	until_at BIGINT NOT NULL,
	PRIMARY KEY (digest, kind, user_id),
	CONSTRAINT identity_marks_user UNIQUE (user_id, kind, digest),
	CONSTRAINT identity_marks_until UNIQUE (until_at, digest, kind, user_id)
){{table}};

-- Whose e-mail address was verified, and which one. The address is verified only while
-- it is the user's: whatever version changes it in users, it counts no more.
CREATE TABLE IF NOT EXISTS verified_emails (
	user_id VARCHAR(64){{bin}} NOT NULL PRIMARY KEY,
	email   TEXT NOT NULL,
	CONSTRAINT verified_emails_to_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
){{table}};
