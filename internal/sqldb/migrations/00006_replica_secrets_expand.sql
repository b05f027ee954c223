-- The signing secrets that replicas accept, so that one with another secret finds out.

-- +goose Up

-- What belongs to a row of replicas: the kids of its signing secrets, separated by spaces, and
-- when it entered, by the database's clock (0: not known yet). A replica without secrets has
-- none. A version that does not know this table replaces and deletes rows of replicas without
-- it, hence the incarnation. The mac in replicas is over this row, too.
CREATE TABLE IF NOT EXISTS replica_secrets (
	instance    VARCHAR(255){{bin}} NOT NULL PRIMARY KEY,
	incarnation VARCHAR(64){{bin}} NOT NULL,
	secrets     TEXT NOT NULL,
	entered_at  BIGINT NOT NULL
){{table}};
