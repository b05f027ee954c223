-- What a user authenticates with besides the password or in its place, and ways to recover.

-- +goose Up

-- What a factor is stands in data, which is sealed for the row's user, kind and id. By its
-- digest it is found. It goes with its user, whichever version deletes that one.
CREATE TABLE IF NOT EXISTS factors (
	id         VARCHAR(64){{bin}} NOT NULL PRIMARY KEY,
	user_id    VARCHAR(64){{bin}} NOT NULL,
	kind       VARCHAR(32){{bin}} NOT NULL,
	digest     VARCHAR(128){{bin}} NOT NULL,
	data       {{blob}} NOT NULL,
	created_at BIGINT NOT NULL,
	version    BIGINT NOT NULL,
	CONSTRAINT factors_digest UNIQUE (kind, digest),
	CONSTRAINT factors_user UNIQUE (user_id, id),
	CONSTRAINT factors_to_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
){{table}};
